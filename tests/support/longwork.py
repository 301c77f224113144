"""Long requests over a state of many accounts, and a store that keeps what is large when the test lets it."""

import asyncio
import select
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.rules.changes import Change, LargeChange
from pki2fad.rules.otp import Parameters
from pki2fad.rules.outcomes import Settle
from pki2fad.state.keeping import Keeping
from pki2fad.wire import messages
from support.agents import OTHER_SEED, SEED, make_keyring
from support.bench import TIMEOUT, Bench, bench, receive
from support.raw import REQUEST, RawPeer
from support.sites import Site

MANY = 4000  # what is done with them takes many pieces
STATUS = [REQUEST, 7, "status", []]


class Slow:
    """A store that keeps what is large only when the test lets it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.kinds: list[type] = []  # of what is large, as it was asked for
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def keep(self, changes: Sequence[Change], settle: Settle) -> None:
        if isinstance(changes[0], LargeChange):
            self.kinds.append(type(changes[0]))
            self.asked.set()
            assert self.go_on.wait(TIMEOUT)
        self.site.store.keep(changes, settle)

    def give_up(self) -> None:
        self.site.store.give_up()
        self.go_on.set()


@contextmanager
def slow_site(directory: Path, host_key: PrivateKey) -> Iterator[Slow]:
    """A host with many accounts, on record."""
    with Site(directory / "state.db", host_key) as site:
        master = site.keyring.master
        accounts = make_keyring({f"user{i}": SEED for i in range(MANY)}, master=master).accounts
        edit = site.agent._admin._edit
        site.keep(*(edit(name, one, None, site.reading) for name, one in accounts.items()))
        yield Slow(site)


@asynccontextmanager
async def served(slow: Slow) -> AsyncIterator[Bench]:
    keeping = Keeping(slow)
    async with bench(slow.site.agent, keeping) as at:
        at.server.long_work._give_up = slow.give_up
        yield at
    keeping.close()


def other_seeds(slow: Slow, directory: Path, host_key: PrivateKey, other_key: PrivateKey) -> bytes:
    """A backup of accounts of the same names, with other seeds."""
    with Site(directory / "other.db", other_key) as other:
        for name in slow.site.keyring.accounts:
            seed = bytearray(OTHER_SEED)
            other.keyring.put(other.keyring.seal(name, seed, Parameters()))
        return other.backup(host_key)


def restoring(data: bytes, **more: Any) -> list[Any]:
    """The requests that restore a backup."""
    size = messages.PART_LIMIT
    parts = [(offset, data[offset : offset + size]) for offset in range(0, len(data), size)]
    arguments = [{"upload": "0" * 32, "offset": offset, "part": part} for offset, part in parts]
    arguments[-1] |= {"last": True, **more}
    return [[REQUEST, number, "restore", [each]] for number, each in enumerate(arguments)]


async def begin_restore(peer: RawPeer, data: bytes) -> list[Any]:
    """Send all parts, and wait for the answers to all but the last, which is returned as a request."""
    *parts, last = restoring(data, replace=True)
    await asyncio.to_thread(peer.send, *parts)
    await receive(peer, len(parts))
    return last


def long_requests(at: Bench) -> int:
    """How many there are that were not answered."""
    work = at.server.long_work
    return (work._job is not None) + len(work._waiting)


async def send_and_wait(at: Bench, peer: RawPeer, request: list[Any]) -> None:
    """Send a long request, and go on when its first pieces are done, or when it waits for another."""
    before = long_requests(at)
    peer.send(request)
    async with asyncio.timeout(TIMEOUT):
        while long_requests(at) == before:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


async def arrives(peer: RawPeer) -> None:
    """Wait until an answer arrives, in the loop itself: a thread would see it later."""
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(peer.stream, arrived.set)
    async with asyncio.timeout(TIMEOUT):
        await arrived.wait()
    loop.remove_reader(peer.stream)


def is_answered(peer: RawPeer) -> bool:
    return bool(select.select([peer.stream], [], [], 0)[0])


def requests(name: str, host_key: PrivateKey, other_key: PrivateKey) -> list[Any]:
    arguments: dict[str, dict[str, Any]] = {
        "accounts": {},
        "backup": {"to": rsakeys.public_pem(host_key.public_key())},
        "rotate": {"private": rsakeys.private_pem(other_key)},
        "clock_accept": {},
    }
    return [REQUEST, 1, name, [arguments[name]]]

"""Long requests go in pieces: others are answered between them, and all or nothing stays."""

import asyncio
import select
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.agents import OTHER_SEED, SEED, make_keyring, reference_code, unpacked
from support.bench import TIMEOUT, Bench, bench, call, in_loop, receive
from support.raw import REQUEST, RawPeer
from support.sites import Site

from pki2fad import clock, envelope, wire
from pki2fad.changes import Change, ClockEdit, Edits, Rotation
from pki2fad.envelope import PrivateKey
from pki2fad.otp import Parameters

MANY = 4000  # what is done with them takes many pieces
STATUS = [REQUEST, 7, "status", []]


class Slow:
    """A store that keeps what is large only when it is told to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.kinds: list[type] = []  # of what is large, as it was asked for
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def keep(self, changes: Sequence[Change]) -> list[bool]:
        if isinstance(changes[0], Edits | ClockEdit | Rotation):
            self.kinds.append(type(changes[0]))
            self.asked.set()
            assert self.go_on.wait(TIMEOUT)
        return self.site.store.keep(changes)

    def give_up(self) -> None:
        self.site.store.give_up()
        self.go_on.set()


@pytest.fixture
def site(tmp_path: Path, host_key: PrivateKey) -> Iterator[Site]:
    """A host with many accounts, on record."""
    with Site(tmp_path / "state.db", host_key) as site:
        master = site.keyring.master
        accounts = make_keyring({f"user{i}": SEED for i in range(MANY)}, master=master).accounts
        edit = site.agent._admin._edit
        site.keep(*(edit(name, one, None, site.reading) for name, one in accounts.items()))
        yield site


@pytest.fixture
def slow(site: Site) -> Slow:
    return Slow(site)


@asynccontextmanager
async def served(slow: Slow) -> AsyncIterator[Bench]:
    async with bench(slow.site.agent, slow) as at:
        at.server.long_work._give_up = slow.give_up
        yield at


@pytest.fixture
def replacing(site: Site, tmp_path: Path, host_key: PrivateKey, other_key: PrivateKey) -> bytes:
    """A backup of accounts of the same names, with other seeds."""
    with Site(tmp_path / "other.db", other_key) as other:
        for name in site.keyring.accounts:
            seed = bytearray(OTHER_SEED)
            other.keyring.put(other.keyring.seal(name, seed, Parameters()))
        return other.backup(host_key)


def restoring(data: bytes, **more: Any) -> list[Any]:
    """The requests that restore a backup."""
    size = wire.PART_LIMIT
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
        "backup": {"to": envelope.public_pem(host_key.public_key())},
        "rotate": {"private": envelope.private_pem(other_key)},
        "clock_accept": {},
    }
    return [REQUEST, 1, name, [arguments[name]]]


@pytest.mark.parametrize("method", ["accounts", "backup", "rotate", "clock_accept"])
@in_loop
async def test_others_are_answered_before_a_long_request_that_came_first(
    slow: Slow, host_key: PrivateKey, other_key: PrivateKey, method: str
) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        long.send(requests(method, host_key, other_key))
        other.send(STATUS)
        await arrives(other)
        assert not is_answered(long)
        ((_, _, error, result),) = await receive(long, 1)
        assert error is None
        assert result


@in_loop
async def test_others_are_answered_before_a_restore_that_came_first(slow: Slow, replacing: bytes) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        last = await begin_restore(long, replacing)
        await send_and_wait(at, long, last)
        other.send(STATUS)
        await arrives(other)
        assert not is_answered(long)
        ((_, _, error, result),) = await receive(long, 1)
        assert error is None
        assert len(result["changed"]) == MANY
    assert {account.digest for account in slow.site.store.accounts()} == {
        account.digest for account in slow.site.keyring.accounts.values()
    }


@in_loop
async def test_what_comes_behind_a_long_request_on_its_connection_waits_for_it(slow: Slow) -> None:
    async with served(slow) as at:
        peer = await at.connect()
        peer.send([REQUEST, 1, "accounts", []], STATUS, [REQUEST, 8, "accounts", []])
        answers = await receive(peer, 3)
        assert [msgid for _, msgid, _, _ in answers] == [1, 7, 8]
        assert len(answers[0][3]) == len(answers[2][3]) == MANY


@in_loop
async def test_long_requests_of_several_clients_are_carried_out_one_after_the_other(
    slow: Slow, replacing: bytes, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    async with served(slow) as at:
        first, second, third = [await at.connect() for _ in range(3)]
        last = await begin_restore(first, replacing)
        slow.go_on.clear()
        await send_and_wait(at, first, last)
        await send_and_wait(at, second, requests("rotate", host_key, other_key))
        await send_and_wait(at, third, requests("clock_accept", host_key, other_key))
        assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)
        assert slow.kinds == [Edits]
        assert long_requests(at) == 3
        slow.go_on.set()
        for peer in (first, second, third):
            ((_, _, error, _),) = await receive(peer, 1)
            assert error is None
        assert slow.kinds == [Edits, Rotation, ClockEdit]


@in_loop
async def test_an_edit_that_comes_between_ends_the_request_and_nothing_of_it_is_made(
    slow: Slow, replacing: bytes, host_key: PrivateKey
) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        last = await begin_restore(long, replacing)
        before = {account.name: account.digest for account in slow.site.store.accounts()}
        sealed = envelope.seal_seed(host_key.public_key(), bytearray(OTHER_SEED))
        await send_and_wait(at, long, last)
        other.send([REQUEST, 1, "load", [{"account": "new", "sealed": sealed}]])
        assert (await receive(other, 1))[0][2] is None
        ((_, _, error, _),) = await receive(long, 1)
        assert error == ["unavailable", "unavailable: another change came between; try again", 1]
        after = {account.name: account.digest for account in slow.site.store.accounts()}
        assert after.pop("new")
        assert after == before
        assert before.items() <= {n: one.digest for n, one in slow.site.keyring.accounts.items()}.items()
        peer = await at.connect()
        last = await begin_restore(peer, replacing)
        peer.send(last)
        assert (await receive(peer, 1))[0][2] is None  # tried again it goes through


@in_loop
async def test_a_code_that_is_accepted_meanwhile_stays_spent_with_the_seed_that_is_replaced(
    slow: Slow, replacing: bytes
) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        last = await begin_restore(long, replacing)
        old = slow.site.keyring.accounts["user7"]
        step = int(clock.wall() // 30)
        await send_and_wait(at, long, last)
        other.send([REQUEST, 1, "verify", [{"account": "user7", "code": reference_code(SEED, step)}]])
        assert (await receive(other, 1))[0][2:] == [None, {"valid": True}]
        assert (await receive(long, 1))[0][2] is None
    for gone in (slow.site.keyring.gone, slow.site.store.gone()):
        assert gone[old.digest][0] >= step


@in_loop
async def test_while_the_store_is_in_use_others_are_answered_and_what_has_to_be_kept_waits(
    slow: Slow, replacing: bytes, host_key: PrivateKey
) -> None:
    sealed = envelope.seal_seed(host_key.public_key(), bytearray(SEED))
    async with served(slow) as at:
        long, other, waiting = [await at.connect() for _ in range(3)]
        assert (await call(other, "load", account="apart", sealed=sealed))[0] is None
        last = await begin_restore(long, replacing)
        slow.go_on.clear()
        long.send(last)
        assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)
        step = int(clock.wall() // 30)
        waiting.send([REQUEST, 1, "verify", [{"account": "apart", "code": reference_code(SEED, step)}]])
        assert (await call(other, "generate", account="user1"))[0] is None
        error, _ = await call(other, "verify", account="user1", code=reference_code(SEED, step))
        assert error == ["unavailable", "unavailable: the account is being changed; try again", 1]
        error, _ = await call(other, "remove", account="user1")
        assert error == ["unavailable", "unavailable: many accounts are being changed; try again", 1]
        assert not is_answered(waiting)
        assert not is_answered(long)
        slow.go_on.set()
        assert (await receive(waiting, 1))[0][3] == {"valid": True}
        assert (await receive(long, 1))[0][2] is None
        kept = {account.name: account.last_step for account in slow.site.store.accounts()}
        assert kept["apart"] >= step


@in_loop
async def test_a_change_that_cannot_be_kept_leaves_everything_as_it_was(slow: Slow, replacing: bytes) -> None:
    async with served(slow) as at:
        peer = await at.connect()
        last = await begin_restore(peer, replacing)
        slow.site.store._database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON accounts WHEN new.name = 'user3999'"
            " BEGIN SELECT raise(ABORT, 'the disk is full'); END"
        )
        before = {name: account.digest for name, account in slow.site.keyring.accounts.items()}
        peer.send(last)
        ((_, _, error, _),) = await receive(peer, 1)
        assert error[0] == "unavailable"
        assert {name: one.digest for name, one in slow.site.keyring.accounts.items()} == before
        assert {account.name: account.digest for account in slow.site.store.accounts()} == before
        code = reference_code(SEED, int(clock.wall() // 30))
        assert await call(peer, "verify", account="user1", code=code) == (None, {"valid": True})


@pytest.mark.parametrize("where", ["while seeds are sealed", "while it is kept"])
@in_loop
async def test_a_lock_during_a_rotation_keeps_the_keys_locked_and_either_key_opens_the_state(
    slow: Slow, host_key: PrivateKey, other_key: PrivateKey, where: str
) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        slow.go_on.clear()
        await send_and_wait(at, long, requests("rotate", host_key, other_key))
        if where == "while it is kept":
            assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)
        other.send([REQUEST, 1, "lock", []])
        assert (await receive(other, 1))[0][3] == {"locked": True}
        slow.go_on.set()
        ((_, _, error, _),) = await receive(long, 1)
        assert (error is None) is (where == "while it is kept")
        assert (await call(other, "generate", account="user1"))[0][0] == "locked"
    site = slow.site
    for key in (host_key,) if error else (host_key, other_key):
        site._key = key
        site.kill()
        assert site.call("generate", account="user1")["code"]


@pytest.mark.parametrize("where", ["while seeds are opened", "while it is kept"])
@in_loop
async def test_a_stop_gives_up_what_is_not_kept_and_nothing_has_changed(
    slow: Slow, replacing: bytes, where: str
) -> None:
    before = {account.name: account.digest for account in slow.site.store.accounts()}
    async with served(slow) as at:
        peer = await at.connect()
        last = await begin_restore(peer, replacing)
        slow.go_on.clear()
        await send_and_wait(at, peer, last)
        if where == "while it is kept":
            assert await asyncio.to_thread(slow.asked.wait, TIMEOUT)
        reader = asyncio.create_task(asyncio.to_thread(lambda: list(peer.messages())))
        async with asyncio.timeout(2):
            await at.server.stop()
        ((_, _, error, _),) = await reader
        assert error == ["unavailable", "unavailable: the daemon stops"]
    slow.site.kill()
    assert {account.name: account.digest for account in slow.site.store.accounts()} == before


@in_loop
async def test_a_client_that_is_gone_does_not_end_what_it_asked_for(slow: Slow, replacing: bytes) -> None:
    async with served(slow) as at:
        gone, other = await at.connect(), await at.connect()
        last = await begin_restore(gone, replacing)
        await send_and_wait(at, gone, last)
        gone.close()
        other.send([REQUEST, 1, "recipients", []])  # waits for its turn behind it
        assert (await receive(other, 1))[0][2] is None
        expected = slow.site.keyring.seal("user5", bytearray(OTHER_SEED), Parameters()).digest
        assert slow.site.keyring.accounts["user5"].digest == expected


@in_loop
async def test_a_client_that_reads_slowly_gets_all_of_a_long_answer(slow: Slow, host_key: PrivateKey) -> None:
    async with served(slow) as at:
        long, other = await at.connect(), await at.connect()
        to = envelope.public_pem(host_key.public_key())
        long.send([REQUEST, 1, "backup", [{"to": to}]], STATUS)
        await arrives(long)
        assert (await call(other, "status"))[0] is None  # the long one is on its way meanwhile
        (_, _, error, result), (_, msgid, _, _) = await receive(long, 2)
        assert error is None
        assert msgid == 7
    assert (
        len(unpacked(result["backup"], slow.site.agent._admin._keys.open_backup(result["backup"])).records)
        == MANY
    )


@in_loop
async def test_a_long_answer_to_a_connection_that_was_closed_keeps_no_other_from_leaving(slow: Slow) -> None:
    async with served(slow) as at:
        long = await at.connect()
        await send_and_wait(at, long, [REQUEST, 1, "accounts", []])
        at.connection.close()
        error, accounts = await call(await at.connect(), "accounts")
        assert error is None
        assert len(accounts) == MANY

"""A server in this process and raw clients of it, in one event loop, over a store that can fail."""

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import msgpack

from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer
from pki2fad.rules.changes import Edit, Spend
from pki2fad.rules.outcomes import KEPT, SPENT, Outcome, Settle
from pki2fad.server.connection import Connection
from pki2fad.server.server import Server
from support import agents
from support.raw import REQUEST, RawPeer, Seed
from support.stores import Keeping

TIMEOUT = 10.0  # seconds until a test fails whose answer does not come


class Keeper:
    """What stands for the store: it keeps changes, or refuses Spends, or fails."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Spend | Edit]] = []
        self.failure: Exception | None = None
        self.refused: set[str] = set()  # accounts whose Spends are refused
        self.before: Callable[[], object] = lambda: None

    def keep(self, changes: Sequence[Spend | Edit], settle: Settle) -> None:
        self.before()
        self.calls.append(changes)
        if self.failure is not None:
            raise self.failure
        settle([(index, self._outcome(change)) for index, change in enumerate(changes)])

    def _outcome(self, change: Spend | Edit) -> Outcome:
        return SPENT if isinstance(change, Spend) and change.account in self.refused else KEPT

    @property
    def kinds(self) -> list[list[type]]:
        """What was kept together."""
        return [[type(change) for change in changes] for changes in self.calls]


class Bench:
    """A server and its clients."""

    def __init__(self, agent: Agent, keeper: Keeping) -> None:
        self.server = Server(agent, keeper.keep, 100, 100)
        self._open = contextlib.ExitStack()

    async def connect(self, peer: Peer | None = None) -> RawPeer:
        """A client over a pair of sockets; the server takes it for `peer`, if one is given."""
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT)
        theirs.setblocking(False)
        connection = self.server.let_in(theirs)
        assert connection is not None
        if peer is not None:
            connection.peer = peer
        return self._open.enter_context(RawPeer(ours))

    @property
    def connection(self) -> Connection:
        """The server's end of the only client's connection."""
        (connection,) = self.server._connections
        return connection

    async def close(self) -> None:
        await self.server.stop()
        self._open.close()


def agent(kind: type[Agent] = Agent, **seeds: Seed) -> Agent:
    """An agent with these accounts, that loads seeds in hex digits."""
    keyring = agents.make_keyring({name: bytes.fromhex(seed.hex) for name, seed in seeds.items()})
    access = agents.Access([], os.geteuid(), Users())
    throttle, watch = agents.no_throttle(), agents.no_watch()
    return kind(
        keyring,
        access,
        throttle,
        watch,
        keys=agents.OpenKeys(keyring, agents.open_plain),
        started=agents.STARTED,
    )


@contextlib.asynccontextmanager
async def bench(agent: Agent, keeper: Keeping) -> AsyncIterator[Bench]:
    """A server, until the end of the block."""
    bench = Bench(agent, keeper)
    try:
        yield bench
    finally:
        await bench.close()


def arrived(peer: RawPeer) -> list[Any]:
    """The answers that are there by now."""
    peer.stream.setblocking(False)
    answers = []
    with contextlib.suppress(BlockingIOError):
        for answer in peer.messages():
            answers.append(answer)  # noqa: PERF402 - it ends by an exception, and what came before counts
    peer.stream.settimeout(TIMEOUT)
    return answers


async def receive(peer: RawPeer, count: int) -> list[Any]:
    """The next answers, while the loop goes on."""

    def receive() -> list[Any]:
        return [peer.receive() for _ in range(count)]

    return await asyncio.to_thread(receive)


async def call(peer: RawPeer, method: str, **arguments: Any) -> tuple[Any, Any]:
    """Error and result of one call, while the loop goes on."""
    return await asyncio.to_thread(peer.exchange, [method, [arguments]])


async def send_until_blocked(peer: RawPeer, method: str, *arguments: dict[str, Any]) -> int:
    """Pipeline requests and read nothing; returns how many were taken before no more were."""
    request = msgpack.packb([REQUEST, 0, method, arguments])
    sent = idle = 0
    peer.stream.setblocking(False)
    while idle < 1000:  # turns of the loop in which nothing was taken
        try:
            sent += peer.stream.send((request * 1000)[sent % len(request) :])
            idle = 0
        except BlockingIOError:
            idle += 1
            await asyncio.sleep(0)
    peer.stream.settimeout(TIMEOUT)
    return sent // len(request)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let a test be a coroutine."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return run

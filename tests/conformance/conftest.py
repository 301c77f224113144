"""One suite, three ways to the agent: in memory, over a pair of sockets, and an installed daemon."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from support.agents import OpenKeys, no_throttle
from support.daemon import PATIENCE, Daemon, short_directory
from support.peers import require_root
from support.raw import RawPeer, Seed, connect, connect_as, pair_of

from pki2fad import clock, envelope
from pki2fad.access import Access, Rule
from pki2fad.agent import Agent
from pki2fad.connection import Connection
from pki2fad.envelope import MasterKey, PrivateKey
from pki2fad.keyring import Keyring
from pki2fad.server import Server
from pki2fad.store import Store

_STRANGER = 12345  # a uid without any role
_DEPLOYER = 12346  # a uid that may have codes of the account `deploy`, and nothing else
_OVERFLOW = 65534  # what the kernel shows where a uid cannot be told

_RULE = Rule("generate", (_DEPLOYER,), ("deploy",))
_CONFIG = f"""
[[access]]
role = "generate"
who = [{_DEPLOYER}]
accounts = ["deploy"]

[throttle]
enabled = false
"""


class Endpoint(Protocol):
    """Something that answers. It can be stopped, and started again with the same state."""

    pid: int

    def start(self, boot_id: str = "the first boot") -> None: ...

    def stop(self) -> None: ...

    def connect(self, uid: int | None = None) -> RawPeer:
        """A connection of our own user, or of another one, which needs root."""


class _Local:
    """A server in this process, with a store on disk."""

    def __init__(self, directory: Path, key: PrivateKey) -> None:
        self.pid = os.getpid()
        self._path = str(directory / "state.db")
        self._key = key
        self._master = MasterKey()

    def _build(self, boot_id: str) -> tuple[Server, Store]:
        store = Store(self._path)
        reading = clock.read()
        keyring = Keyring(self._master)
        keyring.accounts = {account.name: account for account in store.accounts()}
        keyring.gone = store.gone()
        store.begin_boot(boot_id, reading)
        keyring.floors = store.floors()
        agent = Agent(
            keyring,
            Access([_RULE], os.geteuid()),
            no_throttle(),
            store.watch(reading),
            keys=OpenKeys(keyring, lambda sealed: envelope.open_seed(self._key, sealed)),
            started=reading,
        )
        return Server(agent, store.keep, 1000, 1000), store


class Memory(_Local):
    """Without a socket: what is sent goes into a Connection, what it writes comes out."""

    def start(self, boot_id: str = "the first boot") -> None:
        self._loop = asyncio.new_event_loop()
        self._server, self._store = self._build(boot_id)

    def stop(self) -> None:
        self._loop.run_until_complete(self._server.stop())
        self._loop.close()
        self._store.close()

    def connect(self, uid: int | None = None) -> RawPeer:
        attested, other = socket.socketpair() if uid is None else pair_of(uid)
        other.close()
        return RawPeer(_MemoryStream(self._loop, Connection(self._server), attested))


class _MemoryStream:
    """A peer's end of a connection in memory."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, attested: socket.socket
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._attested = attested
        self._transport = _MemoryTransport(connection, attested)
        self._run(connection.connection_made, self._transport)

    def sendall(self, data: bytes) -> None:
        if not self._transport.closing:
            self._run(self._connection.data_received, data)

    def recv(self, size: int) -> bytes:
        data = bytes(self._transport.written[:size])
        del self._transport.written[:size]
        assert data or self._transport.closing, "nothing was answered"
        return data

    def shutdown(self, _how: int) -> None:
        self._run(self._connection.eof_received)

    def close(self) -> None:
        self._run(self._transport.abort)
        self._attested.close()

    def _run(self, step: Callable[..., object], *arguments: object) -> None:
        """Let the server do this, and all that follows from it."""

        async def run() -> None:
            step(*arguments)

        self._loop.run_until_complete(run())
        while self._transport.paused and not self._transport.closing:
            self._loop.run_until_complete(asyncio.sleep(0))  # its next turn
        self._loop.run_until_complete(asyncio.sleep(0))  # the changes of this turn are kept


class _MemoryTransport(asyncio.Transport):
    """The server's end of a connection in memory; its writes never block."""

    def __init__(self, connection: Connection, attested: socket.socket) -> None:
        super().__init__({"socket": attested})
        self._connection = connection
        self.written = bytearray()
        self.paused = False
        self.closing = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    abort = close


class SocketPair(_Local):
    """A pair of sockets, and an event loop in a thread of its own."""

    def start(self, boot_id: str = "the first boot") -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(boot_id)))
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE)

    def connect(self, uid: int | None = None) -> RawPeer:
        ours, theirs = socket.socketpair() if uid is None else pair_of(uid)
        ours.settimeout(PATIENCE)
        adopted = self._loop.connect_accepted_socket(lambda: Connection(self._server), theirs)
        asyncio.run_coroutine_threadsafe(adopted, self._loop).result(PATIENCE)
        return RawPeer(ours)

    async def _serve(self, boot_id: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._server, store = self._build(boot_id)
        self._ready.set()
        await self._stopping.wait()
        await self._server.stop()
        store.close()


class Installed:
    """The installed daemon."""

    def __init__(self, directory: Path, key: PrivateKey) -> None:
        directory.chmod(0o755)  # for other users
        self._daemon = Daemon(directory)
        self._daemon.install_key(envelope.private_pem(key))
        self._daemon.configure(_CONFIG)

    @property
    def pid(self) -> int:
        return self._daemon.pid

    def start(self, boot_id: str = "the first boot") -> None:
        self._daemon.start(PKI2FAD_BOOT_ID=boot_id)

    def stop(self) -> None:
        assert self._daemon.stop() == 0
        self._daemon.close()

    def connect(self, uid: int | None = None) -> RawPeer:
        return connect(self._daemon.socket) if uid is None else connect_as(uid, self._daemon.socket)[0]


@pytest.fixture(
    scope="session", params=[Memory, SocketPair, Installed], ids=["memory", "socketpair", "daemon"]
)
def transport(request: pytest.FixtureRequest) -> type[Any]:
    """Each way in turn."""
    return request.param


@pytest.fixture(scope="session")
def endpoint(transport: type[Any], host_key: PrivateKey) -> Iterator[Endpoint]:
    """One that all tests share: each has accounts of its own."""
    with short_directory() as directory:
        endpoint = transport(directory, host_key)
        endpoint.start()
        yield endpoint
        endpoint.stop()


@pytest.fixture
def own_endpoint(transport: type[Any], host_key: PrivateKey, short_path: Path) -> Iterator[Endpoint]:
    """One for a test alone."""
    endpoint = transport(short_path, host_key)
    endpoint.start()
    yield endpoint
    endpoint.stop()


@pytest.fixture
def peer(endpoint: Endpoint) -> Iterator[RawPeer]:
    """A connection of our own user."""
    with endpoint.connect() as peer:
        yield peer


@pytest.fixture(params=[_STRANGER, _OVERFLOW], ids=["stranger", "overflow"])
def stranger(endpoint: Endpoint, request: pytest.FixtureRequest) -> Iterator[RawPeer]:
    """A connection of somebody who has no role."""
    require_root()
    with endpoint.connect(request.param) as peer:
        yield peer


@pytest.fixture
def deployer(endpoint: Endpoint) -> Iterator[RawPeer]:
    """A connection of somebody who may have codes of the account `deploy`, and nothing else."""
    require_root()
    with endpoint.connect(_DEPLOYER) as peer:
        yield peer


@pytest.fixture
def seed(endpoint: Endpoint, host_key: PrivateKey, request: pytest.FixtureRequest) -> Seed:
    """A new seed, loaded as the account `default`, or with the parameters that the test gives."""
    seed = Seed(**getattr(request, "param", {}))
    with endpoint.connect() as peer:
        peer.call("load", sealed=seed.sealed(host_key), replace=True, **seed.parameters)
    return seed


@pytest.fixture
def any_seed(peer: RawPeer, host_key: PrivateKey) -> None:
    """There is an account `default`, whatever its seed: loading one takes a sync of the disk."""
    if all(row["account"] != "default" for row in peer.call("accounts")):
        peer.call("load", sealed=Seed().sealed(host_key))

"""One suite, three ways to the agent: in memory, over a pair of sockets, and an installed daemon."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from support.agents import OpenKeys, filled, no_throttle
from support.daemon import PATIENCE, Daemon, short_directory
from support.peers import require_root
from support.raw import RawPeer, Seed, connect, connect_as, pair_of

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Rule
from pki2fad.server.server import Server
from pki2fad.state.store import Store

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
        keyring = filled(store, self._master, reading, boot_id)
        agent = Agent(
            keyring,
            Access([_RULE], os.geteuid(), Users()),
            no_throttle(),
            store.watch(reading),
            keys=OpenKeys(keyring, lambda sealed: sealing.open_seed(self._key, sealed)),
            started=reading,
        )
        return Server(agent, store.keep, 1000, 1000), store


class Memory(_Local):
    """In the thread of the test: the server takes its turns when the test has sent something."""

    def start(self, boot_id: str = "the first boot") -> None:
        self._loop = asyncio.new_event_loop()
        self._server, self._store = self._loop.run_until_complete(self._make(boot_id))

    def stop(self) -> None:
        self._loop.run_until_complete(self._server.stop())
        self._loop.close()
        self._store.close()

    def connect(self, uid: int | None = None) -> RawPeer:
        ours, theirs = socket.socketpair() if uid is None else pair_of(uid)
        ours.settimeout(PATIENCE)
        theirs.setblocking(False)
        assert self._server.let_in(theirs) is not None
        return RawPeer(_TurnTaking(self._loop, ours))

    async def _make(self, boot_id: str) -> tuple[Server, Store]:
        return self._build(boot_id)


class _TurnTaking:
    """A peer's end of a connection, for whose bytes the server takes its turns at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: socket.socket) -> None:
        self._loop = loop
        self._stream = stream

    def sendall(self, data: bytes) -> None:
        self._stream.setblocking(False)
        while data:
            try:
                data = data[self._stream.send(data) :]
            except BlockingIOError:
                self._take_turns()
        self._take_turns()

    def recv(self, size: int) -> bytes:
        self._take_turns()
        return self._stream.recv(size)  # fails where nothing was answered

    def shutdown(self, how: int) -> None:
        self._stream.shutdown(how)
        self._take_turns()

    def close(self) -> None:
        self._stream.close()
        self._take_turns()

    def _take_turns(self) -> None:
        for _ in range(3):  # what comes is seen, handled and answered
            self._loop.run_until_complete(asyncio.sleep(0))


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
        theirs.setblocking(False)
        self._loop.call_soon_threadsafe(self._server.let_in, theirs)
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
        self._daemon.install_key(rsakeys.private_pem(key))
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

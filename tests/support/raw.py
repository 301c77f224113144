"""A peer of independent parts: bytes, msgpack's own calls, seals by cryptography, codes by oathtool."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import msgpack
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from pki2fad.rules.otp import Parameters
from support.agents import oathtool_code
from support.daemon import PATIENCE

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

# Connects (or makes a pair of sockets, without a path) as another user, and passes the descriptors on: what
# the kernel attests of a peer is who it was then.
_AS_USER = """
import os, socket, sys
uid, groups, count, channel = map(int, sys.argv[1:5])
path = sys.argv[5]
os.setgroups(range(20000, 20000 + groups))
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
with socket.socket(fileno=channel) as channel:
    for _ in range(count):
        if path:
            made = [socket.socket(socket.AF_UNIX)]
            made[0].connect(path)
        else:
            made = socket.socketpair()
        socket.send_fds(channel, [b"x"], [one.fileno() for one in made])
        for one in made:
            one.close()
"""


Seal = Callable[[bytes], bytes]  # seals a seed to the host's key


class Stream(Protocol):
    """What a peer needs of a socket."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


class RawPeer:
    """One end of a connection, the client's or the server's."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._unpacker = msgpack.Unpacker(strict_map_key=False)
        self._msgid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.close()

    def finish(self) -> None:
        """Say that no more will be sent, and go on receiving."""
        self.stream.shutdown(socket.SHUT_WR)

    def send_bytes(self, data: bytes) -> None:
        self.stream.sendall(data)

    def send(self, *messages: Any) -> None:
        """Send messages, in one go."""
        self.send_bytes(b"".join(map(msgpack.packb, messages)))

    def receive_bytes(self, size: int = 65536) -> bytes:
        """What has arrived, or is next to arrive; nothing when the other side has ended."""
        try:
            return self.stream.recv(size)
        except ConnectionResetError:  # it ended with bytes of ours unread
            return b""

    def receive(self) -> Any:
        """The next message. Raises EOFError when the other side has ended."""
        while True:
            for message in self._unpacker:
                return message
            data = self.receive_bytes()
            if not data:
                raise EOFError("the other side closed the connection")
            self._unpacker.feed(data)

    def messages(self) -> Iterator[Any]:
        """All messages until the other side ends."""
        while True:
            try:
                yield self.receive()
            except EOFError:
                return

    def call(self, method: str, /, **arguments: Any) -> Any:
        """The result of a call that is expected to succeed."""
        error, result = self.exchange([method, [arguments]])
        assert error is None, error
        return result

    def refusal(self, method: str, /, **arguments: Any) -> Any:
        """The error of a call that is expected to fail."""
        return self.refusal_of([method, [arguments]])

    def refusal_of(self, tail: list[Any]) -> Any:
        """The error for what follows the msgid in a request."""
        error, result = self.exchange(tail)
        assert error is not None
        assert result is None
        return error

    def exchange(self, tail: list[Any]) -> tuple[Any, Any]:
        """Send one request, without pipelining; returns error and result."""
        self._msgid += 1
        self.send([REQUEST, self._msgid, *tail])
        kind, msgid, error, result = self.receive()
        assert (kind, msgid) == (RESPONSE, self._msgid)
        return error, result


def assert_bad_request(peer: RawPeer, error: Any) -> None:
    """The error says what was wrong, and the connection goes on."""
    code, message = error
    assert code == "bad_request"
    assert message.startswith("bad_request: ")
    assert peer.call("status")["ready"] is True


def connect(path: object) -> RawPeer:
    """A connection to a socket's path."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))  # with a time-out it would not wait where the queue is full
    except OSError:
        connection.close()
        raise
    connection.settimeout(PATIENCE)
    return RawPeer(connection)


def connect_as(uid: int, path: object, count: int = 1) -> list[RawPeer]:
    """Connections that another user opened; needs root."""
    return [RawPeer(one) for made in _made_by(uid, 0, count, str(path)) for one in made]


def pair_of(uid: int, groups: int = 0) -> tuple[socket.socket, socket.socket]:
    """A pair of sockets that another user made, who is in so many groups from 20000 on; needs root."""
    ((one, other),) = _made_by(uid, groups, 1, "")
    return one, other


def fill_queue(crowd: contextlib.ExitStack, path: object) -> int:
    """Connect until no more wait to be accepted; returns how many do."""
    count = 0
    while True:
        waiting = crowd.enter_context(socket.socket(socket.AF_UNIX))
        waiting.setblocking(False)
        try:
            waiting.connect(str(path))
        except BlockingIOError:
            return count
        count += 1


def _made_by(uid: int, groups: int, count: int, path: str) -> list[list[socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        numbers = map(str, (uid, groups, count, theirs.fileno()))
        command = [sys.executable, "-c", _AS_USER, *numbers, path]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        made = []
        while len(made) < count:
            data, descriptors, _, _ = socket.recv_fds(ours, 1, 2)
            if not data:
                break
            made.append([socket.socket(fileno=descriptor) for descriptor in descriptors])
        assert process.wait(PATIENCE) == 0
    for connection in (one for pair in made for one in pair):
        connection.settimeout(PATIENCE)
    return made


Serve = Callable[[RawPeer, int], None]


class Listener:
    """A server of the test's own: `serve` has each connection, with its number, in a thread."""

    def __init__(self, path: object, serve: Serve) -> None:
        self.path = str(path)
        self.connections = 0
        self._serve = serve
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.path)
        self._listening.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was shut down
            while True:
                connection, _ = self._listening.accept()
                connection.settimeout(PATIENCE)
                self.connections += 1
                arguments = (RawPeer(connection), self.connections)
                self._threads.append(threading.Thread(target=self._run, args=arguments))
                self._threads[-1].start()

    def _run(self, peer: RawPeer, number: int) -> None:
        with peer, contextlib.suppress(EOFError, BrokenPipeError):  # the client left
            self._serve(peer, number)


class Seed:
    """A seed of the test's own, and its codes as oathtool makes them."""

    def __init__(self, algorithm: str = "SHA1", digits: int = 6, period: int = 30) -> None:
        self.hex = os.urandom(32).hex()
        self.algorithm = algorithm
        self.digits = digits
        self.period = period

    @property
    def parameters(self) -> dict[str, Any]:
        """As arguments of `load`."""
        return {"algorithm": self.algorithm, "digits": self.digits, "period": self.period}

    def sealed(self, key: rsa.RSAPrivateKey) -> bytes:
        """The seed, sealed to a host's key."""
        return seal(key, self.hex.encode())

    def code(self, step: int | None = None) -> str:
        """The code of a step, or of now."""
        moment = time.time() if step is None else step * self.period
        parameters = Parameters(self.algorithm, self.digits, self.period)
        return oathtool_code(bytes.fromhex(self.hex), moment, parameters)


def seal(key: rsa.RSAPrivateKey, plaintext: bytes) -> bytes:
    """RSA-OAEP with SHA-256 around any bytes at all."""
    sha256 = hashes.SHA256()
    return key.public_key().encrypt(plaintext, padding.OAEP(padding.MGF1(sha256), sha256, None))

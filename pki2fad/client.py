"""The public client, for other processes: blocking calls to the daemon over its Unix socket.

    from pki2fad.client import Client

    with Client() as client:
        if client.verify("123456", account="deploy"):
            ...

This module is on the client's path: importing it costs little more than msgpack and socket.
"""

import os
import socket
import time
from _thread import allocate_lock  # threading itself would cost as much again as this module

from pki2fad import paths, wire
from pki2fad.errors import (
    REFUSALS,
    BadRequest,
    ConnectionLost,
    Internal,
    NotReachable,
    ProtocolError,
    TimedOut,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self, TypeVar

    T = TypeVar("T")

DEFAULT_TIMEOUT = 5.0  # seconds for one call; the daemon answers in far less than a millisecond

_READ_SIZE = 64 * 1024

_ACCOUNT_FIELDS = ("account", "algorithm", "digits", "period", "last_used")


class Code:
    """A code, and for how long it is good. Its repr does not show it."""

    __slots__ = ("code", "step", "valid_for")

    def __init__(self, code: str, valid_for: int, step: int) -> None:
        self.code = code  # 6 to 8 digits
        self.valid_for = valid_for  # whole seconds, at least 1
        self.step = step  # T of RFC 6238

    def __repr__(self) -> str:
        return f"Code(valid_for={self.valid_for}, step={self.step})"


class Account:
    """What the daemon says of an account."""

    __slots__ = ("account", "algorithm", "digits", "last_used", "period")

    def __init__(self, account: str, algorithm: str, digits: int, period: int, last_used: int | None) -> None:
        self.account = account
        self.algorithm = algorithm  # SHA1, SHA256 or SHA512
        self.digits = digits
        self.period = period  # seconds
        self.last_used = last_used  # Unix time at which the last accepted step began, None if none was

    def __repr__(self) -> str:
        return f"Account({self.account!r})"


class Client:
    """A connection to the daemon, opened by the first call and kept.

    `path` is the socket; without it `$PKI2FAD_SOCKET`, the user's own places and the system's are
    tried in order. `timeout` bounds each call as a whole, in seconds.

    Every method raises a `Refusal` where the daemon says no (one class for each code of the protocol,
    see `pki2fad.errors`), `NotReachable` where there is no daemon, and `ConnectionLost` (`TimedOut`)
    where a request may have been carried out but its answer did not come. A request that may have
    left is never repeated; a connection that the daemon closed meanwhile, by a restart say, is opened
    again first.

    Threads may share a client: their calls take turns. A forked child opens a connection of its own.
    """

    def __init__(self, path: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._path = path
        self._timeout = timeout
        self._lock = allocate_lock()
        self._socket: socket.socket | None = None
        self._pid = os.getpid()  # of the process whose connection and lock these are
        self._msgid = 0

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; another call would open a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def generate(self, account: str = "default") -> Code:
        """The current code of an account."""
        return self._call(
            "generate",
            {"account": account},
            lambda result: Code(result["code"], result["valid_for"], result["step"]),
        )

    def verify(self, code: str, account: str = "default") -> bool:
        """Whether a code is good; it is spent then, and not good again (RFC 6238 section 5.2)."""
        return self._call(
            "verify", {"account": account, "code": code}, lambda result: result["valid"] is True
        )

    def load(
        self,
        sealed: bytes,
        account: str = "default",
        *,
        algorithm: str = "SHA1",
        digits: int = 6,
        period: int = 30,
        replace: bool = False,
    ) -> bool:
        """Load a sealed seed (as bytes, not base64); False if the account was just so already."""
        arguments = {
            "account": account,
            "sealed": sealed,
            "algorithm": algorithm,
            "digits": digits,
            "period": period,
            "replace": replace,
        }
        return self._call("load", arguments, lambda result: result["changed"] is True)

    def remove(self, account: str = "default") -> None:
        """Remove an account. Its codes stay spent, should the same seed come back."""
        self._call("remove", {"account": account}, lambda _: None)

    def accounts(self) -> list[Account]:
        """All accounts that the caller administers, by name."""
        return self._call(
            "accounts",
            {},
            lambda rows: [Account(*(row[name] for name in _ACCOUNT_FIELDS)) for row in rows],
        )

    def status(self) -> "dict[str, Any]":
        """What anybody may know of the daemon; PROTOCOL.md says what is in it."""
        return self._call("status", {}, lambda result: {**result})

    def _call(self, method: str, arguments: "dict[str, Any]", convert: "Callable[[Any], T]") -> "T":
        """Carry out one call; `convert` takes the result apart."""
        deadline = time.monotonic() + self._timeout
        if self._pid != os.getpid():  # in a forked child the lock may be held by a thread that is not there
            self._pid, self._lock = os.getpid(), allocate_lock()
            self.close()
        if not self._lock.acquire(timeout=self._timeout):
            raise TimedOut(f"no answer within {self._timeout} seconds: other threads' calls go before")
        try:
            try:
                response = self._exchange(method, arguments, deadline)
            except BaseException:
                self.close()  # what comes next on this connection cannot be told
                raise
        finally:
            self._lock.release()
        if response.error is not None:
            raise _refusal(response.error)
        try:
            return convert(response.result)
        except (KeyError, TypeError):
            raise ProtocolError("the daemon's answer is not of the form that PROTOCOL.md gives") from None

    def _exchange(self, method: str, arguments: "dict[str, Any]", deadline: float) -> wire.Response:
        self._msgid = (self._msgid + 1) % 2**32
        try:
            request = wire.encode_request(self._msgid, method, arguments)
        except (OverflowError, TypeError, ValueError) as error:
            raise BadRequest(f"an argument cannot be sent: {error}") from None
        self._send(request, deadline)
        decoder = wire.Decoder(wire.RESPONSE, wire.RESPONSE_LIMIT)
        while True:
            response = decoder.next()
            if isinstance(response, wire.Response):
                if response.msgid != self._msgid:
                    raise ProtocolError("the daemon answered another request")
                return response
            if response is not None:
                continue
            data = self._receive(deadline)
            if not data:
                raise ConnectionLost("the daemon closed the connection before it answered")
            decoder.feed(data)

    def _send(self, request: bytes, deadline: float) -> None:
        """Send all of it, over a new connection if the one that is open has died before."""
        if self._socket is None or _is_dead(self._socket):
            self.close()
            self._socket = self._connect(deadline)
        sent = 0
        while sent < len(request):
            self._wait(deadline)
            try:
                sent += self._socket.send(request[sent:])
            except TimeoutError:
                raise TimedOut(f"the daemon took no request within {self._timeout} seconds") from None
            except OSError as error:
                raise ConnectionLost(f"the connection broke: {error.strerror}") from None

    def _receive(self, deadline: float) -> bytes:
        assert self._socket is not None
        self._wait(deadline)
        try:
            return self._socket.recv(_READ_SIZE)
        except TimeoutError:
            raise TimedOut(f"no answer within {self._timeout} seconds") from None
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror}") from None

    def _wait(self, deadline: float) -> None:
        """Let the next operation of the socket end at the deadline."""
        assert self._socket is not None
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimedOut(f"no answer within {self._timeout} seconds")
        self._socket.settimeout(remaining)

    def _connect(self, deadline: float) -> socket.socket:
        tried = []
        for path in [self._path] if self._path else paths.client_sockets():
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                connection.connect(path)
            except OSError as error:
                connection.close()
                tried.append(f"{path} ({error.strerror or error})")
            else:
                return connection
        raise NotReachable(f"no daemon answers; tried {', '.join(tried)}")


def _is_dead(connection: socket.socket) -> bool:
    """True if the other side has closed it, or sent something that nobody asked for."""
    connection.settimeout(0)  # with a time-out Python itself would wait
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _refusal(error: "Any") -> Exception:
    """The exception for an error as it came over the wire."""
    if type(error) is not list or len(error) < 2 or type(error[0]) is not str or type(error[1]) is not str:
        return ProtocolError("the daemon's error is not of the form that PROTOCOL.md gives")
    code, message = error[0], error[1]
    retry_after = error[2] if len(error) > 2 and type(error[2]) is int else None
    return REFUSALS.get(code, Internal)(message.removeprefix(f"{code}: "), retry_after)

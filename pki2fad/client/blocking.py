"""The client that blocks: one call at a time. Import it from `pki2fad.client`."""

import os
import socket
import time
from _thread import allocate_lock  # threading itself would cost as much again as this module

from pki2fad.client import answers, connect, requests
from pki2fad.client.calls import DEFAULT_TIMEOUT, Methods
from pki2fad.errors import ConnectionLost, ProtocolError, TimedOut
from pki2fad.wire import messages
from pki2fad.wire.decoder import Decoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from types import TracebackType
    from typing import Self, TypeVar

    from pki2fad.client.requests import Call, Request

    T = TypeVar("T")


class Client(Methods):
    """A connection to the daemon, opened by the first call and kept.

    `path` is the socket. Without it the client tries `$PKI2FAD_SOCKET`, the user's own places and the
    system's, in this order. `timeout`, in seconds, bounds each call as a whole. `servers` are the uids that
    may serve the socket, for programs that decide by the answers; without it any may.

    Every method raises a `Refusal` if the daemon refuses (one class for each code of the protocol, see
    `pki2fad.errors`), `NotReachable` if there is no daemon, and `ConnectionLost` (`TimedOut`) if no answer
    came to a request that may have been carried out. Such a request is never repeated. A connection that
    the daemon closed between two calls, for example by a restart, is opened again first.

    Threads may share a client: their calls take turns. A forked child opens a connection of its own.
    """

    def __init__(
        self,
        path: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        servers: "Container[int] | None" = None,
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._servers = servers
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

    def _perform(self, call: "Call[T]") -> "T":
        try:
            request = next(call)
            while True:
                request = call.send(answers.of(self._ask(request)))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # it is a T

    def _ask(self, request: "Request") -> messages.Response:
        deadline = time.monotonic() + self._timeout
        if self._pid != os.getpid():  # in a forked child the lock may be held by a thread that is not there
            self._pid, self._lock = os.getpid(), allocate_lock()
            self.close()
        if not self._lock.acquire(timeout=self._timeout):
            raise TimedOut(f"no answer within {self._timeout} seconds: other threads' calls go before")
        try:
            try:
                return self._exchange(request, deadline)
            except BaseException:
                self.close()  # what comes next on this connection cannot be told
                raise
        finally:
            self._lock.release()

    def _exchange(self, request: "Request", deadline: float) -> messages.Response:
        self._msgid = (self._msgid + 1) % 2**32
        self._send(requests.encode(self._msgid, request), deadline)
        decoder = Decoder(messages.RESPONSE, messages.RESPONSE_LIMIT)
        while True:
            response = decoder.next()
            if isinstance(response, messages.Response):
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
        if self._socket is None or connect.is_dead(self._socket):
            self.close()
            self._socket = connect.to_daemon(self._path, self._servers, deadline - time.monotonic())
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
            return self._socket.recv(connect.READ_SIZE)
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

"""The client on asyncio: many calls at once over one connection. Import it from `pki2fad.client`."""

import asyncio
import copy
import functools
import socket
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

from pki2fad.client import answers, calls, connect
from pki2fad.client.calls import DEFAULT_TIMEOUT, Methods
from pki2fad.errors import Busy, ConnectionLost, Pki2fadError, ProtocolError, TimedOut
from pki2fad.wire import messages
from pki2fad.wire.decoder import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Coroutine
    from types import TracebackType

    from pki2fad.client.calls import Call, Request

P = ParamSpec("P")
T = TypeVar("T")

_BUSY_PAUSE = 0.01  # seconds between two attempts to be let in


class _Description(Methods):
    """Returns the calls themselves, for a client that makes them in its own way."""

    def _perform(self, call: "Call[Any]") -> Any:
        return call


_DESCRIPTION = _Description()


def _awaited(
    method: "Callable[Concatenate[Methods, P], T]",
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    """The coroutine function for a method of the blocking client, with its signature and docstring."""

    @functools.wraps(method)
    async def ask(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._perform(cast("Call[T]", method(_DESCRIPTION, *args, **kwargs)))

    return ask


class AsyncClient:
    """A connection to the daemon, opened by the first call and kept; `Client` describes the calls.

    Calls may run at the same time: each is sent at once, and gets its own answer. A call that is
    cancelled or times out ends alone. Its answer is dropped when it comes, and the request may still be
    carried out. When the connection breaks, all calls that wait for an answer raise `ConnectionLost`, and
    the next call opens a new connection. A call does that too after one that timed out while nothing at
    all arrived.

    A client belongs to the event loop in which it is first used; in another one it raises
    `RuntimeError`, before anything is sent.
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: _Connection | None = None
        self._retired: list[_Connection] = []  # on which calls may wait still
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: "TracebackType | None"
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, under calls that wait too; another call would open a new one."""
        self._require_own_loop()
        async with self._opening:  # one that is being opened has to be there to be closed
            connections = [*self._retired, self._connection]
            self._retired, self._connection = [], None
            for connection in connections:
                if connection is not None:
                    await connection.close()

    generate = _awaited(Methods.generate)
    verify = _awaited(Methods.verify)
    verify_explained = _awaited(Methods.verify_explained)
    load = _awaited(Methods.load)
    load_named = _awaited(Methods.load_named)
    load_batch = _awaited(Methods.load_batch)
    remove = _awaited(Methods.remove)
    accounts = _awaited(Methods.accounts)
    resync = _awaited(Methods.resync)
    throttled = _awaited(Methods.throttled)
    unthrottle = _awaited(Methods.unthrottle)
    enroll = _awaited(Methods.enroll)
    enroll_confirm = _awaited(Methods.enroll_confirm)
    lock = _awaited(Methods.lock)
    unlock = _awaited(Methods.unlock)
    rotate = _awaited(Methods.rotate)
    rotate_finish = _awaited(Methods.rotate_finish)
    recipients = _awaited(Methods.recipients)
    backup = _awaited(Methods.backup)
    restore = _awaited(Methods.restore)
    clock_accept = _awaited(Methods.clock_accept)
    status = _awaited(Methods.status)
    metrics = _awaited(Methods.metrics)

    async def _perform(self, call: "Call[T]") -> T:
        requests, convert = call
        result: Any = None
        for request in requests:
            result = answers.of(await self._ask(request))
        return answers.converted(result, convert)

    async def _ask(self, request: "Request") -> messages.Response:
        self._require_own_loop()
        connection, arrivals = None, 0
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connected()
                arrivals = connection.arrivals
                return await connection.ask(request)
        except TimeoutError:
            if connection is not None and connection.arrivals == arrivals:
                self._retire(connection)
            raise TimedOut(f"no answer within {self._timeout} seconds") from None

    def _require_own_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop; each needs one of its own")

    def _retire(self, connection: "_Connection") -> None:
        """Make no more calls on it: the daemon hangs, or another one has its place by now."""
        if self._connection is connection:
            self._connection = None
            self._retired = [kept for kept in self._retired if kept.is_in_use()]
            self._retired.append(connection)
        connection.retire()

    async def _connect(self) -> socket.socket:
        """A new connection; `_ask` bounds for how long a busy daemon is tried."""
        while True:
            try:
                return connect.to_daemon(self._path, self._servers)
            except Busy:
                await asyncio.sleep(_BUSY_PAUSE)

    async def _connected(self) -> "_Connection":
        """The connection; a new one if the one that was open has died before."""
        async with self._opening:
            if self._connection is not None and self._connection.is_dead():
                await self._connection.close()
                self._connection = None
            if self._connection is None:
                connection = await self._connect()
                try:
                    self._connection = await _open(connection)
                except BaseException:
                    connection.close()
                    raise
            return self._connection


async def _open(connection: socket.socket) -> "_Connection":
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_unix_connection(lambda: _Connection(connection), sock=connection)
    return protocol


class _Connection(asyncio.Protocol):
    """One connection, and the calls that wait for an answer on it."""

    def __init__(self, connection: socket.socket) -> None:
        self.arrivals = 0  # how often something came
        self._socket = connection
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder(messages.RESPONSE, messages.RESPONSE_LIMIT)
        self._waiting: dict[int, asyncio.Future[messages.Response]] = {}  # by msgid; also those given up
        self._msgid = 0
        self._callers = 0  # calls that wait to be sent, or for an answer
        self._is_retired = False
        self._error: Pki2fadError | None = None  # why no more answers come
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()

    async def ask(self, request: "Request") -> messages.Response:
        """Send a call and wait for its answer."""
        self._callers += 1
        try:
            while not self._writable.is_set():  # the daemon does not read: memory must not grow
                await self._writable.wait()
            return await self._send(request)
        finally:
            self._callers -= 1
            self._end_if_done()

    def _send(self, request: "Request") -> "asyncio.Future[messages.Response]":
        """Send a call; the future of its answer."""
        if self._error is not None:
            raise copy.copy(self._error)
        assert self._transport is not None
        msgid = self._new_msgid()
        data = calls.encode(msgid, request)
        answer = self._waiting[msgid] = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return answer

    def retire(self) -> None:
        """End it as soon as nobody waits on it."""
        self._is_retired = True
        self._end_if_done()

    def is_in_use(self) -> bool:
        """True until it has ended."""
        return self._error is None

    def is_dead(self) -> bool:
        """True if it cannot be used, or closed while nobody was waiting."""
        return self._error is not None or (not self._waiting and connect.is_dead(self._socket))

    async def close(self) -> None:
        """End it, and all calls that wait."""
        assert self._transport is not None
        self._end(ConnectionLost("the client was closed before an answer came"))
        await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.arrivals += 1
        try:
            self._decoder.feed(data)
            while (message := self._decoder.next()) is not None:
                if isinstance(message, messages.Response):
                    self._take(message)
        except ProtocolError as error:
            self._end(error)

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, OSError):
            self._end(ConnectionLost(f"the connection broke: {error.strerror}"))
        else:
            self._end(ConnectionLost("the daemon closed the connection before it answered"))
        self._closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _take(self, response: messages.Response) -> None:
        answer = self._waiting.pop(response.msgid, None)
        if answer is None:
            raise ProtocolError("the daemon answered another request")
        if not answer.done():  # else the caller has given up
            answer.set_result(response)

    def _end(self, error: Pki2fadError) -> None:
        """Let nobody wait any more; the first reason is the one that counts."""
        assert self._transport is not None
        if self._error is not None:
            return
        self._error = error
        self._transport.abort()
        self._writable.set()
        for answer in self._waiting.values():
            if not answer.done():
                # To each its own: what a caller adds to it, or keeps with it, is no other's.
                answer.set_exception(copy.copy(error))
        self._waiting.clear()

    def _end_if_done(self) -> None:
        if self._is_retired and self._callers == 0:
            self._end(ConnectionLost("the daemon did not answer in time before"))

    def _new_msgid(self) -> int:
        while True:
            self._msgid = (self._msgid + 1) % 2**32
            if self._msgid not in self._waiting:
                return self._msgid

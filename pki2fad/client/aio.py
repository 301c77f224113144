"""The client on asyncio: many calls at once over one connection. Import it from `pki2fad.client`."""

import asyncio
import functools
import socket
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

from pki2fad.client import answers, connect
from pki2fad.client.asyncconnection import Connection
from pki2fad.client.calls import DEFAULT_TIMEOUT, Methods
from pki2fad.errors import Busy, TimedOut
from pki2fad.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Coroutine
    from types import TracebackType

    from pki2fad.client.requests import Call, Request

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
        self._connection: Connection | None = None
        self._retired: list[Connection] = []  # on which calls may wait still
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
    load_result = _awaited(Methods.load_result)
    load_batch = _awaited(Methods.load_batch)
    remove = _awaited(Methods.remove)
    accounts = _awaited(Methods.accounts)
    resync = _awaited(Methods.resync)
    resync_result = _awaited(Methods.resync_result)
    throttled = _awaited(Methods.throttled)
    unthrottle = _awaited(Methods.unthrottle)
    enroll = _awaited(Methods.enroll)
    enroll_confirm = _awaited(Methods.enroll_confirm)
    exists = _awaited(Methods.exists)
    recovery_create = _awaited(Methods.recovery_create)
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
        try:
            request = next(call)
            while True:
                request = call.send(answers.of(await self._ask(request)))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # it is a T

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

    def _retire(self, connection: "Connection") -> None:
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

    async def _connected(self) -> "Connection":
        """The connection; a new one if the one that was open has died before."""
        async with self._opening:
            if self._connection is not None and self._connection.is_dead():
                await self._connection.close()
                self._connection = None
            if self._connection is None:
                connection = await self._connect()
                try:
                    self._connection = await Connection.opened(connection)
                except BaseException:
                    connection.close()
                    raise
            return self._connection

"""The client on asyncio: many calls at once over one connection. Import it from `pki2fad.client`."""

import asyncio
import copy
import socket
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pki2fad.client import calls
from pki2fad.client.calls import DEFAULT_TIMEOUT, Account, Code, Enrolment
from pki2fad.errors import Busy, ConnectionLost, Pki2fadError, ProtocolError, TimedOut
from pki2fad.wire import messages

if TYPE_CHECKING:
    from collections.abc import Container
    from types import TracebackType

    from pki2fad.client.calls import Call

T = TypeVar("T")

_BUSY_PAUSE = 0.01  # seconds between two attempts to be let in


class AsyncClient:
    """A connection to the daemon, opened by the first call and kept; `Client` says what the calls do.

    Calls may run at the same time: each is sent at once, and takes its own answer. One that is
    cancelled or takes too long ends alone; its answer is dropped when it comes, and the request may
    still be carried out. When the connection breaks, all that wait for an answer raise
    `ConnectionLost`, and the next call opens another; so it does when a call took too long and nothing
    at all arrived meanwhile.

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

    async def generate(self, account: str = "default") -> Code:
        """The current code of an account."""
        return await self._call(calls.generate(account))

    async def verify(self, code: str, account: str = "default", *, origin: str | None = None) -> bool:
        """Whether a code is good; it is spent then, and not good again (RFC 6238 section 5.2).

        `origin` is for whom a peer with the role `relay` asks, the address of a login say: failures are
        counted for each of them.
        """
        return await self._call(calls.verify(code, account, origin))

    async def load(
        self,
        sealed: bytes,
        account: str | None = None,
        *,
        algorithm: str | None = None,
        digits: int | None = None,
        period: int | None = None,
        replace: bool = False,
        successor: bool = False,
        deadline: int | None = None,
        cutover: bool = False,
    ) -> bool:
        """Load a sealed seed (as bytes, not base64); False if the account was just so already."""
        _, changed = await self.load_named(
            sealed,
            account,
            algorithm=algorithm,
            digits=digits,
            period=period,
            replace=replace,
            successor=successor,
            deadline=deadline,
            cutover=cutover,
        )
        return changed

    async def load_named(self, sealed: bytes, account: str | None = None, **how: "Any") -> tuple[str, bool]:
        """Do what `load` does with these arguments; returns the account too, which `sealed` may name."""
        return await self._call(calls.load(sealed, account, **how))

    async def load_batch(self, batch: bytes, *, replace: bool = False) -> dict[str, Any]:
        """Load the seeds of a batch, all or none; PROTOCOL.md says what that answers.

        `replace`: also accounts that have another seed or other parameters.
        """
        return await self._call(calls.load_batch(batch, replace=replace))

    async def remove(self, account: str = "default") -> None:
        """Remove an account. Its codes stay spent, should the same seed come back."""
        await self._call(calls.remove(account))

    async def accounts(self) -> list[Account]:
        """All accounts that the caller administers, by name."""
        return await self._call(calls.accounts())

    async def resync(self, first: str, second: str, account: str = "default") -> int:
        """Follow a prover whose clock is off, by two codes that it shows one after the other."""
        return await self._call(calls.resync(first, second, account))

    async def verify_explained(
        self, code: str, account: str = "default", *, origin: str | None = None
    ) -> dict[str, Any]:
        """What `verify` does, with a `reason` if the code is of a step gone by: `used`, `old`, or None.

        For the role `admin` for all accounts.
        """
        return await self._call(calls.verify_explained(code, account, origin))

    async def throttled(
        self, account: str | None = None, *, uid: int | None = None, origin: str | None = None
    ) -> dict[str, Any]:
        """Callers that have to wait after wrong codes; PROTOCOL.md says what is in it.

        Without `account` for all of them; `uid`, and perhaps `origin`, ask about one caller for `account`.
        """
        return await self._call(calls.throttled(account, uid, origin))

    async def unthrottle(self, account: str = "default", *, force: bool = False) -> int:
        """Let all callers of an account try again at once, after wrong codes.

        Returns how often that is possible without `force` in the next days: three times in 30 days.
        """
        return await self._call(calls.unthrottle(account, force=force))

    async def enroll(self) -> Enrolment:
        """A new seed for the account of the caller's own user name, shown this once.

        The account is there when `enroll_confirm` has taken a first code of it.
        """
        return await self._call(calls.enroll())

    async def enroll_confirm(self, code: str) -> bool:
        """Whether a code is of the seed that `enroll` gave: a right one is spent, and makes the account."""
        return await self._call(calls.enroll_confirm(code))

    async def lock(self) -> None:
        """Let neither keys nor codes stay in the daemon's memory, until `unlock`."""
        await self._call(calls.lock())

    async def unlock(self, passphrase: str | None = None) -> None:
        """Take the keys into memory again; raises `Locked` where a passphrase is needed."""
        await self._call(calls.unlock(passphrase))

    async def rotate(self, private: bytes) -> str:
        """Take up another host key (an unprotected PEM) beside the one in use; returns its fingerprint."""
        return await self._call(calls.rotate(private))

    async def rotate_finish(self, fingerprint: str) -> list[str]:
        """Let this host key, which is in use, alone open the state; returns whose slots were dropped."""
        return await self._call(calls.rotate_finish(fingerprint))

    async def recipients(self) -> list[dict[str, Any]]:
        """The host keys that can open the state: `fingerprint` and whether it is `current`."""
        return await self._call(calls.recipients())

    async def backup(self, to: bytes) -> bytes:
        """All accounts as they are now, sealed to the RSA keys in `to`: PEM, one after the other."""
        return await self._call(calls.backup(to))

    async def restore(self, data: bytes, *, replace: bool = False) -> dict[str, Any]:
        """Bring the accounts of a backup back; PROTOCOL.md says what that does and answers.

        It is sent in parts, and `timeout` bounds each of them.
        """
        restored: dict[str, Any] = {}
        for call in calls.restore(data, replace=replace):
            restored = await self._call(call)
        return restored

    async def clock_accept(self) -> dict[str, Any]:
        """Say that the daemon's clock is right now; PROTOCOL.md says what is in the answer."""
        return await self._call(calls.clock_accept())

    async def status(self) -> dict[str, Any]:
        """What anybody may know of the daemon; PROTOCOL.md says what is in it."""
        return await self._call(calls.status())

    async def metrics(self) -> dict[str, Any]:
        """The status and the counts since the daemon's start; PROTOCOL.md says what is in it."""
        return await self._call(calls.metrics())

    async def _call(self, call: "Call[T]") -> T:
        self._require_own_loop()
        connection, arrivals = None, 0
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connected()
                arrivals = connection.arrivals
                response = await connection.ask(call)
        except TimeoutError:
            if connection is not None and connection.arrivals == arrivals:
                self._retire(connection)
            raise TimedOut(f"no answer within {self._timeout} seconds") from None
        return calls.result(call, response)

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
        """A new connection; `_call` bounds for how long a busy daemon is tried."""
        while True:
            try:
                return calls.connect(self._path, self._servers)
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
        self._decoder = messages.Decoder(messages.RESPONSE, messages.RESPONSE_LIMIT)
        self._waiting: dict[int, asyncio.Future[messages.Response]] = {}  # by msgid; also those given up
        self._msgid = 0
        self._callers = 0  # who wait for an answer, or to be sent
        self._is_retired = False
        self._error: Pki2fadError | None = None  # why no more answers come
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()

    async def ask(self, call: "Call[T]") -> messages.Response:
        """Send a call and wait for its answer."""
        self._callers += 1
        try:
            while not self._writable.is_set():  # the daemon does not read: memory must not grow
                await self._writable.wait()
            return await self._send(call)
        finally:
            self._callers -= 1
            self._end_if_done()

    def _send(self, call: "Call[T]") -> "asyncio.Future[messages.Response]":
        """Send a call; the future of its answer."""
        if self._error is not None:
            raise copy.copy(self._error)
        assert self._transport is not None
        msgid = self._new_msgid()
        request = calls.encode(msgid, call)
        answer = self._waiting[msgid] = asyncio.get_running_loop().create_future()
        self._transport.write(request)
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
        return self._error is not None or (not self._waiting and calls.is_dead(self._socket))

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

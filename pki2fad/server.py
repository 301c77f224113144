"""All connections together: caps, decisions, and when an answer may leave.

What is read in one turn of the loop is handled at once. Answers that depend on a change wait until the
change is kept; those of one turn are kept together.
"""

import asyncio
import contextlib
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from pki2fad import clock, log, wire
from pki2fad.access import Peer
from pki2fad.agent import INVALID, Agent, Answer, Edit, Spend
from pki2fad.connection import BACKLOG, Connection
from pki2fad.errors import Internal, Unavailable, UnusableState

# Connections beyond the caps that root may still make, to look at what is going on.
ROOT_RESERVE = 16

# Seconds that a stop leaves to clients to take their last answers; all of a stop takes at most 2.
STOP_DEADLINE = 1.5

# Seconds between two log lines that say that connections are refused.
_REFUSED_LOG_PERIOD = 10.0

Keep = Callable[[Sequence[Spend | Edit]], list[bool]]


class Server:
    """All connections, and the changes whose answers wait.

    `keep` is the store's: it keeps changes and gives one verdict for each, or raises `UnusableState`.
    """

    def __init__(self, agent: Agent, keep: Keep, max_connections: int, max_connections_per_uid: int) -> None:
        self.max_connections = max_connections
        self.max_connections_per_uid = max_connections_per_uid
        self._agent = agent
        self._keep = keep
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._by_uid: Counter[int] = Counter()
        self._pending: list[_Pending] = []
        self._closed = asyncio.Event()  # some connection ended
        self._refused_logged = -_REFUSED_LOG_PERIOD

    async def start(self, listening: socket.socket) -> None:
        """Accept connections on a socket that listens already."""
        # From 3.13 on asyncio would remove the path of a socket that is not its own to remove.
        options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: Connection(self), sock=listening, backlog=BACKLOG, **options
        )

    async def stop(self) -> None:
        """Accept no more, answer what was read, and end all connections before the deadline."""
        if self._server is not None:
            self._server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_DEADLINE
        waiting = deque(self._connections)
        while waiting and loop.time() < deadline:  # in turns: one that has sent much keeps no other out
            connection = waiting.popleft()
            if connection.go_on():
                waiting.append(connection)
        for connection in list(self._connections):
            connection.end()
        self.commit()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._connections:
                    self._closed.clear()
                    await self._closed.wait()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # for the transports to close their sockets

    def admit(self, connection: Connection) -> bool:
        """Count a new connection, if the caps allow it."""
        uid = connection.peer.uid
        reserve = ROOT_RESERVE if uid == 0 else 0
        if (
            len(self._connections) >= self.max_connections + reserve
            or self._by_uid[uid] >= self.max_connections_per_uid + reserve
        ):
            self._log_refused(connection.peer)
            return False
        self._connections.add(connection)
        self._by_uid[uid] += 1
        return True

    def forget(self, connection: Connection) -> None:
        """A connection ended."""
        self._closed.set()
        if connection in self._connections:
            self._connections.remove(connection)
            self._by_uid[connection.peer.uid] -= 1
            if not self._by_uid[connection.peer.uid]:
                del self._by_uid[connection.peer.uid]

    def handle(self, connection: Connection, request: wire.Request, reading: clock.Reading) -> None:
        """Answer a request: at once, or when its change is kept."""
        peer = connection.peer
        try:
            answer = self._agent.handle(request, peer, reading)
            if isinstance(answer.change, Edit):
                self.commit()
                self.edit(answer.change)
        except Exception as error:  # a mistake of ours must not end the connection
            answer = _failed(error)
        if isinstance(answer.change, Spend):
            if not self._pending:
                asyncio.get_running_loop().call_soon(self.commit)
            self._pending.append(_Pending(connection, connection.hold(), request, answer.change, answer))
            return
        _log_decision(request, peer, answer)
        connection.add(_encode(request, answer))

    def edit(self, edit: Edit) -> None:
        """Keep an edit and then make it. Raises `UnusableState`, and then nothing has changed."""
        self._keep([edit])
        self._agent.apply(edit)

    def commit(self) -> None:
        """Keep the changes of this turn, and let the answers go that waited for it."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            verdicts = self._keep([waiting.spend for waiting in pending])
            answers = [
                waiting.answer if kept else Answer(INVALID)
                for waiting, kept in zip(pending, verdicts, strict=True)
            ]
        except Exception as error:  # whatever it was, nothing may leave as if it had been kept
            answers = [_failed(error)] * len(pending)
        for waiting, answer in zip(pending, answers, strict=True):
            _log_decision(waiting.request, waiting.connection.peer, answer)
            waiting.connection.settle(waiting.slot, _encode(waiting.request, answer))
        for connection in {waiting.connection for waiting in pending}:
            connection.release()

    def _log_refused(self, peer: Peer) -> None:
        now = time.monotonic()
        if now - self._refused_logged >= _REFUSED_LOG_PERIOD:
            self._refused_logged = now
            log.warning("connection_refused", uid=peer.uid, pid=peer.pid, reason="too many connections")


class _Pending:
    """An answer that waits for its Spend to be kept."""

    __slots__ = ("answer", "connection", "request", "slot", "spend")

    def __init__(
        self, connection: Connection, slot: int, request: wire.Request, spend: Spend, answer: Answer
    ) -> None:
        self.connection = connection
        self.slot = slot
        self.request = request
        self.spend = spend
        self.answer = answer


def _encode(request: wire.Request, answer: Answer) -> bytes:
    refusal = answer.refusal
    if refusal is None:
        return wire.encode_response(request.msgid, None, answer.result)
    error: list[Any] = [refusal.code, f"{refusal.code}: {refusal}"]
    if refusal.retry_after is not None:
        error.append(refusal.retry_after)
    return wire.encode_response(request.msgid, error, None)


def _log_decision(request: wire.Request, peer: Peer, answer: Answer) -> None:
    fields: dict[str, object] = {"uid": peer.uid, "pid": peer.pid}
    if request.args and "account" in request.args:
        fields["account"] = str(request.args["account"])[:64]
    refusal = answer.refusal
    if refusal is not None:
        method = request.method[:64]
        log.warning("refused", method=method, **fields, code=refusal.code, reason=refusal)
    elif request.method == "verify":
        log.info("verify", **fields, valid=answer.result["valid"])
    else:
        log.info(request.method, **fields)


def _failed(error: Exception) -> Answer:
    """The answer where something could not be carried out."""
    if isinstance(error, UnusableState):
        log.error("state_failed", reason=error)
        return Answer(refusal=Unavailable("the state cannot be written; the daemon's log says why"))
    log.failure("failed", error)
    return Answer(refusal=Internal("the daemon failed; its log says how"))

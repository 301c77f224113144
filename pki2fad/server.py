"""The transport: sockets, peer credentials, deadlines, back-pressure, and when an answer may leave.

Each connection is a `Connection`, and all of them share one `Server`. What is read in one turn of the
loop is handled at once; answers to it leave together, and those that depend on a change leave when
the change is kept.
"""

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from pki2fad import clock, log, wire
from pki2fad.access import Peer
from pki2fad.agent import INVALID, Agent, Answer, Edit, Spend
from pki2fad.errors import Internal, ProtocolError, Refusal, Unavailable, UnusableState

# Requests of one connection that are handled before the others have their turn: about 2 ms of work.
REQUESTS_PER_TURN = 64

# Seconds from the first byte of a message to its last: a load from a slow shell takes less.
MESSAGE_DEADLINE = 10.0

# Bytes that may wait for a slow reader; then no more of its requests are read.
WRITE_LIMIT = 64 * 1024

# Seconds for which a reader may be that slow before its connection is ended.
WRITE_DEADLINE = 10.0

# Connections beyond the caps that root may still make, to look at what is going on.
ROOT_RESERVE = 16

# Connections that wait to be accepted: the kernel's usual bound (net.core.somaxconn).
BACKLOG = 4096

# Seconds that a stop leaves to clients to take their last answers; all of a stop takes at most 2.
STOP_DEADLINE = 1.5

# Seconds between two log lines that say that connections are refused.
_REFUSED_LOG_PERIOD = 10.0

_SO_PEERGROUPS = 59
_GROUPS_BUFFER = 1024  # bytes, the most that Python passes: 256 groups
_UCRED = struct.Struct("iII")

Keep = Callable[[Sequence[Spend | Edit]], list[bool]]


def peer_of(connection: socket.socket) -> Peer:
    """The other end, as the kernel attested it when it connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BUFFER)
        groups = struct.unpack(f"{len(raw) // 4}I", raw)
    except OSError:  # ERANGE: more than 256
        log.warning("groups_ignored", pid=pid, uid=uid, reason="the peer is in more than 256 groups")
        return Peer(pid, uid, frozenset())
    return Peer(pid, uid, frozenset((gid, *groups)))


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
        deadline = asyncio.get_running_loop().time() + STOP_DEADLINE
        for connection in list(self._connections):
            connection.finish(deadline)
        self.commit()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._connections:
                    self._closed.clear()
                    await self._closed.wait()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # for the transports to close their sockets

    def admit(self, connection: "Connection") -> bool:
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

    def forget(self, connection: "Connection") -> None:
        """A connection ended."""
        self._closed.set()
        if connection in self._connections:
            self._connections.remove(connection)
            self._by_uid[connection.peer.uid] -= 1
            if not self._by_uid[connection.peer.uid]:
                del self._by_uid[connection.peer.uid]

    def handle(self, connection: "Connection", request: wire.Request, reading: clock.Reading) -> None:
        """Answer a request: at once, or when its change is kept."""
        peer = connection.peer
        try:
            answer = self._agent.handle(request, peer, reading)
        except Exception as error:
            log.failure("failed", error, method=request.method, uid=peer.uid, pid=peer.pid)
            answer = Answer(refusal=Internal("the daemon failed; its log says how"))
        if isinstance(answer.change, Spend):
            if not self._pending:
                asyncio.get_running_loop().call_soon(self.commit)
            self._pending.append(_Pending(connection, connection.hold(), request, answer.change, answer))
            return
        if isinstance(answer.change, Edit):
            self.commit()
            try:
                self.edit(answer.change)
            except UnusableState as error:
                answer = Answer(refusal=_unavailable(error))
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
        except UnusableState as error:
            answers = [Answer(refusal=_unavailable(error))] * len(pending)
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


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._decoder = wire.Decoder(wire.REQUEST, wire.REQUEST_LIMIT)
        self._out: list[bytes] = []  # answers that have not been written, in order
        self._held = 0  # of them, how many wait for a change to be kept
        self._more = False  # what was read is not all handled
        self._finished = False  # the client sends no more
        self._ending = False  # nothing more will be handled
        self._blocked = False  # the client does not read
        self._message_deadline: asyncio.TimerHandle | None = None
        self._message_position = -1
        self._write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is, and whether there is room."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT)
        self.peer = peer_of(transport.get_extra_info("socket"))
        if not self._server.admit(self):
            self.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """Stop its timers and forget it."""
        self._ending = True
        self._more = False
        _cancel(self._message_deadline)
        _cancel(self._write_deadline)
        self._server.forget(self)

    def data_received(self, data: bytes) -> None:
        """Handle what arrived."""
        if not self._ending:
            self._decoder.feed(data)
            self._turn()

    def eof_received(self) -> bool:
        """The client sends no more; it still gets its answers."""
        self._finished = True
        if not self._more:
            self._end()
        return True

    def pause_writing(self) -> None:
        """Read no more from a client that does not read."""
        self._blocked = True
        self._transport.pause_reading()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._blocked = False
        _cancel(self._write_deadline)
        self._write_deadline = None
        if self._more:
            self._turn()
        else:
            self._transport.resume_reading()

    def add(self, answer: bytes) -> None:
        """An answer that may leave, behind those before it."""
        self._out.append(answer)

    def hold(self) -> int:
        """The place of an answer that may not leave yet, for `settle`."""
        self._out.append(b"")
        self._held += 1
        return len(self._out) - 1

    def settle(self, slot: int, answer: bytes) -> None:
        """The answer for a place that was held."""
        self._out[slot] = answer
        self._held -= 1

    def release(self) -> None:
        """Write all answers, if none of them is held."""
        if self._held:
            return
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._ending:
            self._transport.close()
            self._watch_reader()

    def finish(self, deadline: float) -> None:
        """Handle what was read, and end when its answers have been taken."""
        while self._more and asyncio.get_running_loop().time() < deadline:
            self._turn()
        self._end()

    def abort(self) -> None:
        """End it now."""
        self._ending = True
        self._transport.abort()

    def _turn(self) -> None:
        """Handle what was read, as much as one turn allows, and write the answers."""
        if self._ending:
            return
        reading = clock.read()
        self._more = True
        try:
            for _ in range(REQUESTS_PER_TURN):
                request = self._decoder.next()
                if request is None:
                    self._more = False
                    break
                self._server.handle(self, request, reading)
        except ProtocolError as error:
            self._violation(error)
        self.release()
        self._watch_message()
        if self._ending:
            return
        if self._more:
            self._transport.pause_reading()
            if not self._blocked:
                asyncio.get_running_loop().call_soon(self._turn)
        elif self._finished:
            self._end()
        elif not self._blocked:
            self._transport.resume_reading()

    def _violation(self, error: ProtocolError) -> None:
        log.warning("protocol_error", uid=self.peer.uid, pid=self.peer.pid, reason=error)
        if error.msgid is not None:
            message = ["bad_request", f"bad_request: {error}"]
            self.add(wire.encode_response(error.msgid, message, None))
        self._end()

    def _end(self) -> None:
        self._more = False
        self._ending = True
        self.release()

    def _watch_message(self) -> None:
        """Set a deadline for the message that has begun, and no longer for the one before."""
        if self._message_deadline is not None and self._decoder.position != self._message_position:
            self._message_deadline.cancel()
            self._message_deadline = None
        unfinished = self._decoder.partial and not self._more and not self._ending
        if self._message_deadline is None and unfinished:
            self._message_position = self._decoder.position
            self._message_deadline = asyncio.get_running_loop().call_later(
                MESSAGE_DEADLINE, self._expire, "its message is not finished"
            )

    def _watch_reader(self) -> None:
        """Set a deadline for a client that does not take its answers."""
        if self._write_deadline is None:
            self._write_deadline = asyncio.get_running_loop().call_later(
                WRITE_DEADLINE, self._expire, "it does not read"
            )

    def _expire(self, reason: str) -> None:
        log.warning("connection_ended", uid=self.peer.uid, pid=self.peer.pid, reason=reason)
        self.abort()


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


def _unavailable(error: UnusableState) -> Refusal:
    log.error("state_failed", reason=error)
    return Unavailable("the state cannot be written; the daemon's log says why")


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

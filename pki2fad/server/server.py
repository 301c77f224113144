"""All requests: who is let in, when an answer may leave, and what long answers and half messages may take.

What is handled in one turn of the loop is kept together. Answers that depend on a change wait until the
change is kept.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from pki2fad.errors import Internal, Refusal, Unavailable, UnusableState
from pki2fad.host import log
from pki2fad.methods.agent import Agent
from pki2fad.methods.metrics import CONNECTIONS
from pki2fad.methods.table import is_administrative
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.changes import INVALID, REPLAYED, Answer, Edit, Failure, Spend, Work
from pki2fad.rules.clock import boot
from pki2fad.rules.outcomes import KEPT, Keep, keep_now
from pki2fad.server import passing
from pki2fad.server.admission import Admission
from pki2fad.server.connection import CLOSED, DEADLINE, Connection
from pki2fad.server.longwork import Changing, LongWork
from pki2fad.server.passing import Closer
from pki2fad.server.payer import Payer, Pool
from pki2fad.server.peer import peer_of
from pki2fad.server.requestlog import LOOKS, RequestLog
from pki2fad.server.turns import Turns
from pki2fad.wire import messages

# One answer that is longer is outside the pool at a time, up to `wire.RESPONSE_LIMIT`.
_LONG_SIZE = 64 * 1024

# Looks whether the uid of a client is known, and seconds between two: an ordinary one takes a millisecond.
_LOOKS = 100
_LOOK_PERIOD = 0.01

# Seconds between two looks for clients whose deadline is over.
_SWEEP = 1.0

# Seconds that a stop leaves to those who were just let in to ask: the next daemon is not asked instead.
NEWCOMERS_DEADLINE = 0.05

# Seconds that a stop leaves to clients to be answered; all of a stop takes at most 2, on a busy machine too.
STOP_DEADLINE = 1.2


class Server:
    """All connections, and the changes whose answers wait. It is made in the loop that serves them.

    `keep` is the store's. `give_up` makes a `keep` that is under way in another thread fail soon.
    """

    def __init__(
        self,
        agent: Agent,
        keep: Keep,
        max_connections: int,
        max_connections_per_uid: int,
        give_up: Callable[[], object] = lambda: None,
    ) -> None:
        self.admission = Admission(max_connections, max_connections_per_uid)
        self.pool = Pool()
        self.closer = Closer()
        self.turns = Turns(self._flush, lambda: not self.closer.is_behind)
        self._agent = agent
        self._keep = keep
        self._connections: set[Connection] = set()
        self._answered: list[Connection] = []  # that have answers
        self._pending: list[_Pending] = []
        self._without_room: set[Connection] = set()  # that are read later
        self._long: Connection | None = None  # whose long answer is on its way
        changing = Changing(lambda change: keep_now(keep, [change]), agent.applied, lambda: agent.version)
        self.long_work = LongWork(changing, self.commit, give_up)
        self._closed = asyncio.Event()  # some connection ended
        self._decisions = RequestLog(agent.steps_off, agent.metrics, lambda peer: self._payer(peer).key)
        agent.metrics.use_gauge(CONNECTIONS, lambda: len(self._connections))
        self._last_use = boot()  # a look at the daemon is none
        self._sweep()

    def start(self, listening: socket.socket, *, verify_only: bool = False, for_all: bool = False) -> None:
        """Accept connections on a socket that listens already, before those of sockets that come later.

        With `verify_only` nothing is answered there but `verify`; `for_all` says that everybody may connect.
        """
        self.turns.listen(
            listening, lambda stream, _: self.let_in(stream, verify_only=verify_only), for_all=for_all
        )

    async def stop(self) -> None:
        """Accept no more, answer what was read, and end all connections before the deadline."""
        self.turns.stop_listening()
        if any(connection.is_new for connection in self._connections):
            await asyncio.sleep(NEWCOMERS_DEADLINE)
        for connection in list(self._connections):
            connection.finish()
        await self.long_work.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE):
                while self._connections:
                    self._closed.clear()
                    await self._closed.wait()
        for connection in list(self._connections):
            connection.close()
        self._sweeping.cancel()
        self.turns.close()

    @property
    def access(self) -> Access:
        """The rules that hold now."""
        return self._agent.access

    def idle_for(self, reading: clock.Reading) -> float:
        """Seconds since somebody asked something that was not refused, and not only how the daemon is."""
        return reading.boot - self._last_use

    def let_in(self, stream: socket.socket, *, verify_only: bool = False) -> Connection | None:
        """Serve a connection that was accepted, if there is room for it; else it is closed."""
        peer = peer_of(stream, verify_only=verify_only)
        payer = self._payer(peer)
        if not self.admission.admit(payer, peer.uid):
            self._decisions.warning(peer, "connection_refused", reason="too many connections")
            self._close(stream, lambda: None, may_bring=passing.may_bring_some(stream))
            return None
        if not peer.gids:
            reason = "the peer is in more than 256 groups"
            self._decisions.warning(peer, "groups_ignored", pid=peer.pid, reason=reason)
        connection = Connection(self, stream, peer, payer)
        self._connections.add(connection)
        self.turns.add(connection)
        return connection

    def reassign(self, connection: Connection) -> bool:
        """Let the rules that hold now say what a connection may, and who pays for it.

        False while the uid of somebody with a role is looked up, for a second at most: it is served when that
        is done. A name service that takes longer has it pay with the strangers.
        """
        access, peer = self.access, connection.peer
        is_unknown = access.has_some_role(peer) and access.is_being_looked_up(peer.uid)
        if is_unknown and connection.looks < _LOOKS:
            connection.looks += 1
            asyncio.get_running_loop().call_later(_LOOK_PERIOD, self.turns.queue, connection)
            return False
        payer = self._payer(peer)
        if payer is not connection.payer:
            self.admission.move(connection.payer, payer, peer.uid)
            connection.move(payer)
        connection.learn(None if is_unknown else access)
        return True

    def makes_room(self, connection: Connection, more: int = 0) -> bool:
        """Have clients that wait given up, the oldest first, until the pool has room for `more` bytes.

        False if there is no room, and nobody to be given up: the connection is served again when something
        was handled.
        """
        while payer := self.pool.too_large(connection.payer, more):
            oldest = next(iter(payer.stalled), None)
            if oldest is None:
                self._without_room.add(connection)
                return False
            oldest.give_up("its memory is needed for others")
        return True

    def has_answers(self, connection: Connection) -> None:
        """Let the answers of a connection go at the end of the turn."""
        self._answered.append(connection)
        self.turns.schedule()

    def forget(self, connection: Connection, stream: socket.socket, *, may_bring: bool) -> None:
        """A connection ends. It counts until its stream is closed, which may take long."""
        self._connections.discard(connection)
        self._without_room.discard(connection)
        self.turns.remove(connection)
        payer, uid = connection.payer, connection.peer.uid
        self._close(stream, lambda: self.admission.leave(payer, uid), may_bring=may_bring)
        if self._long is connection:
            self._long = None
        self._closed.set()

    def long_answer_is_taken(self, connection: Connection) -> None:
        """Its client has all of its long answer: another one may be made."""
        connection.has_long = False
        self._long = None

    def violated(self, connection: Connection, reason: object) -> None:
        """A connection is ended for what its client did."""
        peer = connection.peer
        self._decisions.warning(peer, "connection_ended", pid=peer.pid, reason=reason)

    def handle(self, connection: Connection, request: messages.Request, reading: clock.Reading) -> None:
        """Answer a request: at the end of the turn, or when its change is kept."""
        try:
            answer = self._agent.handle(request, connection.peer, reading)
        except Exception as error:  # a mistake of ours must not end the connection
            answer = self._failed(request, error)
        self._conclude(connection, request, answer, reading)

    def _conclude(
        self, connection: Connection, request: messages.Request, answer: Answer, reading: clock.Reading
    ) -> None:
        """Let an answer go: at the end of the turn, or when its change is kept, or when its work is done."""
        if request.method not in LOOKS and answer.refusal is None:
            self._last_use = reading.boot  # who is refused keeps nothing unlocked
        if answer.work is not None:
            self._begin(connection, request, answer.work, reading)
            return
        if isinstance(answer.change, Edit):
            try:
                self.edit(answer.change)
            except Exception as error:  # as above
                answer = self._failed(request, error)
        if isinstance(answer.change, Spend | Failure):
            waiting = _Pending(connection, connection.hold(), request, answer.change, answer, reading)
            self._pending.append(waiting)
            return
        connection.add(_encode(request, answer))
        self._decisions.add(request, connection.peer, answer, reading, boot())

    def _begin(
        self, connection: Connection, request: messages.Request, work: Work, reading: clock.Reading
    ) -> None:
        """Have a long request carried out; its connection waits for the answer."""
        place = connection.hold()
        connection.has_work = True

        def done(outcome: Answer | Exception) -> None:
            connection.has_work = False
            answer = outcome if isinstance(outcome, Answer) else self._failed(request, outcome)
            if isinstance(answer.result, messages.Encoded) and connection.state != CLOSED:
                answer = self._as_only_long_one(connection, answer)
            connection.settle(place, *_encode_parts(request, answer))
            self._decisions.add(request, connection.peer, answer, reading, boot())

        if request.method == "backup":  # long for sure: it is not made where it could not leave
            work = self._as_only_long_work(connection, work)
        self.long_work.begin(work, done, connection)

    def _as_only_long_work(self, connection: Connection, work: Work) -> Work:
        self._require_no_long_answer(connection)
        return (yield from work)

    def _as_only_long_one(self, connection: Connection, answer: Answer) -> Answer:
        """The answer, or a refusal while another long one is on its way to somebody else."""
        if sum(map(len, answer.result.parts)) <= _LONG_SIZE:
            return answer
        try:
            self._require_no_long_answer(connection)
        except Unavailable as refusal:
            return Answer(refusal=refusal, audit=answer.audit and "refused")
        self._long, connection.has_long = connection, True
        return answer

    def _require_no_long_answer(self, connection: Connection) -> None:
        """Raise `Unavailable` while a long answer is on its way to somebody else."""
        if self._long is not None and self._long is not connection:
            raise Unavailable("another long answer is on its way; try again", 1)

    def edit(self, edit: Edit) -> None:
        """Keep what is pending, then the edit, and then make it.

        Raises `UnusableState`, and `Unavailable` while many accounts are being changed; then nothing has
        changed.
        """
        self.long_work.require_no_change()
        self.commit()
        keep_now(self._keep, [edit])
        self._agent.apply(edit)

    def commit(self) -> None:
        """Keep the changes of this turn, unless the store is in use; answers that waited may go now."""
        if self.long_work.uses_store:
            return
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            outcomes = keep_now(self._keep, [waiting.change for waiting in pending])
            answers = [
                waiting.answer
                if outcome is KEPT
                else replace(waiting.answer, result=INVALID, reason=REPLAYED)
                for waiting, outcome in zip(pending, outcomes, strict=True)
            ]
        except Exception as error:  # whatever it was, nothing may leave as if it had been kept
            answers = [_failed(error)] * len(pending)
        ready = boot()
        for waiting, answer in zip(pending, answers, strict=True):
            waiting.connection.settle(waiting.place, _encode(waiting.request, answer))
        for waiting, answer in zip(pending, answers, strict=True):
            self._decisions.add(waiting.request, waiting.connection.peer, answer, waiting.reading, ready)

    def _flush(self) -> None:
        """Keep what was changed, and let the answers go; their payers pay for it."""
        if not self._answered:
            return
        begun = boot()
        self.commit()
        answered, self._answered = self._answered, []
        for connection in answered:
            connection.release()
        each = (boot() - begun) / len(answered)
        for connection in answered:
            connection.payer.credit -= each
        self._read_again()

    def _sweep(self) -> None:
        """End connections whose clients have made no end for too long, and forget payers that are gone."""
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)
        latest = boot() - DEADLINE
        for payer in self.admission.payers:
            while payer.stalled:
                connection, since = next(iter(payer.stalled.items()))
                if since > latest:
                    break
                connection.expire()
        self.admission.forget()
        self._read_again()

    def _read_again(self) -> None:
        """Serve those again for which there was no room."""
        without_room, self._without_room = self._without_room, set()
        for connection in without_room:
            self.turns.queue(connection)

    def _close(self, stream: socket.socket, closed: Callable[[], object], *, may_bring: bool) -> None:
        if may_bring and passing.has_unread(stream):
            self.closer.close(stream, closed)
        else:
            stream.close()
            closed()

    def _payer(self, peer: Peer) -> Payer:
        return self.admission.payer(self.access, peer)

    def _failed(self, request: messages.Request, error: Exception) -> Answer:
        if isinstance(error, Refusal):
            answer, audit = Answer(refusal=error), "refused"
        else:
            answer, audit = _failed(error), "failed"
        return replace(answer, audit=audit if is_administrative(request.method) else None)


class _Pending(NamedTuple):
    """An answer that waits for its change to be kept."""

    connection: Connection
    place: int
    request: messages.Request
    change: Spend | Failure
    answer: Answer
    reading: clock.Reading


def _encode(request: messages.Request, answer: Answer) -> bytes:
    refusal = answer.refusal
    if refusal is None:
        return messages.encode_response(request.msgid, None, answer.result)
    error: list[Any] = [refusal.code, f"{refusal.code}: {refusal}"]
    if refusal.retry_after is not None:
        error.append(refusal.retry_after)
    return messages.encode_response(request.msgid, error, None)


def _encode_parts(request: messages.Request, answer: Answer) -> list[bytes]:
    """The answer to a long request."""
    if isinstance(answer.result, messages.Encoded):
        return messages.encode_encoded(request.msgid, answer.result)
    return [_encode(request, answer)]


def _failed(error: Exception) -> Answer:
    """The answer where something could not be carried out."""
    if isinstance(error, UnusableState):
        log.error("state_failed", reason=error)
        return Answer(refusal=Unavailable("the state cannot be written; the daemon's log says why"))
    log.failure("failed", error)
    return Answer(refusal=Internal("the daemon failed; its log says how"))

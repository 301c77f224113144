"""Takes requests from connections to the agent, and answers back when they may leave."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from pki2fad.errors import Refusal, Unavailable
from pki2fad.methods.agent import Agent
from pki2fad.methods.table import METHODS, is_administrative
from pki2fad.rules import clock
from pki2fad.rules.access import Peer
from pki2fad.rules.changes import REJECTED, REPLAYED, Answer, Edit, TurnChange, Work
from pki2fad.rules.clock import Reading, boot
from pki2fad.rules.outcomes import KEPT, SPENT, STALE, NotKept, Outcome, Unknown
from pki2fad.server.commit import Commit, another_change, log_unkept, refusal_of
from pki2fad.server.connection import Connection
from pki2fad.server.longwork import LongWork
from pki2fad.server.requestlog import RequestLog
from pki2fad.server.stages import Stage
from pki2fad.wire import messages
from pki2fad.wire.build import Message
from pki2fad.wire.messages import Encoded, Request

# One answer that is longer is outside the pool at a time, up to `messages.RESPONSE_LIMIT`.
_LONG_SIZE = 64 * 1024


class _Call(NamedTuple):
    """A request whose answer waits."""

    connection: Connection
    place: int  # of the answer
    request: Request
    reading: Reading
    is_last: bool = False  # it is not handled anew


class Dispatch:
    """Handles requests. An answer with a change waits for the store, one with long work for that."""

    def __init__(self, agent: Agent, commit: Commit, long_work: LongWork, request_log: RequestLog) -> None:
        self._agent = agent
        self._commit = commit
        self._long_work = long_work
        self._request_log = request_log
        self._long: Connection | None = None  # that had the last long answer
        self._last_use = boot()  # a look at the daemon is none

    def idle_for(self, reading: Reading) -> float:
        """Seconds since somebody asked something that was not refused, and not only how the daemon is."""
        return reading.boot - self._last_use

    def handle(self, connection: Connection, found: list[Message], reading: Reading, end: float) -> int:
        """Answer each request: at once, or when its change is kept, or when its work is done.

        It ends when CLOCK_BOOTTIME is `end`, and behind a request which has to be answered before the next is
        handled. Returns how many messages were handled.
        """
        peer, count = connection.peer, len(found)
        for handled, request in enumerate(found, 1):
            if type(request) is Request:
                answer = self._answer(request, peer, reading)
                if answer.refusal is None and not METHODS[request.method].look:
                    self._last_use = reading.boot  # who is refused keeps nothing unlocked
                if answer.change is None and answer.work is None:
                    connection.add(self._encoded(request, answer))
                    self._request_log.add(request, peer, answer, reading, boot())
                else:
                    self._wait(connection, request, answer, reading)
            if handled < count and (not connection.goes_on or boot() > end):
                return handled
        return count

    def _wait(self, connection: Connection, request: Request, answer: Answer, reading: Reading) -> None:
        """Answer when a change is kept or work is done."""
        change = answer.change
        if isinstance(change, TurnChange):
            call = _Call(connection, connection.hold(), request, reading)
            self._commit.add(change, partial(self._settled, call, answer))
        elif isinstance(change, Edit):
            call = _Call(connection, connection.hold_alone(), request, reading)
            self._edit(call, answer, change)
        elif answer.work is not None:
            call = _Call(connection, connection.hold_alone(), request, reading)
            self._begin(call, answer.work)

    def _answer(self, request: Request, peer: Peer, reading: Reading) -> Answer:
        try:
            return self._agent.handle(request, peer, reading)
        except Exception as error:  # a mistake of ours must not end the connection
            return self._failed(request, error)

    def _edit(self, call: _Call, answer: Answer, edit: Edit) -> None:
        try:
            self._commit.edit(edit, partial(self._settled, call, answer))
        except Unavailable as refusal:
            self._settle(call, self._failed(call.request, refusal))

    def _settled(self, call: _Call, answer: Answer, outcome: Outcome) -> None:
        """Answer, now that the store says what became of the change."""
        if outcome is KEPT:
            self._settle(call, answer)
        elif outcome is STALE and not call.is_last:
            self._handle_anew(call._replace(reading=clock.read(), is_last=True))
        else:
            self._settle(call, self._unkept(call, answer, outcome))

    def _handle_anew(self, call: _Call) -> None:
        """Handle a request once more, now that memory has caught up."""
        answer = self._answer(call.request, call.connection.peer, call.reading)
        if isinstance(answer.change, Edit):
            self._edit(call, answer, answer.change)
        elif isinstance(answer.change, TurnChange):
            self._commit.keep(answer.change, partial(self._settled, call, answer))
        else:
            self._settle(call, answer)

    def _settle(self, call: _Call, answer: Answer) -> None:
        call.connection.settle(call.place, self._encoded(call.request, answer))
        self._log(call, answer)

    def _log(self, call: _Call, answer: Answer) -> None:
        self._request_log.add(call.request, call.connection.peer, answer, call.reading, boot())

    def _unkept(self, call: _Call, answer: Answer, outcome: Outcome) -> Answer:
        """The answer in place of one whose change is not kept."""
        if isinstance(outcome, NotKept | Unknown):
            if isinstance(answer.change, Edit) or call.is_last:
                log_unkept(outcome)  # those of a turn are logged together
            return self._audited(call.request, Answer(refusal=refusal_of(outcome)), "failed")
        if outcome is SPENT and isinstance(answer.result, dict) and "valid" in answer.result:
            return Answer(REJECTED, reason=REPLAYED)
        return self._failed(call.request, another_change())

    def _begin(self, call: _Call, work: Work) -> None:
        """Have a long request carried out."""
        if METHODS[call.request.method].long:  # it is not made where it could not leave
            work = self._as_only_long_one(call.connection, work)
        self._long_work.begin(work, partial(self._done, call), call.connection)

    def _done(self, call: _Call, outcome: Answer | Exception) -> None:
        """Answer a long request."""
        answer = outcome if isinstance(outcome, Answer) else self._failed(call.request, outcome)
        if not isinstance(answer.result, Encoded):
            self._settle(call, answer)
            return
        connection, parts = call.connection, [messages.encode_start(call.request.msgid), *answer.result.parts]
        if sum(map(len, parts)) > _LONG_SIZE and connection.stage is not Stage.CLOSED:
            try:
                self._require_no_long_answer(connection)
            except Unavailable as refusal:
                self._settle(call, Answer(refusal=refusal, audit=answer.audit and "refused"))
                return
            self._long = connection
            connection.settle_long(call.place, *parts)
        else:
            connection.settle(call.place, *parts)
        self._log(call, answer)

    def _as_only_long_one(self, connection: Connection, work: Work) -> Work:
        self._require_no_long_answer(connection)
        return (yield from work)

    def _require_no_long_answer(self, connection: Connection) -> None:
        """Raise `Unavailable` while a long answer is on its way to somebody else."""
        if self._long is not None and self._long is not connection and self._long.has_long:
            raise Unavailable("another long answer is on its way; try again", 1)

    def _failed(self, request: Request, error: Exception) -> Answer:
        """The answer where a request could not be carried out."""
        if isinstance(error, Refusal):
            return self._audited(request, Answer(refusal=error), "refused")
        failure = NotKept(error)
        log_unkept(failure)
        return self._audited(request, Answer(refusal=refusal_of(failure)), "failed")

    def _encoded(self, request: Request, answer: Answer) -> bytes:
        try:
            if answer.encoded is not None:
                return messages.encode_start(request.msgid) + answer.encoded
            return _encode(request, answer)
        except Exception as error:  # a mistake of ours: its client gets an answer all the same
            return _encode(request, self._failed(request, error))

    def _audited(self, request: Request, answer: Answer, audit: str) -> Answer:
        return replace(answer, audit=audit if is_administrative(request.method) else None)


def _encode(request: Request, answer: Answer) -> bytes:
    refusal = answer.refusal
    if refusal is None:
        return messages.encode_response(request.msgid, None, answer.result)
    error: list[Any] = [refusal.code, f"{refusal.code}: {refusal}"]
    if refusal.retry_after is not None:
        error.append(refusal.retry_after)
    return messages.encode_response(request.msgid, error, None)

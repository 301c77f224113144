"""One connection: its messages, in order, and their answers; deadlines and back-pressure."""

from typing import Protocol

from pki2fad.errors import ProtocolError
from pki2fad.host import log
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.clock import boot
from pki2fad.server.answers import Answers
from pki2fad.server.inbox import Inbox
from pki2fad.server.payer import Holding, Payer
from pki2fad.server.stages import CLOSED, ENDING, FINISHED, GOING, LONG, NEW, OPEN, WAITING
from pki2fad.server.stream import Stream
from pki2fad.wire import messages
from pki2fad.wire.build import SEVERAL, Message

# Seconds from the first byte of a message to its last, and those in which a client has to take the answers
# that the kernel has no room for: a load from a slow shell takes less.
DEADLINE = 10.0

# Bytes of answers that are written at once: what is longer goes when others have had their turn.
_WRITTEN_AT_ONCE = 1024 * 1024

# Messages of one connection that are handled before others of its payer have their turn.
MESSAGES_AT_ONCE = SEVERAL


class Owner(Protocol):
    """What a connection needs of the server."""

    @property
    def access(self) -> Access:
        """The rules that hold now."""

    def reassign(self, connection: "Connection") -> bool:
        """Let the rules that hold now say who pays; false while that is looked up."""

    def makes_room(self, connection: "Connection", more: int = 0) -> bool:
        """Have the pool make room for `more` bytes; false if there is none."""

    def handle(
        self, connection: "Connection", found: list[Message], reading: clock.Reading, end: float
    ) -> int:
        """Answer requests, now or later, until CLOCK_BOOTTIME is `end`; returns how many were handled."""

    def has_answers(self, connection: "Connection") -> None:
        """Let its answers go at the end of the turn."""

    def watch(self, connection: "Connection") -> None:
        """Serve it when the kernel has room for its answers, if some are left unsent."""

    def serve_again(self, connection: "Connection") -> None:
        """Serve it in its payer's next turn."""

    def violated(self, connection: "Connection", reason: object) -> None:
        """It is ended for what its client did."""

    def forget(self, connection: "Connection") -> None:
        """It has ended; its stream is closed now."""


class Connection:
    """One client. `serve` does what can be done for it, `release` lets its answers go."""

    __slots__ = ("_answers", "_inbox", "_owner", "_pace", "holding", "peer", "stage", "stream")

    def __init__(self, owner: Owner, stream: Stream, peer: Peer, holding: Holding) -> None:
        self.peer = peer
        self.holding = holding
        self.stream = stream
        self.stage = NEW
        self._owner = owner
        self._inbox = Inbox()
        self._answers = Answers()  # that have not been written
        self._pace = GOING

    @property
    def descriptor(self) -> int:
        """That of its socket."""
        return self.stream.descriptor

    @property
    def payer(self) -> Payer:
        """Who pays for it."""
        return self.holding.payer

    @property
    def has_long(self) -> bool:
        """True while a long answer is on its way to the client."""
        return self._pace is LONG and self.stage is not CLOSED

    @property
    def is_gone(self) -> bool:
        """True if its client takes no more answers; one that only sends no more may wait for them."""
        return self.stage is CLOSED or self.stream.is_gone

    def has_happened(self, events: int) -> bool:
        """Note what the kernel says; True if something is to be done."""
        return self.stream.note(events)

    def serve(self, reading: clock.Reading, end: float) -> bool:
        """Write, read and handle a little, until CLOCK_BOOTTIME is `end`; True if there is more to do now."""
        try:
            if self.stream.unsent:
                self._send(self.stream.unsent)
                if self._answers.may_leave and not self.stream.unsent:
                    self._owner.has_answers(self)
            if not self._is_blocked and not self._take(reading, end):
                return False  # the server comes back
        except ProtocolError as error:
            self._violation(error)
        except Exception as error:  # a mistake of ours ends this connection, and keeps no other waiting
            log.failure("failed", error)
            self.end()
        if self._answers.waiting or self._inbox.has_more:
            self._owner.has_answers(self)
        elif self._answers.pending:  # none waits for the store, nor for the end of the turn
            self._write()
        return self._account()

    @property
    def goes_on(self) -> bool:
        """True if the next message may be handled."""
        return self._pace is GOING and not (self._answers.waiting and self._answers.is_full)

    def add(self, answer: bytes) -> None:
        """Put an answer behind the others. It leaves at the end of `serve`, or of the turn."""
        self._answers.pending.append(answer)

    def hold(self) -> int:
        """The place of an answer that may not leave yet, for `settle`."""
        return self._answers.hold()

    def hold_alone(self) -> int:
        """Like `hold`, and no message behind this one is handled before it is settled."""
        self._pace = WAITING
        return self.hold()

    def settle(self, place: int, *answer: bytes) -> None:
        """The answer for a place that was held, in parts if it is the last place."""
        if self._pace is WAITING and self._answers.is_last(place):
            self._pace = GOING
        self._answers.settle(place, *answer)
        self._owner.has_answers(self)

    def settle_long(self, place: int, *answer: bytes) -> None:
        """Like `settle`, for a long answer: it counts in no pool, and nothing is handled before it left."""
        self.settle(place, *answer)
        self._pace = LONG

    def release(self) -> None:
        """Write the answers, up to the first that waits."""
        if not self._answers.pending or self.stream.unsent or self.stage is CLOSED:
            return
        self._write()
        if self._account(is_late=self._answers.waiting > 0):
            self._owner.serve_again(self)

    def finish(self) -> None:
        """Read no more, and end when what was read is answered."""
        if self.stage < FINISHED:
            self.stage = FINISHED
            self._account()

    def end(self) -> None:
        """Handle nothing more, and close when the answers have been taken."""
        self._inbox.drop()
        self.stage = max(self.stage, ENDING)

    def close(self) -> None:
        """End it now."""
        if self.stage is CLOSED:
            return
        self.stage = CLOSED
        self._inbox.drop()
        self.stream.shut()
        self._owner.forget(self)
        self.holding.count(self, 0, None)

    def expire(self) -> None:
        """Its deadline is over."""
        self.give_up("it does not read" if self.stream.unsent else "its message is not finished")

    def give_up(self, reason: object) -> None:
        """End it now, and log the reason."""
        self._owner.violated(self, reason)
        self.close()

    def move(self, payer: Payer) -> None:
        """Let another payer pay for it from now on."""
        self.holding.move(self, payer)

    @property
    def _is_blocked(self) -> bool:
        """True if nothing more is read or handled for now."""
        return not self.goes_on or len(self.stream.unsent) > 0 or self.stage >= ENDING

    def _take(self, reading: clock.Reading, end: float) -> bool:
        """Read and handle a little; False if it has to be known first who it is, or there is no room."""
        if self.holding.access is not self._owner.access and not self._owner.reassign(self):
            return False
        stream = self.stream
        if self._inbox.has_more:
            self._handle(b"", reading, end)
        elif stream.is_readable:
            if not self._owner.makes_room(self, stream.read_size):
                return False
            data = self._read()
            if data:
                self._handle(data, reading, end)
        return True

    def _handle(self, data: bytes, reading: clock.Reading, end: float) -> None:
        """Handle a few of the messages that are there, with those in `data`, which was read."""
        inbox, left = self._inbox, MESSAGES_AT_ONCE
        while True:
            found = inbox.some(data)
            data = b""
            handled = self._owner.handle(self, found, reading, end)
            if handled < len(found):
                inbox.put_back(found[handled:])
                return
            left -= handled
            if not inbox.has_more or left <= 0 or not self.goes_on or boot() > end:
                return

    def _read(self) -> bytes | None:
        """What was read, if something was."""
        if not self.stream.is_readable:
            return None  # it was given up itself, for room
        if self.stage is NEW:
            self.stage = OPEN
        try:
            data = self.stream.read()
        except ConnectionError:
            self.close()
            return None
        if data == b"":
            self.stage = FINISHED
        return data

    def _write(self) -> None:
        """Write the answers, up to the first that waits; many go when others have had their turn."""
        answers = self._answers
        if answers.pending[0] is None or self.stream.unsent:
            return
        self._send(answers.take(_WRITTEN_AT_ONCE))
        if answers.pending and answers.may_leave and not self.stream.unsent:
            self.stream.put(answers.take(_WRITTEN_AT_ONCE))
            self._owner.serve_again(self)

    def _send(self, data: bytes | memoryview) -> None:
        was_full = len(self.stream.unsent) > 0
        try:
            self.stream.send(data)
        except OSError:  # there is nobody to write to
            self.close()
            return
        if was_full or self.stream.unsent:
            self._owner.watch(self)

    def _account(self, *, is_late: bool = False) -> bool:
        """Close it if nothing is left to be done, or count what it holds; True if there is more to do now."""
        stream, answers, inbox = self.stream, self._answers, self._inbox
        if not stream.unsent and not answers.pending:
            if self.stage is OPEN and self._pace is GOING and not self.holding.size and not inbox.holds_some:
                return stream.is_readable  # as nearly always: nothing is left to be done or counted
            if self.stage is CLOSED:
                return False
            if self._pace is LONG:
                self._pace = GOING
            if self.stage is ENDING or (self.stage is FINISHED and not inbox.has_more):
                self.close()
                return False
        if self.stage is CLOSED:
            return False
        if is_late or self.holding.size or stream.unsent or inbox.holds_some:
            self._count()
        has_more = inbox.has_more or (stream.is_readable and self.stage < FINISHED)
        return has_more and not self._is_blocked

    def _count(self) -> None:
        size = self._inbox.size
        if self._pace is not LONG:
            size += len(self.stream.unsent)
            if self._answers.waiting:
                size += self._answers.size
        # Another half message has another deadline.
        self.holding.count(self, size, "reader" if self.stream.unsent else self._inbox.waits_for)
        self._owner.makes_room(self)

    def _violation(self, error: ProtocolError) -> None:
        self._owner.violated(self, error)
        if error.msgid is not None:
            message = ["bad_request", f"bad_request: {error}"]
            self.add(messages.encode_response(error.msgid, message, None))
        self.end()

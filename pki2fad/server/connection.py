"""One connection: its messages, in order, and their answers; deadlines and back-pressure."""

import enum
from typing import Protocol

from pki2fad.errors import ProtocolError
from pki2fad.host import log
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.clock import boot
from pki2fad.server.answers import Answers
from pki2fad.server.inbox import Inbox
from pki2fad.server.payer import Holding, Payer
from pki2fad.server.stream import Stream
from pki2fad.wire import messages

# Messages of one connection that are handled before others of its payer have their turn.
MESSAGES_AT_ONCE = 16

# Seconds from the first byte of a message to its last, and those in which a client has to take the answers
# that the kernel has no room for: a load from a slow shell takes less.
DEADLINE = 10.0

# Bytes of answers that are written at once: what is longer goes when others have had their turn.
_WRITTEN_AT_ONCE = 1024 * 1024


class Stage(enum.IntEnum):
    """What is left to be done for a client."""

    NEW = enum.auto()  # everything; nothing has come from it yet
    OPEN = enum.auto()  # everything
    FINISHED = enum.auto()  # it sends no more: what was read is handled, and answered
    ENDING = enum.auto()  # its answers are written
    CLOSED = enum.auto()  # nothing


class Pace(enum.Enum):
    """Whether the next message is handled."""

    GOING = enum.auto()
    WAITING = enum.auto()  # not before the answer of the last one is there
    LONG = enum.auto()  # not before a long answer, which is outside the pool, was taken


class Owner(Protocol):
    """What a connection needs of the server."""

    @property
    def access(self) -> Access:
        """The rules that hold now."""

    def reassign(self, connection: "Connection") -> bool:
        """Let the rules that hold now say who pays; false while that is looked up."""

    def makes_room(self, connection: "Connection", more: int = 0) -> bool:
        """Have the pool make room for `more` bytes; false if there is none."""

    def handle(self, connection: "Connection", request: messages.Request, reading: clock.Reading) -> None:
        """Answer a request, now or later."""

    def has_answers(self, connection: "Connection") -> None:
        """Let its answers go at the end of the turn."""

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
        self.stage = Stage.NEW
        self._owner = owner
        self._inbox = Inbox()
        self._answers = Answers()  # that have not been written
        self._pace = Pace.GOING

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
        return self._pace is Pace.LONG and self.stage is not Stage.CLOSED

    @property
    def is_gone(self) -> bool:
        """True if its client takes no more answers; one that only sends no more may wait for them."""
        return self.stage is Stage.CLOSED or self.stream.is_gone

    def has_happened(self, events: int) -> bool:
        """Note what the kernel says; True if something is to be done."""
        self.stream.note(events)
        return self.stream.is_readable or len(self.stream.unsent) > 0

    def serve(self, reading: clock.Reading, end: float) -> bool:
        """Write, read and handle a little, until CLOCK_BOOTTIME is `end`; True if there is more to do now."""
        try:
            if self.stream.unsent:
                self._send()
                if self._answers.may_leave and not self.stream.unsent:
                    self._owner.has_answers(self)
            if not self._is_blocked and not self._take(reading, end):
                return False  # the server comes back
        except ProtocolError as error:
            self._violation(error)
        except Exception as error:  # a mistake of ours ends this connection, and keeps no other waiting
            log.failure("failed", error)
            self.end()
        return self._account()

    def add(self, answer: bytes) -> None:
        """An answer that may leave, behind those before it."""
        if not self._answers:
            self._owner.has_answers(self)
        self._answers.add(answer)

    def hold(self) -> int:
        """The place of an answer that may not leave yet, for `settle`."""
        if not self._answers:
            self._owner.has_answers(self)
        return self._answers.hold()

    def hold_alone(self) -> int:
        """Like `hold`, and no message behind this one is handled before it is settled."""
        self._pace = Pace.WAITING
        return self.hold()

    def settle(self, place: int, *answer: bytes) -> None:
        """The answer for a place that was held, in parts if it is the last place."""
        if self._pace is Pace.WAITING and self._answers.is_last(place):
            self._pace = Pace.GOING
        self._answers.settle(place, *answer)
        self._owner.has_answers(self)

    def settle_long(self, place: int, *answer: bytes) -> None:
        """Like `settle`, for a long answer: it counts in no pool, and nothing is handled before it left."""
        self.settle(place, *answer)
        self._pace = Pace.LONG

    def release(self) -> None:
        """Write the answers, up to the first that waits."""
        if not self._answers or self.stream.unsent or self.stage is Stage.CLOSED:
            return
        self.stream.put(self._answers.take(_WRITTEN_AT_ONCE))
        if self.stream.unsent:
            self._send()
        has_more = self._answers.may_leave and not self.stream.unsent
        if has_more:  # it goes when others have had their turn
            self.stream.put(self._answers.take(_WRITTEN_AT_ONCE))
        if self._account(is_late=self._answers.waiting > 0) or has_more:
            self._owner.serve_again(self)

    def finish(self) -> None:
        """Read no more, and end when what was read is answered."""
        if self.stage < Stage.FINISHED:
            self.stage = Stage.FINISHED
            self._account()

    def end(self) -> None:
        """Handle nothing more, and close when the answers have been taken."""
        self._inbox.drop()
        self.stage = max(self.stage, Stage.ENDING)

    def close(self) -> None:
        """End it now."""
        if self.stage is Stage.CLOSED:
            return
        self.stage = Stage.CLOSED
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
        return (
            self._pace is not Pace.GOING
            or len(self.stream.unsent) > 0
            or self._answers.is_full
            or self.stage >= Stage.ENDING
        )

    def _take(self, reading: clock.Reading, end: float) -> bool:
        """Read and handle a little; False if it has to be known first who it is, or there is no room."""
        if self.holding.access is not self._owner.access and not self._owner.reassign(self):
            return False
        if not self._inbox.has_more and self.stream.is_readable:
            if not self._owner.makes_room(self, self.stream.read_size):
                return False
            if self.stream.is_readable:  # it was not given up itself
                self._read()
        if self._inbox.has_more:
            self._handle(reading, end)
        return True

    def _read(self) -> None:
        self.stage = max(self.stage, Stage.OPEN)
        try:
            data = self.stream.read()
        except ConnectionError:
            self.close()
            return
        if data:
            self._inbox.feed(data)
        elif data is not None:
            self.stage = Stage.FINISHED

    def _handle(self, reading: clock.Reading, end: float) -> None:
        for _ in range(MESSAGES_AT_ONCE):
            message = self._inbox.next()
            if message is None:
                return
            if isinstance(message, messages.Request):
                self._owner.handle(self, message, reading)
            if self._pace is not Pace.GOING or self._answers.is_full or not self._inbox.has_more:
                return
            if boot() > end:
                return

    def _send(self) -> None:
        try:
            self.stream.send()
        except OSError:  # there is nobody to write to
            self.close()

    def _account(self, *, is_late: bool = False) -> bool:
        """Close it if nothing is left to be done, or count what it holds; True if there is more to do now."""
        if self.stage is Stage.CLOSED:
            return False
        if not self.stream.unsent and not self._answers:
            if self._pace is Pace.LONG:
                self._pace = Pace.GOING
            if self.stage is Stage.ENDING or (self.stage is Stage.FINISHED and not self._inbox.has_more):
                self.close()
                return False
        if is_late or self.holding.size or self.stream.unsent or self._inbox:
            self._count()
        has_more = self._inbox.has_more or (self.stream.is_readable and self.stage < Stage.FINISHED)
        return has_more and not self._is_blocked

    def _count(self) -> None:
        size = self._inbox.size
        if self._pace is not Pace.LONG:
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

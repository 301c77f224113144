"""One connection: bytes in and out, deadlines and back-pressure."""

import select
import socket
from typing import TYPE_CHECKING

from pki2fad.errors import ProtocolError
from pki2fad.host import log
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.clock import boot
from pki2fad.server import passing
from pki2fad.server.payer import Payer
from pki2fad.wire import messages
from pki2fad.wire.build import Message
from pki2fad.wire.decoder import Decoder

if TYPE_CHECKING:
    from pki2fad.server.server import Server

# Messages of one connection that are handled before others of its payer have their turn.
MESSAGES_AT_ONCE = 16

# Seconds from the first byte of a message to its last, and those in which a client has to take the answers
# that the kernel has no room for: a load from a slow shell takes less.
DEADLINE = 10.0

# Bytes that are read at once: most requests are short, and the rest of a long one is there behind its start.
_READ_FIRST = 4 * 1024
_READ_MORE = 64 * 1024

# Bytes of answers that are written at once: what is longer goes when others have had their turn.
_WRITTEN_AT_ONCE = 1024 * 1024

# Bytes that a request takes that was found and waits for its turn, with what is in it.
_FOUND_SIZE = 1024

# What is left to be done for a client.
OPEN = 0  # everything
FINISHED = 1  # it sends no more: what was read is handled, and answered
ENDING = 2  # its answers are written
CLOSED = 3  # nothing

_HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Connection:
    """One client. `serve` does what can be done for it, `release` lets its answers go."""

    __slots__ = (
        "_decoder",
        "_held",
        "_hung_up",
        "_may_bring",
        "_more",
        "_out",
        "_read_size",
        "_readable",
        "_server",
        "_size",
        "_stalled_by",
        "_stream",
        "_unsent",
        "_waiting",
        "access",
        "descriptor",
        "has_long",
        "has_work",
        "is_new",
        "looks",
        "payer",
        "peer",
        "queued",
        "state",
    )

    def __init__(self, server: "Server", stream: socket.socket, peer: Peer, payer: Payer) -> None:
        self.peer = peer
        self.payer = payer
        self.access: Access | None = None  # the rules that its payer is by
        self.state = OPEN
        self.queued = False  # it is to be served
        self.looks = 0  # how often it was looked whether its uid is known
        self.is_new = True  # nothing has come yet
        self.has_long = False  # a long answer, outside the pool
        self.has_work = False  # a request that takes long: what comes behind it waits
        self.descriptor = stream.fileno()
        self._server = server
        self._stream = stream
        self._may_bring = passing.may_bring_some(stream)  # descriptors
        self._decoder = Decoder(messages.REQUEST, messages.REQUEST_LIMIT)
        self._waiting: list[Message] = []  # what was found and not handled, the last first
        self._more = False  # what was read is not all handled
        self._readable = False  # the kernel has something
        self._hung_up = False  # and the end is among it
        self._read_size = _READ_FIRST
        self._out: list[bytes] = []  # answers that have not been written, in order
        self._held = 0  # of them, how many wait for a change to be kept
        self._unsent: bytes | memoryview = b""  # what the kernel has no room for
        self._size = 0  # bytes that count in the pool
        self._stalled_by: object = None  # what it waits for, None if for nothing

    @property
    def is_gone(self) -> bool:
        """True if its client takes no more answers; one that only sends no more may wait for them."""
        if self.state == CLOSED:
            return True
        poll = select.poll()
        poll.register(self.descriptor, 0)  # a closed peer and errors are told in any case
        return bool(poll.poll(0))

    def has_happened(self, events: int) -> bool:
        """Note what the kernel says; True if something is to be done."""
        if events & select.EPOLLIN:
            self._readable = True
        if events & _HUNG_UP:
            self._readable = self._hung_up = True
        return self._readable or len(self._unsent) > 0

    def serve(self, reading: clock.Reading, end: float) -> bool:
        """Write, read and handle a little, until CLOCK_BOOTTIME is `end`; True if there is more to do now."""
        try:
            if self._unsent:
                self._send_rest()
            if self._unsent or self._held or self.state >= ENDING:
                return self._settle()
            if self.access is not self._server.access and not self._server.reassign(self):
                return False  # the server comes back when it knows who it is
            if not self._more and self._readable:
                if not self._server.makes_room(self, self._read_size):
                    return False  # the server comes back when there is room
                if self._readable:  # it was not given up itself
                    self._read()
            if self._more:
                self._handle(reading, end)
        except ProtocolError as error:
            self._violation(error)
        except Exception as error:  # a mistake of ours ends this connection, and keeps no other waiting
            log.failure("failed", error)
            self.end()
        return self._settle()

    def add(self, answer: bytes) -> None:
        """An answer that may leave, behind those before it."""
        if not self._out:
            self._server.has_answers(self)
        self._out.append(answer)

    def hold(self) -> int:
        """The place of an answer that may not leave yet, for `settle`."""
        self.add(b"")
        self._held += 1
        return len(self._out) - 1

    def settle(self, place: int, *answer: bytes) -> None:
        """The answer for a place that was held, in parts if it is the last place."""
        self._out[place : place + 1] = answer
        self._held -= 1
        self._server.has_answers(self)

    def release(self) -> None:
        """Write all answers, if none of them is held."""
        if self._held or self._unsent or not self._out or self.state == CLOSED:
            return
        size = count = 0
        while count < len(self._out) and size < _WRITTEN_AT_ONCE:
            size += len(self._out[count])
            count += 1
        self._unsent = b"".join(self._out[:count])
        del self._out[:count]
        self._send()
        if self._settle() or (self._out and not self._unsent):
            self._server.turns.queue(self)

    def finish(self) -> None:
        """Read no more, and end when what was read is answered."""
        if self.state == OPEN:
            self.state = FINISHED
            self._settle()

    def end(self) -> None:
        """Handle nothing more, and close when the answers have been taken."""
        self._more = False
        self.state = max(self.state, ENDING)

    def close(self) -> None:
        """End it now."""
        if self.state == CLOSED:
            return
        self.state = CLOSED
        self._more = self._readable = False
        self._server.forget(self, self._stream, may_bring=self._may_bring)
        self.count(0, None)

    def expire(self) -> None:
        """Its deadline is over."""
        self.give_up("it does not read" if self._unsent else "its message is not finished")

    def give_up(self, reason: object) -> None:
        """End it now, and log the reason."""
        self._server.violated(self, reason)
        self.close()

    def learn(self, access: Access | None) -> None:
        """Note the rules that its payer is by; None if that has to be looked at again."""
        self.access = access

    def count(self, size: int, stalled_by: object) -> None:
        """Count `size` bytes in the pool, and set a deadline for what it waits for."""
        if size != self._size:
            self._server.pool.change(self.payer, size - self._size)
            self._size = size
        if stalled_by != self._stalled_by:
            self._stalled_by = stalled_by
            self.payer.stalled.pop(self, None)
            if stalled_by is not None:
                self.payer.stalled[self] = boot()

    def move(self, payer: Payer) -> None:
        """Let another payer pay for it from now on."""
        size, stalled_by = self._size, self._stalled_by
        self.count(0, None)
        self.payer = payer
        self.count(size, stalled_by)

    def _read(self) -> None:
        self.is_new = False
        try:
            data = self._receive() if self._may_bring else self._stream.recv(self._read_size)
        except BlockingIOError:
            self._readable = False
            return
        except ConnectionError:
            self.close()
            return
        if len(data) < self._read_size:
            self._readable = self._hung_up and bool(data)
            self._read_size = _READ_FIRST
        else:
            self._read_size = _READ_MORE
        if not data:
            self.state = FINISHED
            return
        self._more = True
        self._decoder.feed(data)

    def _receive(self) -> bytes:
        """What was sent, where descriptors may come with it. Raises `ProtocolError` if some do."""
        data, passed = passing.receive(self._stream, self._read_size)
        if passed:
            self._server.closer.close_passed(passed)
            raise ProtocolError("it passed descriptors")
        return data

    def _handle(self, reading: clock.Reading, end: float) -> None:
        for _ in range(MESSAGES_AT_ONCE):
            if not self._waiting:
                self._waiting = self._decoder.some()
                if not self._waiting:
                    self._more = False
                    return
                self._waiting.reverse()
            message = self._waiting.pop()
            if isinstance(message, messages.Request):
                self._server.handle(self, message, reading)
            if self.has_long or self.has_work or boot() > end:
                return

    def _send(self) -> None:
        try:
            sent = self._stream.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:  # there is nobody to write to
            self.close()
            return
        self._unsent = memoryview(self._unsent)[sent:] if sent < len(self._unsent) else b""

    def _send_rest(self) -> None:
        """Send what the kernel had no room for, and have the answers behind it leave."""
        self._send()
        if self._out and not self._unsent:
            self._server.has_answers(self)

    def _settle(self) -> bool:
        """Close it if nothing is left to be done, or count what it holds; True if there is more to do now."""
        if self.state == CLOSED:
            return False
        if not self._unsent:
            if self.has_long and not self._out:
                self._server.long_answer_is_taken(self)
            if not self._out and (self.state == ENDING or (self.state == FINISHED and not self._more)):
                self.close()
                return False
        partial = self._decoder.partial
        if self._size or self._unsent or partial or self._waiting:
            self._count(partial=partial)
        return not self._unsent and not self._held and (self._more or (self._readable and self.state == OPEN))

    def _count(self, *, partial: bool) -> None:
        size = self._decoder.held + _FOUND_SIZE * len(self._waiting)
        if not self.has_long:
            size += len(self._unsent)
        stalled_by: object = None
        if self._unsent:
            stalled_by = "reader"
        elif partial and not self._more:
            stalled_by = self._decoder.count  # another message has another deadline
        self.count(size, stalled_by)
        self._server.makes_room(self)

    def _violation(self, error: ProtocolError) -> None:
        self._server.violated(self, error)
        if error.msgid is not None:
            message = ["bad_request", f"bad_request: {error}"]
            self.add(messages.encode_response(error.msgid, message, None))
        self.end()

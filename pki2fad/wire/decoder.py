"""Finds the messages in a stream of bytes, whatever the peer sends.

msgpack's Unpacker alone is not safe against a hostile peer. Its buffer limit does not bound a message that
drips in. A short message may announce containers of gigabytes. After an error it reads the rest of a bad
message as messages. So the end of a message is found without making anything of it, it is bounded here, and
the first error ends the stream.
"""

from msgpack._cmsgpack import Unpacker
from msgpack.exceptions import OutOfData

from pki2fad.errors import ProtocolError
from pki2fad.wire import build
from pki2fad.wire.messages import REQUEST, REQUEST_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pki2fad.wire.build import Message

# Bytes that the scanner is fed at a time: its buffer has room for twice what it holds then.
_FEED = 4 * 1024

# Bytes that are scanned anew when more of a half message comes: that takes less time than to receive it. What
# comes behind is one long string. So few half requests need a scanner, which takes more memory than they do.
_SCANNED_AGAIN = 8 * 1024

# How the array of 3 or 4 elements that every message is can begin.
_BEGINNINGS = (b"\x93", b"\x94", b"\xdc\0\3", b"\xdc\0\4", b"\xdd\0\0\0\3", b"\xdd\0\0\0\4")
_HEADER_END = 5

_requests = build.Several(REQUEST)  # of all connections: nothing stays in it


class Decoder:
    """Finds the messages of one kind, `REQUEST` or `RESPONSE`, in a stream of bytes.

    Objects are made of whole messages only: half ones stay bytes, since a few bytes can announce
    containers that take a thousand times the memory. After a `ProtocolError` the stream is at an
    unknown place: the decoder must not be used again.
    """

    __slots__ = (
        "_buffer",
        "_kind",
        "_limit",
        "_raw",
        "_scanned",
        "_scanner",
        "_several",
        "_singly",
        "_start",
        "count",
    )

    def __init__(self, kind: int, limit: int) -> None:
        self._kind = kind
        self._limit = limit
        self._several = _requests if kind == REQUEST else build.Several(kind)  # clients may have threads
        self.count = 0  # messages found so far
        self._raw = bytearray()  # what was received, from the start of the message that is being read
        self._singly = 0  # bytes of it in which messages are looked for one by one
        self._scanner: Any = None  # finds where a message ends, and makes nothing of it; None if not needed
        self._scanned = 0  # bytes of the message that the scanner was fed
        self._start = 0  # where that message begins, as the scanner counts
        self._buffer = 0  # bytes that the scanner's buffer has room for, at most

    @property
    def partial(self) -> bool:
        """True while something was received of which no message was made yet."""
        return bool(self._raw)

    @property
    def held(self) -> int:
        """Bytes of memory that are held for what is not read yet, at most."""
        scanner = 0 if self._scanner is None else Unpacker.__basicsize__ + self._buffer
        return (self._raw.__alloc__() if self._raw else 0) + scanner

    def feed(self, data: bytes) -> None:
        """Take what was received. `some` has to be called until it gives nothing, or `next` until None."""
        self._singly = len(self._raw)  # nothing is built in vain of a message that drips in
        self._raw += data

    def some(self, data: bytes = b"", most: int = build.SEVERAL) -> "list[Message]":
        """The next whole messages, at most so many; none until more is fed. `PASSED` is one of another kind.

        `data` are fed before. Raises `ProtocolError` where the first is no message, or one that is too long.
        """
        if data and not self._raw and len(data) <= build.AT_ONCE:
            found, length = self._several.build(data, most)
            if length == len(data):  # as nearly always: nothing is kept
                self.count += len(found)
                return found
            self._raw += data
            if len(found) < most:
                self._singly = len(data)
            if found:
                self._let_go(length, len(found))
                return found
        elif data:
            self.feed(data)
        if self._singly <= 0 and self._raw:
            few = self._raw if len(self._raw) <= build.AT_ONCE else self._raw[: build.AT_ONCE]
            found, length = self._several.build(few, most)
            if len(found) < most:
                self._singly = len(few)  # what is left of them is not whole, or not usual
            if found:
                self._let_go(length, len(found))
                self._scanner = None
                return found
        message = self._single()
        return [] if message is None else [message]

    def next(self) -> "Message | None":
        """The same for one message; None until more is fed."""
        found = self.some(most=1)
        return found[0] if found else None

    def _single(self) -> "Message | None":
        """The next message, in whatever way it is written, if it is whole."""
        if not self._raw:
            return None
        length = self._find_end()
        if length is None:
            return None
        self._check_length(length)
        try:
            found = build.one(self._raw[:length], self._kind)
        except ValueError as error:
            raise self._violation(str(error)) from error
        self._let_go(length, 1)
        return found

    def _find_end(self) -> int | None:
        """The length of the first message, None unless it is whole."""
        if self._scanner is None:
            self._buffer = 2 * _FEED
            self._scanner = Unpacker(read_size=self._buffer, max_buffer_size=self._limit + 2 * _FEED)
            self._scanned = self._start = 0
        while True:
            try:
                self._scanner.skip()
            except OutOfData:
                if not self._feed_scanner():
                    return None
            except Exception as error:  # whatever it was, the scanner is at an unknown place now
                raise self._violation("not MessagePack, or nested too deep") from error
            else:
                return int(self._scanner.tell()) - self._start

    def _feed_scanner(self) -> bool:
        """Feed it what it has not seen, if there is something."""
        self._check_length(self._scanned)
        passed = self._scanner.tell() - self._start
        chunk = self._raw[self._scanned : self._scanned + _FEED]
        if chunk:
            self._scanner.feed(chunk)
            self._scanned += len(chunk)
            self._buffer = max(self._buffer, 2 * (self._scanned - passed))
            return True
        if not _may_begin(bytes(self._raw[:_HEADER_END])):
            raise self._violation("neither request, response nor notification")
        if passed <= _SCANNED_AGAIN and self._scanned <= REQUEST_LIMIT:
            self._scanner = None
        return False

    def _let_go(self, length: int, count: int) -> None:
        """Forget the bytes of messages that were found."""
        del self._raw[:length]
        self._singly -= length
        self._scanned -= length
        self._start += length
        self.count += count
        if not self._raw:
            self._scanner = None

    def _check_length(self, length: int) -> None:
        if length > self._limit:
            raise self._violation(f"a message is longer than {self._limit} bytes")

    def _violation(self, text: str) -> ProtocolError:
        return build.violation(self._raw, self._kind, text)


def _may_begin(header: bytes) -> bool:
    """True if this can be the first bytes of a message: then it is worth waiting for the others."""
    return any(header.startswith(begin) or begin.startswith(header) for begin in _BEGINNINGS)

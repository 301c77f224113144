"""MessagePack-RPC without input or output: bytes in, messages out, and back.

The messages are those of the MessagePack-RPC specification, with the narrowing of PROTOCOL.md. This
is the only module that uses msgpack, and it is on the client's path.

msgpack's Unpacker alone is not safe against a hostile peer: its buffer limit bounds neither a message
that drips in nor permits a long pipeline, a short message may announce containers of gigabytes, and
after an error it reads the rest of the bad message as messages. So the end of a message is found
without making anything of it, it is bounded here, and the first exception ends the stream.
"""

from msgpack._cmsgpack import Packer, Unpacker, unpackb  # the C one: its pure-Python fallback is too slow
from msgpack.exceptions import OutOfData

from pki2fad.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
_LENGTHS = {REQUEST: 4, RESPONSE: 4, NOTIFICATION: 3}

# The largest request is a batch of 200 accounts: 55 KiB with the longest names and seeds, and the largest RSA
# key in sight. 64 KiB leave room for what a foreign client announces of itself, and bound what a connection
# can occupy.
REQUEST_LIMIT = 64 * 1024

# What is longer than a request, a backup, comes in parts of at most so many bytes.
PART_LIMIT = 48 * 1024

# A response is as long as the list of accounts: about 90 bytes each, so a million fit. A backup has about
# 210 for each, so half a million fit.
RESPONSE_LIMIT = 128 * 1024 * 1024

# Fed at most so much at a time, then drained, so that its buffer stays bounded.
_FEED = 64 * 1024

# Buffers of a connection that once had more than this (bytes) are given back when it is idle.
_SMALL = 8 * 1024

# Most messages are shorter (bytes) and arrive whole: they are tried at once, without looking for their end.
_SHORT = 256

_NOTIFICATION_START = b"\x93\x02"
# How the array of 3 or 4 elements that every message is can begin.
_BEGINNINGS = (b"\x93", b"\x94", b"\xdc\0\3", b"\xdc\0\4", b"\xdd\0\0\0\3", b"\xdd\0\0\0\4")
_HEADER_END = 5
_MSGID_END = 32  # bytes: array header, kind and msgid in their longest forms are far shorter

_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})

_pack = Packer(unicode_errors="surrogateescape").pack


class Request:
    """One call: `args` maps names to scalars, or is None where it was no such map.

    `account` is the one that it is about, for the log, as soon as that is known.
    """

    __slots__ = ("account", "args", "method", "msgid")

    def __init__(self, msgid: int, method: str, args: "dict[str, Any] | None") -> None:
        self.msgid = msgid
        self.method = method
        self.args = args
        self.account: str | None = None

    def __repr__(self) -> str:
        return f"Request(msgid={self.msgid}, method={self.method!a})"  # arguments may be codes


class Response:
    """One answer: `error` is None, or what the peer sent in its place."""

    __slots__ = ("error", "msgid", "result")

    def __init__(self, msgid: int, error: "Any", result: "Any") -> None:
        self.msgid = msgid
        self.error = error
        self.result = result

    def __repr__(self) -> str:
        return f"Response(msgid={self.msgid})"  # results may be codes


def encode_request(msgid: int, method: str, args: "dict[str, Any]") -> bytes:
    """The bytes of a request."""
    return _pack([REQUEST, msgid, method, [args]])  # type: ignore[no-any-return]  # msgpack has no types


def encode_response(msgid: int, error: "list[Any] | None", result: "Any") -> bytes:
    """The bytes of a response; `error` is None or `[code, message]` or `[code, message, retry_after]`."""
    return _pack([RESPONSE, msgid, error, result])  # type: ignore[no-any-return]


class Passed:
    """In the place of a well-formed message that nobody here waits for."""


PASSED = Passed()


class Decoder:
    """Finds the messages of one kind, `REQUEST` or `RESPONSE`, in a stream of bytes.

    Objects are made of whole messages only: half ones stay bytes, since a few bytes can announce
    containers that take a thousand times the memory. After a `ProtocolError` the stream is at an
    unknown place: the decoder must not be used again.
    """

    def __init__(self, kind: int, limit: int) -> None:
        self._kind = kind
        self._limit = limit
        self.count = 0  # messages found so far
        self._raw = bytearray()  # what was received, from the start of the message that is being read
        self._scanned = 0  # of it, how much the scanner was fed
        self._scanner = self._new_scanner()  # finds where a message ends, and makes nothing of it
        self._start = 0  # where that message begins, as the scanner counts
        self._large = False  # buffers have grown

    @property
    def partial(self) -> bool:
        """True while something was received of which no message was made yet."""
        return bool(self._raw)

    def feed(self, data: bytes) -> None:
        """Take what was received. `next` has to be called until it returns None."""
        self._raw += data
        if len(self._raw) > _SMALL:
            self._large = True

    def next(self) -> "Request | Response | Passed | None":
        """The next whole message, `PASSED` for one that is of another kind, or None until more is fed.

        Raises `ProtocolError` when what was fed is no message, or one that is too long.
        """
        if not self._raw and not self._large:
            return None
        if self._scanned == 0 and 0 < len(self._raw) <= _SHORT:
            message = self._take_short()
            if message is not None:
                return message
        while True:
            try:
                self._scanner.skip()
            except OutOfData:
                if not self._feed_scanner():
                    return None
            except Exception as error:  # whatever it was, the scanner is at an unknown place now
                raise self._violation("not MessagePack, or nested too deep") from error
            else:
                return self._take(self._scanner.tell() - self._start)

    def _feed_scanner(self) -> bool:
        """Feed it what it has not seen, if there is something."""
        self._check_length(self._scanned)
        if self._scanned < len(self._raw):
            chunk = self._raw[self._scanned : self._scanned + _FEED]
            self._scanner.feed(chunk)
            self._scanned += len(chunk)
            return True
        if self._raw and not _may_begin(bytes(self._raw[:_HEADER_END])):
            raise self._violation("neither request, response nor notification")
        if self._large and not self._raw:  # give the memory back
            self._raw, self._scanner, self._start, self._large = bytearray(), self._new_scanner(), 0, False
        return False

    def _take_short(self) -> "Request | Response | Passed | None":
        """The message, if a short one was received as a whole and nothing else, as most are; else None.

        What is short announces nothing large in vain for long: half a message is forgotten at once.
        """
        try:
            elements = _unpack(self._raw)
        except Exception:  # half a message, or more than one, or none: that is found out in the other way
            return None
        if self._raw.startswith(_NOTIFICATION_START):
            return None
        message = self._message(elements)
        self._raw.clear()
        self.count += 1
        return message

    def _take(self, length: int) -> "Request | Response | Passed":
        self._check_length(length)
        raw = self._raw[:length]
        try:
            # Notifications are not looked into: they may hold whatever they like.
            message = PASSED if raw.startswith(_NOTIFICATION_START) else self._message(_unpack(raw))
        except ProtocolError:
            raise
        except Exception as error:  # an extension that is not what it says, say
            raise self._violation("not MessagePack") from error
        del self._raw[:length]
        self._scanned -= length
        self._start += length
        self.count += 1
        return message

    def _message(self, elements: "Any") -> "Request | Response | Passed":
        if type(elements) is not list or not elements or type(elements[0]) is not int:
            raise self._violation("neither request, response nor notification")
        if _LENGTHS.get(elements[0]) != len(elements):
            raise self._violation("neither request, response nor notification")
        kind, msgid, third, fourth = elements[0], elements[1], elements[2], elements[-1]
        if kind != self._kind:
            return PASSED
        if not _is_msgid(msgid):
            raise self._violation("the msgid is not an unsigned 32-bit integer")
        if kind == RESPONSE:
            return Response(msgid, _plain(third), _plain(fourth))
        if type(third) is not str:
            raise self._violation("the method is not a string")
        return Request(msgid, third, _named(fourth))

    def _check_length(self, length: int) -> None:
        if length > self._limit:
            raise self._violation(f"a message is longer than {self._limit} bytes")

    def _violation(self, message: str) -> ProtocolError:
        """The error, with the msgid of the request that is being read if that can be told."""
        reader = Unpacker()
        reader.feed(bytes(self._raw[:_MSGID_END]))
        try:
            length, kind, msgid = reader.read_array_header(), reader.unpack(), reader.unpack()
        except Exception:  # there is none
            return ProtocolError(message)
        known = type(kind) is int and (kind, length) == (self._kind, 4) and _is_msgid(msgid)
        return ProtocolError(message, msgid if known else None)

    def _new_scanner(self) -> "Any":
        return Unpacker(
            read_size=4096,  # its first buffer: it grows where a message needs it
            max_buffer_size=self._limit + 2 * _FEED,
        )


def _may_begin(header: bytes) -> bool:
    """True if this can be the first bytes of a message: then it is worth waiting for the others."""
    return any(header.startswith(begin) or begin.startswith(header) for begin in _BEGINNINGS)


def _is_msgid(value: "Any") -> bool:
    return type(value) is int and 0 <= value < 2**32


def _unpack(raw: bytearray) -> "Any":
    """The objects in one whole message; a map is a tuple of pairs, which keeps duplicates."""
    return unpackb(raw, strict_map_key=False, unicode_errors="surrogateescape", object_pairs_hook=tuple)


def _plain(value: "Any") -> "Any":
    """A result with its maps as dicts."""
    if type(value) is tuple:
        return {name: _plain(entry) for name, entry in value}
    if type(value) is list:
        return [_plain(entry) for entry in value]
    return value


def _named(params: "Any") -> "dict[str, Any] | None":
    """The arguments as a dict; None unless they are one map of scalars with distinct string names."""
    if type(params) is not list or len(params) > 1:
        return None
    if not params or params[0] is None:
        return {}
    pairs = params[0]
    if type(pairs) is not tuple:
        return None
    named = {name: value for name, value in pairs if type(name) is str and type(value) in _SCALARS}
    return named if len(named) == len(pairs) else None

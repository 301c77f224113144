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

from pki2fad.errors import BadRequest, ProtocolError
from pki2fad.wire import arguments

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

# Bytes that the scanner is fed at a time: its buffer has room for twice what it holds then.
_FEED = 4 * 1024

# Bytes that are scanned anew when more of a half message comes: that takes less time than to receive it. What
# comes behind is one long string. So few half requests need a scanner, which takes more memory than they do.
_SCANNED_AGAIN = 8 * 1024

# Most messages are shorter (bytes), and so little is built at once, whatever it is.
_SHORT = 256

# How the three kinds begin, as nearly all peers encode them.
_USUAL = {REQUEST: b"\x94\0", RESPONSE: b"\x94\1", NOTIFICATION: b"\x93\2"}
# How the array of 3 or 4 elements that every message is can begin.
_BEGINNINGS = (b"\x93", b"\x94", b"\xdc\0\3", b"\xdc\0\4", b"\xdd\0\0\0\3", b"\xdd\0\0\0\4")
_HEADER_END = 5
_MSGID_END = 32  # bytes: array header, kind and msgid in their longest forms are far shorter

_packer = Packer(unicode_errors="surrogateescape")
_pack = _packer.pack


class Request:
    """One call: `args` maps names to scalars, or is None where `fault` says what is wrong with the request.

    `account` is the one that it is about, for the log, as soon as that is known.
    """

    __slots__ = ("account", "args", "fault", "method", "msgid")

    def __init__(self, msgid: int, method: str, args: "dict[str, Any] | None", fault: str = "") -> None:
        self.msgid = msgid
        self.method = method
        self.args = args
        self.fault = fault
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


class Encoded:
    """A result that is encoded already, in parts: to encode it, or to join them, at once would take long."""

    __slots__ = ("parts",)

    def __init__(self, parts: "list[bytes]") -> None:
        self.parts = parts


def encode(value: "Any") -> bytes:
    """A part of a result."""
    return _pack(value)  # type: ignore[no-any-return]


def encode_list_start(count: int) -> bytes:
    """What stands before the elements of a list."""
    return _packer.pack_array_header(count)  # type: ignore[no-any-return]


def encode_map_start(count: int) -> bytes:
    """What stands before the names and values of a map."""
    return _packer.pack_map_header(count)  # type: ignore[no-any-return]


def encode_bytes_start(size: int) -> bytes:
    """What stands before a string of `size` bytes."""
    return b"\xc6" + size.to_bytes(4, "big")


def encode_encoded(msgid: int, result: Encoded) -> "list[bytes]":
    """The response with a result that is encoded already, in parts."""
    return [encode_list_start(4) + _pack(RESPONSE) + _pack(msgid) + _pack(None), *result.parts]


class Passed:
    """In the place of a well-formed message that nobody here waits for."""


PASSED = Passed()


class Decoder:
    """Finds the messages of one kind, `REQUEST` or `RESPONSE`, in a stream of bytes.

    Objects are made of whole messages only: half ones stay bytes, since a few bytes can announce
    containers that take a thousand times the memory. After a `ProtocolError` the stream is at an
    unknown place: the decoder must not be used again.
    """

    __slots__ = ("_buffer", "_kind", "_limit", "_raw", "_scanned", "_scanner", "_start", "_usual", "count")

    def __init__(self, kind: int, limit: int) -> None:
        self._kind = kind
        self._usual = _USUAL[kind]
        self._limit = limit
        self.count = 0  # messages found so far
        self._raw = bytearray()  # what was received, from the start of the message that is being read
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
        return self._raw.__alloc__() + scanner

    def feed(self, data: bytes) -> None:
        """Take what was received. `next` has to be called until it returns None."""
        self._raw += data

    def next(self) -> "Request | Response | Passed | None":
        """The next whole message, `PASSED` for one that is of another kind, or None until more is fed.

        Raises `ProtocolError` when what was fed is no message, or one that is too long.
        """
        if not self._raw:
            return None
        if self._scanner is None and len(self._raw) <= _SHORT and self._raw.startswith(self._usual):
            try:
                elements = _unpack(self._raw)
            except Exception:  # noqa: S110 - half a message, or several, or none: that is found out below
                pass
            else:  # a short message was received as a whole and nothing else, as most are
                return self._took(len(self._raw), self._message(elements))
        length = self._find_end()
        if length is None:
            return None
        self._check_length(length)
        return self._took(length, self._read(self._raw[:length]))

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

    def _took(self, length: int, message: "Request | Response | Passed") -> "Request | Response | Passed":
        """The message, which is let go of."""
        del self._raw[:length]
        self._scanned -= length
        self._start += length
        self.count += 1
        if not self._raw:
            self._scanner = None
        return message

    def _read(self, raw: bytearray) -> "Request | Response | Passed":
        """What a whole message is. Those of another kind may hold whatever they like: it is not built."""
        try:
            if not raw.startswith(self._usual) and _kind(raw) != self._kind:
                return PASSED
            elements = _unpack(raw) if self._kind == RESPONSE or len(raw) <= _SHORT else _elements(raw)
        except Exception as error:  # an extension that is not what it says, for example
            raise self._violation("neither request, response nor notification") from error
        return self._message(elements)

    def _message(self, elements: "list[Any]") -> "Request | Response":
        msgid = arguments.msgid(elements[1])
        if msgid is None:
            raise self._violation("the msgid is not an unsigned 32-bit integer")
        if self._kind == RESPONSE:
            return Response(msgid, _plain(elements[2]), _plain(elements[3]))
        method = arguments.text(elements[2])
        if type(method) is not str:
            raise self._violation("the method is not a string")
        if type(elements[1]) is float:
            return Request(msgid, method, None, "the msgid is an integer, and never a float")
        try:
            return Request(msgid, method, arguments.named(elements[3]))
        except BadRequest as error:
            return Request(msgid, method, None, str(error))

    def _check_length(self, length: int) -> None:
        if length > self._limit:
            raise self._violation(f"a message is longer than {self._limit} bytes")

    def _violation(self, message: str) -> ProtocolError:
        """The error, with the msgid of the request that is being read if that can be told."""
        try:
            reader = _reader(self._raw[:_MSGID_END])
            length, kind, msgid = reader.read_array_header(), reader.unpack(), reader.unpack()
        except Exception:  # there is none
            return ProtocolError(message)
        known = type(kind) is int and (kind, length) == (self._kind, 4)
        return ProtocolError(message, arguments.msgid(msgid) if known else None)


def _may_begin(header: bytes) -> bool:
    """True if this can be the first bytes of a message: then it is worth waiting for the others."""
    return any(header.startswith(begin) or begin.startswith(header) for begin in _BEGINNINGS)


def _unpack(raw: bytearray) -> "Any":
    """The objects in one whole message; a map is a tuple of pairs, which keeps duplicates."""
    return unpackb(raw, strict_map_key=False, unicode_errors="surrogateescape", object_pairs_hook=tuple)


def _reader(raw: bytearray) -> "Any":
    """Reads objects one by one, and raises ValueError for a container that is not empty."""
    size = len(raw)
    limits = {"max_array_len": 0, "max_map_len": 0, "max_buffer_size": size, "read_size": size}
    reader = Unpacker(strict_map_key=False, unicode_errors="surrogateescape", **limits)
    reader.feed(raw)
    return reader


def _kind(raw: bytearray) -> int:
    """The kind of a message in whatever encoding. Raises ValueError if it is none."""
    if raw.startswith(_USUAL[NOTIFICATION]):
        return NOTIFICATION
    reader = _reader(raw[:_MSGID_END])
    length, kind = reader.read_array_header(), reader.unpack()
    if type(kind) is not int or _LENGTHS.get(kind) != length:
        raise ValueError("there is no such kind of message")
    return kind


def _elements(raw: bytearray) -> "list[Any]":
    """What `_unpack` makes of a long request, with None for arguments that no method takes."""
    reader = _reader(raw)
    reader.read_array_header()
    elements = [reader.unpack() for _ in range(3)]
    try:
        one, size = reader.read_array_header(), reader.read_map_header()
        fits = one == 1 and size <= arguments.MOST
        elements.append([tuple([(reader.unpack(), reader.unpack()) for _ in range(size)])] if fits else None)
    except Exception:  # something else, or a container in it
        elements.append(None)
    return elements


def _plain(value: "Any") -> "Any":
    """A result with its maps as dicts."""
    if type(value) is tuple:
        return {name: _plain(entry) for name, entry in value}
    if type(value) is list:
        return [_plain(entry) for entry in value]
    return value

"""Builds messages from bytes that hold whole ones, and bounds what is built.

Two ways lead to the same messages: `Several` builds many at once, which is fast, and `one` takes whatever
comes. What is not usual is left to `one`.
"""

from itertools import islice

from msgpack._cmsgpack import Unpacker, unpackb  # the C one: its pure-Python fallback is too slow

from pki2fad.errors import BadRequest, ProtocolError
from pki2fad.wire import arguments
from pki2fad.wire.messages import NOTIFICATION, REQUEST, RESPONSE, Request, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Messages that are built at once.
SEVERAL = 16

# Bytes of which they are built. What is built takes some eighty times the memory at the worst, and little
# of it is kept.
AT_ONCE = 4 * 1024

# A request that is longer (bytes) is built piece by piece, and of arguments that no method takes nothing is.
_SHORT = 256

_LENGTHS = {REQUEST: 4, RESPONSE: 4, NOTIFICATION: 3}
# How the three kinds begin, as nearly all peers encode them.
_USUAL = {REQUEST: b"\x94\0", RESPONSE: b"\x94\1", NOTIFICATION: b"\x93\2"}
_MSGID_END = 32  # bytes: array header, kind and msgid in their longest forms are far shorter

_NIL = b"\xc0"

# A map is a tuple of pairs, which keeps duplicates.
_OPTIONS = {"strict_map_key": False, "unicode_errors": "surrogateescape", "object_pairs_hook": tuple}


class Passed:
    """In the place of a well-formed message that nobody here waits for."""


PASSED = Passed()

Message = Request | Response | Passed


class Several:
    """Builds the messages at the start of some bytes, `SEVERAL` at the most.

    It ends before a message that is not whole, is none, or has a container with more elements than a method
    takes. Then `one` takes it.
    """

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._unpacker: Any = None  # that has nothing left of the last time, if there is one

    def build(self, data: "bytes | bytearray", most: int = SEVERAL) -> "tuple[list[Message], int]":
        """The messages, `most` of them, and how many bytes they are; `data` are `AT_ONCE` at the most."""
        unpacker, self._unpacker = self._unpacker or _limited(), None
        before = unpacker.tell()
        try:
            unpacker.feed(data)
            elements = list(islice(unpacker, most))
        except Exception:  # the good ones before it are lost
            return [], 0
        if len(elements) == most:
            length = unpacker.tell() - before
        else:
            length = len(data) if _is_done(unpacker) else _end(data, len(elements))
        if length == len(data):
            self._unpacker = unpacker
        found: list[Message] = []
        for one in elements:
            try:
                found.append(message(one, self._kind))
            except ValueError:
                return found, _end(data, len(found))
        return found, length


def one(raw: bytearray, kind: int) -> "Message":
    """What a whole message is. Raises `ValueError` if it is none.

    Those of another kind may hold whatever they like: it is not built.
    """
    try:
        if not raw.startswith(_USUAL[kind]) and _kind(raw) != kind:
            return PASSED
        elements = unpacked(raw) if kind == RESPONSE or len(raw) <= _SHORT else _pieces(raw)
    except Exception as error:  # an extension that is not what it says, for example
        raise ValueError("neither request, response nor notification") from error
    return message(elements, kind)


def unpacked(raw: "bytes | bytearray") -> "Any":
    """The objects in one whole message. Raises whatever msgpack does."""
    return unpackb(raw, **_OPTIONS)


def message(elements: "Any", kind: int) -> "Message":
    """The message of these elements. Raises `ValueError` if it is none."""
    if type(elements) is not list or not elements or type(elements[0]) is not int:
        raise ValueError("neither request, response nor notification")
    if elements[0] != kind or len(elements) != 4:
        if _LENGTHS.get(elements[0]) != len(elements):
            raise ValueError("neither request, response nor notification")
        return PASSED
    _, given, method, params = elements
    msgid = arguments.msgid(given)
    if msgid is None:
        raise ValueError("the msgid is not an unsigned 32-bit integer")
    if kind == RESPONSE:
        return Response(msgid, _plain(method), _plain(params))
    if type(method) is not str:
        method = arguments.text(method)
        if type(method) is not str:
            raise ValueError("the method is not a string")
    if type(given) is float:
        return Request(msgid, method, None, "the msgid is an integer, and never a float")
    try:
        return Request(msgid, method, arguments.named(params))
    except BadRequest as error:
        return Request(msgid, method, None, str(error))


def violation(raw: bytearray, kind: int, text: str) -> ProtocolError:
    """The error, with the msgid of the message at the start of `raw` if that can be told."""
    try:
        reader = _reader(raw[:_MSGID_END])
        length, of, msgid = reader.read_array_header(), reader.unpack(), reader.unpack()
    except Exception:  # there is none
        return ProtocolError(text)
    known = type(of) is int and (of, length) == (kind, 4)
    return ProtocolError(text, arguments.msgid(msgid) if known else None)


def _limited() -> "Any":
    limits = {"max_array_len": arguments.MOST, "max_map_len": arguments.MOST}
    return Unpacker(read_size=AT_ONCE + 1, max_buffer_size=AT_ONCE + 1, **_OPTIONS, **limits)


def _is_done(unpacker: "Any") -> bool:
    """True if nothing of a message is left in it: only then a nil that is fed comes out as one."""
    try:
        unpacker.feed(_NIL)
        return unpacker.unpack() is None
    except Exception:  # half a message, also with the nil, or none
        return False


def _end(data: "bytes | bytearray", count: int) -> int:
    """Where a number of objects ends."""
    scanner = Unpacker(read_size=AT_ONCE, max_buffer_size=AT_ONCE)
    scanner.feed(data)
    for _ in range(count):
        scanner.skip()
    return int(scanner.tell()) if count else 0


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


def _pieces(raw: bytearray) -> "list[Any]":
    """The elements of a long request, with None for arguments that no method takes."""
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

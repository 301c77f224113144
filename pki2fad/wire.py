"""MessagePack-RPC without input or output: bytes in, messages out, and back.

The messages are those of the MessagePack-RPC specification, with the narrowing of PROTOCOL.md. This
is the only module that uses msgpack, and it is on the client's path.

msgpack's Unpacker alone is not safe against a hostile peer: its buffer limit bounds neither a message
that drips in nor permits a long pipeline, a short message may announce containers of gigabytes, and
after an error it reads the rest of the bad message as messages. So a message is decoded element by
element, bounded here, and the first exception of the Unpacker ends the stream.
"""

from msgpack._cmsgpack import Packer, Unpacker  # the C one: its pure-Python fallback is too slow
from msgpack.exceptions import OutOfData

from pki2fad.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
_LENGTHS = {REQUEST: 4, RESPONSE: 4, NOTIFICATION: 3}

# The largest request is a load: a sealed seed of 2 KiB for the largest RSA key in sight. 64 KiB leave
# room for whatever a foreign client announces of itself, and bound what a connection can occupy.
REQUEST_LIMIT = 64 * 1024

# A response is as long as the list of accounts: about 90 bytes each, so a million fit.
RESPONSE_LIMIT = 128 * 1024 * 1024

# The Unpacker allocates a container as its header announces it, up to 1024 deep; 256 entries keep
# that at a few MiB for the worst message.
_CONTAINER_LIMIT = 256

# Fed at most so much at a time, then drained, so that its buffer stays bounded.
_FEED = 64 * 1024

_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})

_pack = Packer(unicode_errors="surrogateescape").pack


class Request:
    """One call: `args` maps names to scalars, or is None where it was no such map."""

    __slots__ = ("args", "method", "msgid")

    def __init__(self, msgid: int, method: str, args: "dict[str, Any] | None") -> None:
        self.msgid = msgid
        self.method = method
        self.args = args

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
    return _pack([REQUEST, msgid, method, [args]])  # type: ignore[no-any-return]


def encode_response(msgid: int, error: "list[Any] | None", result: "Any") -> bytes:
    """The bytes of a response; `error` is None or `[code, message]` or `[code, message, retry_after]`."""
    return _pack([RESPONSE, msgid, error, result])  # type: ignore[no-any-return]


class Decoder:
    """Finds the messages of one kind, `REQUEST` or `RESPONSE`, in a stream of bytes.

    Well-formed messages of the other kinds are read and passed over. After a `ProtocolError` the
    stream is at an unknown place: the decoder must not be used again.
    """

    def __init__(self, kind: int, limit: int) -> None:
        self._kind = kind
        self._limit = limit
        hostile = kind == REQUEST
        self._unpacker = Unpacker(
            read_size=4096,  # its first buffer: it grows where a message needs it
            max_buffer_size=limit + 2 * _FEED,
            max_array_len=_CONTAINER_LIMIT if hostile else limit,
            max_map_len=_CONTAINER_LIMIT if hostile else limit,
            max_str_len=limit,
            max_bin_len=limit,
            strict_map_key=False,
            unicode_errors="surrogateescape",
            object_pairs_hook=tuple if hostile else None,  # keeps duplicates, for us to refuse
        )
        self._pending = b""  # received, not yet fed
        self._fed = 0
        self._start = 0  # where the message that is being read begins, in bytes fed
        self._length = 0  # elements of that message, once its header is read
        self._elements: list[Any] = []

    @property
    def partial(self) -> bool:
        """True while the beginning of a message was received, and not its end."""
        return self._fed > self._start

    @property
    def position(self) -> int:
        """Where, in bytes, the message that is being read begins: it changes with each message."""
        return self._start

    def feed(self, data: bytes) -> None:
        """Take what was received. `next` has to be called until it returns None."""
        self._pending = self._pending + data if self._pending else data

    def next(self) -> "Any":
        """The next whole message, a `Request` or a `Response`, or None until more is fed.

        Raises `ProtocolError` when what was fed is no message, or one that is too long.
        """
        while True:
            try:
                message = self._read()
            except OutOfData:
                if not self._pending:
                    self._check_length(self._fed)
                    return None
                chunk, self._pending = self._pending[:_FEED], self._pending[_FEED:]
                self._check_length(self._fed)
                self._unpacker.feed(chunk)
                self._fed += len(chunk)
            except ProtocolError:
                raise
            except Exception as error:  # whatever it was, the Unpacker is at an unknown place now
                raise self._violation("not MessagePack, or nested or announced too large") from error
            else:
                if message is not None:
                    return message

    def _read(self) -> "Any":
        """Read elements until a message is whole; None if it is one to be passed over."""
        unpacker, elements = self._unpacker, self._elements
        if not self._length:
            self._length = unpacker.read_array_header()
            if self._length not in (3, 4):
                raise self._violation("neither request, response nor notification")
        while len(elements) < self._length:
            if elements and elements[0] != self._kind:
                unpacker.skip()
                elements.append(None)
            else:
                elements.append(unpacker.unpack())
                if len(elements) == 1:
                    self._check_header()
        end = unpacker.tell()
        self._check_length(end)
        message = self._message() if elements[0] == self._kind else None
        self._start, self._length, self._elements = end, 0, []
        return message

    def _message(self) -> "Request | Response":
        _, msgid, third, fourth = self._elements
        if self._msgid() is None:
            raise self._violation("the msgid is not an unsigned 32-bit integer")
        if self._kind == RESPONSE:
            return Response(msgid, third, fourth)
        if type(third) is not str:
            raise self._violation("the method is not a string")
        return Request(msgid, third, _named(fourth))

    def _check_header(self) -> None:
        kind = self._elements[0]
        if type(kind) is not int or _LENGTHS.get(kind) != self._length:
            raise self._violation("neither request, response nor notification")

    def _check_length(self, end: int) -> None:
        if end - self._start > self._limit:
            raise self._violation(f"a message is longer than {self._limit} bytes")

    def _msgid(self) -> int | None:
        elements = self._elements
        if len(elements) < 2 or elements[0] != self._kind:
            return None
        msgid = elements[1]
        return msgid if type(msgid) is int and 0 <= msgid < 2**32 else None

    def _violation(self, message: str) -> ProtocolError:
        return ProtocolError(message, self._msgid())


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

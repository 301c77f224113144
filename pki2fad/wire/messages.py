"""The messages of MessagePack-RPC, and their bytes.

They are those of the MessagePack-RPC specification, with the narrowing of PROTOCOL.md. This module is on the
client's path, and only `wire` uses msgpack.
"""

from msgpack._cmsgpack import Packer  # the C one: its pure-Python fallback is too slow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

# The largest request is a batch: it has at most 60 KiB. 64 KiB leave room for what a foreign client announces
# of itself, and bound what a connection can occupy.
REQUEST_LIMIT = 64 * 1024

# What is longer than a request, a backup, comes in parts of at most so many bytes.
PART_LIMIT = 48 * 1024

# A response is as long as the list of accounts: about 90 bytes each, so a million fit. A backup has about
# 210 for each, so half a million fit.
RESPONSE_LIMIT = 128 * 1024 * 1024

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

    def understand(self, args: "dict[str, Any]") -> None:
        """Hold the arguments as they were checked."""
        self.args, self.account = args, args.get("account")

    def concern(self, account: "str | None") -> None:
        """Note the account, where the arguments did not name it."""
        self.account = account

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


def encode_start(msgid: int) -> bytes:
    """What stands before a result that is encoded already."""
    return b"\x94\1" + _pack(msgid) + b"\xc0"  # type: ignore[no-any-return]


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

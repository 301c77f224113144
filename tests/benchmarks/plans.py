"""Plans: requests and the replies that have to come, byte for byte, in a file that `c/load.c` maps.

The replies are made here, from the protocols' descriptions, and not asked of the servers.
"""

import hashlib
import re
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import accounts
from msgpack import packb

from pki2fad.times import moment

_HEADER = struct.Struct("<8sIId")
_ENTRY = struct.Struct("<QQQII")

# What the C servers and their clients agree on (c/lookup.c).
_NAME, _CODE, _VERDICT = 24, 8, 8

_WILD = b"\xc1"  # stands for any byte, in a plan that is `wild`
RADIUS_SECRET = b"benchmark"


class Exchange(NamedTuple):
    """A request, its reply, and the reply from a turn of the step on, as long as the other."""

    request: bytes
    reply: bytes
    other: bytes = b""


class Asked(NamedTuple):
    """A verdict that is asked for: the number of the account, a code, and whether it is good."""

    number: int
    code: str
    valid: bool = False

    @property
    def name(self) -> str:
        return accounts.name(self.number)


def write(path: Path, exchanges: Sequence[Exchange], *, turn: float = 0.0, wild: bool = False) -> Path:
    """Write a plan. From the Unix time `turn` on, unless it is 0, the other replies are right."""
    at = _HEADER.size + len(exchanges) * _ENTRY.size
    table, content = bytearray(), bytearray()
    for request, reply, other in exchanges:
        if turn and len(other) != len(reply):
            raise ValueError("both replies have to be of one length")
        ends = at + len(request)
        table += _ENTRY.pack(at, ends, ends + len(reply), len(request), len(reply))
        content += request
        content += reply
        content += other
        at = ends + len(reply) + len(other)
    with path.open("wb") as file:
        file.write(_HEADER.pack(b"p2fplan1", len(exchanges), wild, turn))
        file.write(table)
        file.write(content)
    return path


def wrong(count: int) -> list[Asked]:
    """A wrong code for each account, in a random order."""
    codes = accounts.wrong_codes()
    return [Asked(number, codes[number % accounts.SEEDS]) for number in accounts.shuffled(count)]


def right(count: int, step: int) -> list[Asked]:
    """The code of a step for each account, in a random order."""
    codes = accounts.right_codes(step)
    return [Asked(number, codes[number % accounts.SEEDS], True) for number in accounts.shuffled(count)]


def verify(asked: Iterable[Asked]) -> list[Exchange]:
    """`verify` by PROTOCOL.md."""
    verdicts = [b"\xc0" + packb({"valid": valid}) for valid in (False, True)]
    return [
        Exchange(
            packb([0, msgid, "verify", [{"account": one.name, "code": one.code}]]),
            b"\x94\x01" + packb(msgid) + verdicts[one.valid],
        )
        for msgid, one in enumerate(asked)
    ]


def refused(asked: Iterable[Asked], retry_after: int) -> list[Exchange]:
    """`verify` by PROTOCOL.md of who has to wait about so many seconds; `write` them as `wild`."""
    until = moment(time.time() + retry_after)
    message = packb(f"throttled: there were too many wrong codes; try again at {until}")
    kind, *seconds = packb(retry_after)
    error = b"\x93" + packb("throttled") + re.sub(rb"[0-9]", _WILD, message)
    error += bytes([kind]) + _WILD * len(seconds) + b"\xc0"
    return [one._replace(reply=b"\x94\x01" + packb(msgid) + error) for msgid, one in enumerate(verify(asked))]


def any_code(count: int) -> list[Exchange]:
    """`generate` for each account, in a random order, and codes of any step; `write` them as `wild`."""
    reply = b"\xc0\x83" + packb("code") + b"\xa6" + _WILD * 6 + packb("valid_for") + _WILD + packb("step")
    return [
        Exchange(
            packb([0, msgid, "generate", [{"account": accounts.name(number)}]]),
            b"\x94\x01" + packb(msgid) + reply + b"\xce" + _WILD * 4,
        )
        for msgid, number in enumerate(accounts.shuffled(count))
    ]


def generate(count: int, step: int, *, other: bool = False) -> list[Exchange]:
    """`generate` in a step and the one after it, by PROTOCOL.md; `write` them as `wild`, with the turn.

    The `other` encoding has text as bin, as older MessagePack has it, and lengths in more bytes.
    """
    codes = [accounts.right_codes(step), accounts.right_codes(step + 1)]

    def reply(msgid: int, code: str, at: int) -> bytes:
        start = b"\x94\x01" + packb(msgid) + b"\xc0\x83" + packb("code") + packb(code)
        return b"".join((start, packb("valid_for"), _WILD, packb("step"), packb(at)))

    def request(msgid: int, name: str) -> bytes:
        if other:
            args = packb(b"account") + b"\xc5" + len(name).to_bytes(2, "big") + name.encode()
            return b"".join((b"\xdc\0\4\0", packb(msgid), packb(b"generate"), b"\x91\xde\0\1", args))
        return bytes(packb([0, msgid, "generate", [{"account": name}]]))

    return [
        Exchange(
            request(msgid, accounts.name(number)),
            reply(msgid, codes[0][number % accounts.SEEDS], step),
            reply(msgid, codes[1][number % accounts.SEEDS], step + 1),
        )
        for msgid, number in enumerate(accounts.shuffled(count))
    ]


def load(sealed: bytes, first: int, count: int) -> list[Exchange]:
    """`load` of the same sealed seed under so many names, by PROTOCOL.md."""
    names = [accounts.name(number) for number in range(first, first + count)]
    return [
        Exchange(
            packb([0, msgid, "load", [{"account": name, "sealed": sealed}]]),
            b"\x94\x01"
            + packb(msgid)
            + b"\xc0"
            + packb({"account": name, "changed": True, "authenticators": 1}),
        )
        for msgid, name in enumerate(names)
    ]


def load_batch(batches: Iterable[tuple[Sequence[str], bytes]]) -> list[Exchange]:
    """`load_batch` of batches with accounts of these names, of which none is there yet."""
    return [
        Exchange(
            packb([0, msgid, "load_batch", [{"batch": data}]]),
            b"\x94\x01" + packb(msgid) + b"\xc0" + packb({"accounts": len(names), "changed": [*names]}),
        )
        for msgid, (names, data) in enumerate(batches)
    ]


def echo(asked: Iterable[Asked]) -> list[Exchange]:
    """Messages of 40 bytes and the same again."""
    return [Exchange(_fixed(one), _fixed(one)) for one in asked]


def lookup(asked: Iterable[Asked]) -> list[Exchange]:
    """The same, answered with the verdict (c/lookup.c)."""
    return [
        Exchange(_fixed(one), _fixed(one)[: _NAME + _CODE] + bytes([one.valid]) + bytes(_VERDICT - 1))
        for one in asked
    ]


def lookup_table(asked: Iterable[Asked]) -> bytes:
    """The table of `lookup`: the codes that are good, which none of those asked for is."""
    return b"".join(
        one.name.encode().ljust(_NAME, b"\0") + one.code[::-1].encode().ljust(_CODE, b"X") for one in asked
    )


def redis_get(asked: Iterable[Asked]) -> list[Exchange]:
    """GET of a name that has a code, by the RESP protocol."""
    return [Exchange(_resp("GET", one.name), f"${len(one.code)}\r\n{one.code}\r\n".encode()) for one in asked]


def redis_fill(asked: Iterable[Asked]) -> list[Exchange]:
    """SET of the codes that `redis_get` asks for."""
    return [Exchange(_resp("SET", one.name, one.code), b"+OK\r\n") for one in asked]


def http(asked: Iterable[Asked], reply: bytes) -> list[Exchange]:
    """POST of the old service, on a connection that stays. `reply` is one that was looked at."""
    return [Exchange(http_request(one), reply) for one in asked]


def http_request(one: Asked) -> bytes:
    body = f'{{"account":"{one.name}","code":"{one.code}"}}'.encode()
    head = "POST /verify-2fa HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def radius(asked: Iterable[Asked]) -> list[Exchange]:
    """Access-Request and what answers it, Access-Accept or -Reject (RFC 2865 sections 3, 5.1 and 5.2)."""
    exchanges = []
    for number, one in enumerate(asked):
        authenticator = hashlib.md5(f"request {number}".encode()).digest()
        pad = hashlib.md5(RADIUS_SECRET + authenticator).digest()
        password = bytes(a ^ b for a, b in zip(one.code.encode().ljust(16, b"\0"), pad, strict=True))
        attributes = _attribute(1, one.name.encode()) + _attribute(2, password)
        request = struct.pack(">BBH", 1, number % 256, 20 + len(attributes)) + authenticator + attributes
        start = struct.pack(">BBH", 2 if one.valid else 3, number % 256, 20)
        exchanges.append(
            Exchange(request, start + hashlib.md5(start + authenticator + RADIUS_SECRET).digest())
        )
    return exchanges


def _attribute(kind: int, value: bytes) -> bytes:
    return bytes([kind, len(value) + 2]) + value


def _fixed(one: Asked) -> bytes:
    return one.name.encode().ljust(_NAME, b"\0") + one.code.encode().ljust(_CODE, b"\0") + bytes(_VERDICT)


def _resp(*words: str) -> bytes:
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(w)}\r\n{w}\r\n".encode() for w in words)

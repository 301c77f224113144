r"""Backups: the accounts under a master key of their own, which each named RSA key can open.

A backup is

    "pki2fad backup 1\n", 4 bytes: the length of the header (big-endian), the header, the content

The header is JSON, `{"slots": {FINGERPRINT: BASE64}}`: the backup's master key, wrapped for each key as
that of a state is (RSA-OAEP). The content is JSON, sealed by that master key (AES-256-GCM: 12 bytes of
nonce, the ciphertext, 16 bytes of tag) and bound to all that stands before it, so that no byte of a
backup can change unnoticed. Every seed in it is sealed by the master key once more, bound to its account,
so that nobody who reads a backup has more than one seed in memory.

A backup does not have what belongs to one state: the digests of removed seeds, the counted failures, and the
files of `seeds.d` that were applied.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from pki2fad.errors import BadRequest, BadSeal
from pki2fad.rules import otp
from pki2fad.rules.authenticator import DRIFTS
from pki2fad.rules.clock import Interval
from pki2fad.rules.pieces import Pieces, in_pieces
from pki2fad.transfer import entry
from pki2fad.transfer.entry import Entry
from pki2fad.wire import messages

if TYPE_CHECKING:  # master keys are passed in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

# A backup travels as one response. The rest, up to the limit of a response, is for the envelope and for about
# a hundred slots that are added later.
LIMIT = messages.RESPONSE_LIMIT
MADE_LIMIT = LIMIT - 256 * 1024

DAMAGED = "the backup is damaged or cut short"

_MAGIC = b"pki2fad backup 1\n"
_ANY_MAGIC = b"pki2fad backup "
_LENGTH_BYTES = 4

# The header is parsed before anything proves its origin. A slot takes at least 570 bytes: there is room for
# three times the keys of a request of 64 KiB, and for hundreds that are added later.
_LONGEST_HEADER = 256 * 1024
_MOST_SLOTS = _LONGEST_HEADER // 512
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")

_END_OF_TIME = 2**40  # steps and seconds; no clock gets there

_FINGERPRINTS_NAMED = 8  # in a message

# Bytes of the content to open and read at a time, and how many of these are one piece of work.
_TEXT = 64 * 1024
_TEXTS = 16

# The most characters of an account with white space around it, and of the text before and after all accounts.
_LONGEST_RECORD = 4096
_LONGEST_START = 4096
_LONGEST_REST = 64 * 1024

_ACCOUNTS = re.compile(rb'"accounts"\s*:\s*\[')
_SPACE = re.compile(r"[ \t\r\n]*")
_read = json.JSONDecoder().raw_decode
_dumps = partial(json.dumps, separators=(",", ":"))

_FIELDS = entry.FIELDS | {"last_step", "offset", "drift"}


@dataclass(frozen=True, slots=True)
class Record(Entry):
    """An account in a backup. Raises `ValueError` for impossible values."""

    last_step: int
    offset: int
    drift: bytes

    def __post_init__(self) -> None:
        Entry.__post_init__(self)  # not by `super()`, which does not find a class that has slots added
        _require(-1 <= self.last_step < _END_OF_TIME)
        _require(abs(self.offset) <= otp.MAX_OFFSET)
        _require(len(self.drift) <= DRIFTS)


class Content(NamedTuple):
    """The content of a backup."""

    created: int  # Unix time
    records: list[Record]
    floors: Mapping[int, int]  # Unix times before which codes may have been used, by period
    spent: Sequence[Interval]  # in which codes may have been used, when the clock was ahead


def pack(
    content: Content,
    slots: Mapping[str, bytes],
    master: "MasterKey",
    records: Iterable[Record] = (),
) -> Pieces[list[bytes]]:
    """Make a backup, in parts. `slots` has the master key, wrapped for each key, by the key's fingerprint.

    `records` are further accounts, perhaps from a generator. Raises `BadRequest` for more than `MADE_LIMIT`
    bytes.
    """
    start = _start(slots)
    sealer = master.sealer(start)
    parts = [start + sealer.start, sealer.add(f'{{"created":{content.created},"accounts":['.encode())]
    size, separator = 0, ""
    for some in in_pieces(chain(content.records, records)):
        text = separator + ",".join([_dumps(_to_json(record)) for record in some])
        parts.append(sealer.add(text.encode()))
        size, separator = size + len(text), ","
        if size > MADE_LIMIT:
            raise BadRequest("there are too many accounts for a backup")
        yield
    rest = f'],"floors":{_dumps([*content.floors.items()])},"spent":{_dumps(content.spent)}}}'
    parts.append(sealer.add(rest.encode()) + sealer.end())
    return parts


def unpack(data: bytes | bytearray, master: "MasterKey") -> Pieces[Content]:
    """The content of a backup. Raises `BadSeal` if a byte of it was changed."""
    _, start, sealed = _parts(data)
    try:
        opener = master.opener(sealed, start)
        texts: list[bytes] = []
        for some in in_pieces(opener.parts(_TEXT), _TEXTS):
            texts += some
            yield
        opener.end()
        return (yield from _content(texts))
    except (BadSeal, ValueError, KeyError, TypeError, RecursionError):
        raise BadSeal(DAMAGED) from None


def slot(data: bytes | bytearray, fingerprint: str) -> bytes:
    """The master key, wrapped for this key. Raises `BadSeal`, which names the keys that can open it."""
    slots, _, _ = _parts(data)
    if fingerprint not in slots:
        known = ", ".join([*slots][:_FINGERPRINTS_NAMED])
        raise BadSeal(f"this backup can be opened with the keys {known}, and not with {fingerprint}")
    return slots[fingerprint]


def with_slot(data: bytes, master: "MasterKey", fingerprint: str, wrapped: bytes) -> bytes:
    """The same backup with a slot for one more key. Raises `BadSeal`, and `BadRequest` if it has no room."""
    slots, start, sealed = _parts(data)
    try:
        with master.opened(bytes(sealed), start) as text:
            start = _start({**slots, fingerprint: wrapped})
            return start + master.seal(text, start)
    except BadSeal:
        raise BadSeal(DAMAGED) from None


def _start(slots: Mapping[str, bytes]) -> bytes:
    """Everything before the content. Raises `BadRequest` for too many slots."""
    header = json.dumps({"slots": {name: base64.b64encode(key).decode() for name, key in slots.items()}})
    if len(header) > _LONGEST_HEADER or len(slots) > _MOST_SLOTS:
        raise BadRequest("a backup has no room for that many keys")
    return _MAGIC + len(header).to_bytes(_LENGTH_BYTES, "big") + header.encode()


def _parts(data: bytes | bytearray) -> tuple[dict[str, bytes], bytes, memoryview]:
    """The slots, everything before the content, and the sealed content. Raises `BadSeal`."""
    if not data.startswith(_MAGIC):
        if data.startswith(_ANY_MAGIC):
            raise BadSeal("this backup is damaged, or of another version of pki2fad")
        raise BadSeal("this is not a backup of pki2fad")
    begin = len(_MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(data[len(_MAGIC) : begin], "big")
    end = begin + length
    try:
        _require(length <= _LONGEST_HEADER)
        slots = _slots(bytes(data[begin:end]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadSeal(DAMAGED) from None
    return slots, bytes(data[:end]), memoryview(data)[end:]


def _slots(header: bytes) -> dict[str, bytes]:
    """The slots in a header, checked: anybody may have written it. Raises `ValueError` and the like.

    It has two objects and no list, and no more values than commas: that bounds the parser's work.
    """
    _require(header.count(b"{") == 2 and b"[" not in header and header.count(b",") < _MOST_SLOTS)
    slots = json.loads(header)["slots"]
    _require(all(map(_FINGERPRINT.fullmatch, slots)))
    return {name: base64.b64decode(key, validate=True) for name, key in slots.items()}


def _to_json(record: Record) -> dict[str, Any]:
    return {
        **entry.to_json(record),
        "last_step": record.last_step,
        "offset": record.offset,
        "drift": base64.b64encode(record.drift).decode(),
    }


def _content(texts: list[bytes]) -> Pieces[Content]:
    """The content, checked: anybody may have sealed it. Raises `ValueError` and the like."""
    _require(bool(texts))
    first = texts.pop(0)
    begin = _ACCOUNTS.search(first)
    _require(begin is not None and begin.end() <= _LONGEST_START)
    assert begin is not None
    texts.reverse()  # the next is taken from the end
    reader = _Records(first[begin.end() :], texts)
    records: dict[str, Record] = {}
    for some in in_pieces(reader):
        for fields in some:
            record = _record(fields)
            _require(record.name not in records)
            records[record.name] = record
        yield
    data = json.loads(first[: begin.end()] + reader.rest())
    floors = {_number(period): _number(floor) for period, floor in data["floors"]}
    spent = [(_time(since), _time(until)) for since, until in data["spent"]]
    return Content(_number(data["created"]), [*records.values()], floors, spent)


class _Records:
    """Reads the elements of a JSON list from a text in parts; `rest` is the text after them."""

    def __init__(self, text: bytes, more: list[bytes]) -> None:
        self._text = str(text, "ascii")
        self._more = more  # the next part last
        self._at = 0  # up to here it was read

    def __iter__(self) -> Iterator[Any]:
        if self._next() == "]":
            return
        while True:
            value, end = _read(self._text, self._at)
            _require(end - self._at <= _LONGEST_RECORD)
            self._at = end
            yield value
            following = self._next()
            if following == "]":
                return
            _require(following == ",")
            self._at += 1
            self._next()

    def rest(self) -> bytes:
        """The text after the elements, from the end of the list on."""
        size = len(self._text) - self._at + sum(map(len, self._more))
        _require(size <= _LONGEST_REST)
        return b"".join([self._text[self._at :].encode(), *self._more])

    def _next(self) -> str:
        """The next character that is no white space; the text has the whole element after it."""
        if len(self._text) - self._at < _LONGEST_RECORD and self._more:
            self._text = self._text[self._at :] + str(self._more.pop(), "ascii")
            self._at = 0
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it always matches
        return self._text[self._at : self._at + 1]


def _record(fields: Any) -> Record:
    _require(type(fields) is dict and fields.keys() == _FIELDS)
    return Record(
        *entry.from_json(fields),
        _number(fields["last_step"]),
        _number(fields["offset"]),
        base64.b64decode(fields["drift"], validate=True),
    )


def _number(value: Any) -> int:
    _require(type(value) is int and abs(value) < _END_OF_TIME)
    return int(value)


def _time(value: Any) -> float:
    _require(type(value) is float and 0 <= value < _END_OF_TIME)
    return float(value)


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("not what a backup holds")

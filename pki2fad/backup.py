r"""Backups: the accounts under a master key of their own, which every key that was named can open.

A backup is

    "pki2fad backup 1\n", 4 bytes: the length of the header (big-endian), the header, the content

The header is JSON, `{"slots": {FINGERPRINT: BASE64}}`: the backup's master key, wrapped for each key as
that of a state is (RSA-OAEP). The content is JSON, sealed by that master key (AES-256-GCM: 12 bytes of
nonce, the ciphertext, 16 bytes of tag) and bound to all that stands before it, so that no byte of a
backup can change unnoticed. Every seed in it is sealed by the master key once more, bound to its account,
so that nobody who reads a backup has more than one seed in memory.

What belongs to one state alone is not in it: the digests by which seeds that are gone are known again,
the failures that were counted, and the files of `seeds.d` that were applied.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pki2fad import entry, otp, wire
from pki2fad.account import DRIFTS
from pki2fad.clock import Interval
from pki2fad.entry import Entry
from pki2fad.errors import BadSeal

if TYPE_CHECKING:  # what seals and opens is passed in: nothing here depends on cryptography
    from pki2fad.envelope import MasterKey

# A backup travels as one response. What is left below the limit of that is for its envelope, and for slots
# that are added to the backup: room for a hundred.
LIMIT = wire.RESPONSE_LIMIT
MADE_LIMIT = LIMIT - 256 * 1024

DAMAGED = "the backup is damaged or cut short"

_MAGIC = b"pki2fad backup 1\n"
_ANY_MAGIC = b"pki2fad backup "
_LENGTH_BYTES = 4

_END_OF_TIME = 2**40  # steps and seconds; no clock gets there

_FINGERPRINTS_NAMED = 8  # in a message

_FIELDS = entry.FIELDS | {"last_step", "offset", "drift"}


@dataclass(frozen=True, slots=True)
class Record(Entry):
    """An account in a backup. Raises `ValueError` for what cannot be one."""

    last_step: int
    offset: int
    drift: bytes

    def __post_init__(self) -> None:
        Entry.__post_init__(self)  # not by `super()`, which does not find a class that has slots added
        _require(-1 <= self.last_step < _END_OF_TIME)
        _require(abs(self.offset) <= otp.MAX_OFFSET)
        _require(len(self.drift) <= DRIFTS)


class Content(NamedTuple):
    """All that is in a backup."""

    created: int  # Unix time
    records: Sequence[Record]
    floors: Mapping[int, int]  # Unix times before which codes may have been used, by period
    spent: Sequence[Interval]  # in which codes may have been used, when the clock was ahead


def pack(content: Content, slots: Mapping[str, bytes], master: "MasterKey") -> bytes:
    """The backup. `slots` are the master key as wrapped for each key, by the key's fingerprint."""
    data = {
        "created": content.created,
        "accounts": [_to_json(record) for record in content.records],
        "floors": list(content.floors.items()),
        "spent": content.spent,
    }
    return _packed(bytearray(json.dumps(data, separators=(",", ":")).encode()), slots, master)


def unpack(data: bytes, master: "MasterKey") -> Content:
    """What is in a backup. Raises `BadSeal` if a byte of it was changed."""
    _, start, sealed = _parts(data)
    try:
        with master.opened(sealed, start) as text:
            return _content(json.loads(text))
    except (BadSeal, ValueError, KeyError, TypeError, RecursionError):
        raise BadSeal(DAMAGED) from None


def slot(data: bytes, fingerprint: str) -> bytes:
    """The master key, wrapped for this key. Raises `BadSeal`, which tells what keys there are slots for."""
    slots, _, _ = _parts(data)
    if fingerprint not in slots:
        known = ", ".join([*slots][:_FINGERPRINTS_NAMED])
        raise BadSeal(f"this backup can be opened by the keys {known}, and not by {fingerprint}")
    return slots[fingerprint]


def with_slot(data: bytes, master: "MasterKey", fingerprint: str, wrapped: bytes) -> bytes:
    """The same backup, that one more key can open. Raises `BadSeal`."""
    slots, start, sealed = _parts(data)
    try:
        with master.opened(sealed, start) as text:
            return _packed(text, {**slots, fingerprint: wrapped}, master)
    except BadSeal:
        raise BadSeal(DAMAGED) from None


def _packed(text: bytearray, slots: Mapping[str, bytes], master: "MasterKey") -> bytes:
    header = json.dumps({"slots": {name: base64.b64encode(key).decode() for name, key in slots.items()}})
    start = _MAGIC + len(header).to_bytes(_LENGTH_BYTES, "big") + header.encode()
    return start + master.seal(text, start)


def _parts(data: bytes) -> tuple[dict[str, bytes], bytes, bytes]:
    """The slots, all that stands before the content, and the content, still sealed. Raises `BadSeal`."""
    if not data.startswith(_MAGIC):
        if data.startswith(_ANY_MAGIC):
            raise BadSeal("this backup is damaged, or of another version of pki2fad")
        raise BadSeal("this is not a backup of pki2fad")
    begin = len(_MAGIC) + _LENGTH_BYTES
    end = begin + int.from_bytes(data[len(_MAGIC) : begin], "big")
    try:
        slots = json.loads(data[begin:end])["slots"]
        wrapped = {name: base64.b64decode(key, validate=True) for name, key in slots.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadSeal(DAMAGED) from None
    return wrapped, data[:end], data[end:]


def _to_json(record: Record) -> dict[str, Any]:
    return {
        **entry.to_json(record),
        "last_step": record.last_step,
        "offset": record.offset,
        "drift": base64.b64encode(record.drift).decode(),
    }


def _content(data: Any) -> Content:
    """What a key that may be anybody's has sealed, checked. Raises `ValueError` and the like."""
    records = [_record(fields) for fields in data["accounts"]]
    _require(len({record.name for record in records}) == len(records))
    floors = {_number(period): _number(floor) for period, floor in data["floors"]}
    spent = [(_time(since), _time(until)) for since, until in data["spent"]]
    return Content(_number(data["created"]), records, floors, spent)


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

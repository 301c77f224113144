r"""Batches: seeds for many accounts, sealed to a host under one RSA operation.

A batch is

    "pki2fad batch 1\n", 2 bytes: the length of the key (big-endian), the key, the content

The key is the batch's own, wrapped for the host's key as that of a state is (RSA-OAEP). The content is JSON,
a list of accounts, sealed by it (AES-256-GCM: 12 bytes of nonce, the ciphertext, 16 bytes of tag) and bound
to all that stands before it, so that no byte of a batch can change unnoticed. Every seed in it is sealed by
that key once more, bound to its account, so that nobody who reads a batch has more than one seed in memory.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pki2fad.account import associated, is_name
from pki2fad.errors import BadSeal
from pki2fad.otp import Parameters

if TYPE_CHECKING:  # what seals and opens is passed in: nothing here depends on cryptography
    from pki2fad.envelope import MasterKey

# Accounts in one batch: whatever they are called, it fits into a request then.
MOST = 200

# Bytes of a file of batches, and of the list that it is made from: more than a million accounts have.
FILE_LIMIT = 512 * 1024 * 1024

_MAGIC = b"pki2fad batch 1\n"
_ANY_MAGIC = b"pki2fad batch "
_LENGTH_BYTES = 2

_SEED_SIZES = range(16, 65)  # bytes, as sealed seeds have them
_SEAL_BYTES = 28  # nonce and tag

_FIELDS = {"name", "algorithm", "digits", "period", "sealed"}

DAMAGED = "the batch is damaged or cut short"


@dataclass(frozen=True, slots=True)
class Entry:
    """An account and its seed, sealed by the key of a batch or a backup.

    Raises `ValueError` for what cannot be one.
    """

    name: str
    parameters: Parameters
    sealed: bytes

    def __post_init__(self) -> None:
        if not is_name(self.name) or len(self.sealed) - _SEAL_BYTES not in _SEED_SIZES:
            raise ValueError("not an account and its seed")


def to_json(entry: Entry) -> dict[str, Any]:
    """An entry, for JSON."""
    sealed = base64.b64encode(entry.sealed).decode()
    return {"name": entry.name, **entry.parameters.fields, "sealed": sealed}


def from_json(fields: Mapping[str, Any]) -> tuple[str, Parameters, bytes]:
    """What an `Entry` is made of. Raises `ValueError` and the like."""
    if type(fields["name"]) is not str:
        raise ValueError("a name that is no text")
    parameters = Parameters(fields["algorithm"], fields["digits"], fields["period"])
    return fields["name"], parameters, base64.b64decode(fields["sealed"], validate=True)


def pack(seeds: Iterable[tuple[str, Parameters, bytearray]], wrapped: bytes, master: "MasterKey") -> bytes:
    """The batch of these names, parameters and seeds; `wrapped` is its key as wrapped for the host's."""
    entries = [Entry(name, of, master.seal(seed, associated(name, of))) for name, of, seed in seeds]
    start = _MAGIC + len(wrapped).to_bytes(_LENGTH_BYTES, "big") + wrapped
    text = json.dumps([to_json(entry) for entry in entries], separators=(",", ":"))
    return start + master.seal(bytearray(text.encode()), start)


def wrapped_key(data: bytes) -> bytes:
    """The key, as wrapped for the host's. Raises `BadSeal`."""
    if not data.startswith(_MAGIC):
        if data.startswith(_ANY_MAGIC):
            raise BadSeal("this batch is damaged, or of another version of pki2fad")
        raise BadSeal("this is not a batch of pki2fad")
    return data[len(_MAGIC) + _LENGTH_BYTES : _end_of_key(data)]


def unpack(data: bytes, master: "MasterKey") -> list[Entry]:
    """What is in a batch. Raises `BadSeal` if a byte of it was changed."""
    end = _end_of_key(data)
    try:
        with master.opened(data[end:], data[:end]) as text:
            return _entries(json.loads(text))
    except (BadSeal, ValueError, KeyError, TypeError, RecursionError):
        raise BadSeal(DAMAGED) from None


def _end_of_key(data: bytes) -> int:
    begin = len(_MAGIC) + _LENGTH_BYTES
    return begin + int.from_bytes(data[len(_MAGIC) : begin], "big")


def _entries(data: Any) -> list[Entry]:
    """What somebody has sealed, checked. Raises `ValueError` and the like."""
    if type(data) is not list or any(type(fields) is not dict or fields.keys() != _FIELDS for fields in data):
        raise ValueError("not what a batch holds")
    entries = [Entry(*from_json(fields)) for fields in data]
    if len({entry.name for entry in entries}) < len(entries):
        raise ValueError("a name twice")
    return entries

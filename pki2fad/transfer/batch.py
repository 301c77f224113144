r"""Batches: seeds for many accounts, sealed to a host under one RSA operation.

A batch is

    "pki2fad batch 1\n", 2 bytes: the length of the key (big-endian), the key, the content

The key is the batch's own, wrapped for the host's key as that of a state is (RSA-OAEP). The content is JSON,
a list of accounts, sealed by it (AES-256-GCM: 12 bytes of nonce, the ciphertext, 16 bytes of tag) and bound
to all that stands before it, so that no byte of a batch can change unnoticed. Every seed in it is sealed by
that key once more, bound to its account, so that nobody who reads a batch has more than one seed in memory.

A batch of one account is also used as a sealed seed that contains its account's name and parameters.
"""

import base64
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pki2fad.errors import BadSeal
from pki2fad.rules.otp import Parameters
from pki2fad.transfer import entry
from pki2fad.transfer.entry import Entry, associated

if TYPE_CHECKING:  # keys are passed in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

# The most accounts in one batch. With names of any length a request has room for it, and takes little time.
MOST = 200

_DAMAGED = "this is damaged or cut short"

_MAGIC = b"pki2fad batch 1\n"
_ANY_MAGIC = b"pki2fad batch "
_ANY_MAGIC_TEXT = base64.b64encode(_ANY_MAGIC[:12])  # 12 bytes are always 16 characters
_LENGTH_BYTES = 2
_LONGEST_KEY = 16384 // 8  # bytes: OpenSSL uses no RSA key of more bits


def pack(seeds: Iterable[tuple[str, Parameters, bytearray]], wrapped: bytes, master: "MasterKey") -> bytes:
    """Make a batch of names, parameters and seeds. `wrapped` is its key, wrapped for the host's key."""
    entries = [Entry(name, of, master.seal(seed, associated(name, of))) for name, of, seed in seeds]
    start = _MAGIC + len(wrapped).to_bytes(_LENGTH_BYTES, "big") + wrapped
    text = json.dumps([entry.to_json(one) for one in entries], separators=(",", ":"))
    return start + master.seal(bytearray(text.encode()), start)


def texts(text: bytes) -> list[bytes]:
    """The base64 of each batch of a file, which may be broken into lines."""
    found: list[list[bytes]] = []
    for line in text.split():
        if not found or line.startswith(_ANY_MAGIC_TEXT):
            found.append([])
        found[-1].append(line)
    return list(map(b"".join, found))


def is_batch(data: bytes) -> bool:
    """True for a batch, whole or damaged; false for a sealed seed of another kind."""
    return data.startswith(_ANY_MAGIC)


def wrapped_key(data: bytes) -> bytes:
    """The batch's key, wrapped for the host's key. Raises `BadSeal`."""
    wrapped, _, _ = _parts(data)
    return wrapped


def unpack(data: bytes, master: "MasterKey") -> list[Entry]:
    """The entries of a batch. Raises `BadSeal` if a byte of it was changed."""
    _, start, sealed = _parts(data)
    try:
        with master.opened(sealed, start) as text:
            return _entries(json.loads(text))
    except (BadSeal, ValueError, TypeError, RecursionError):
        raise BadSeal(_DAMAGED) from None


def _parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """The wrapped key, everything before the content, and the sealed content. Raises `BadSeal`."""
    if not data.startswith(_MAGIC):
        if data.startswith(_ANY_MAGIC):
            raise BadSeal("this is damaged, or of another version of pki2fad")
        raise BadSeal("this is not a batch of pki2fad")
    begin = len(_MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(data[len(_MAGIC) : begin], "big")
    if length > _LONGEST_KEY:
        raise BadSeal(_DAMAGED)
    end = begin + length
    return data[begin:end], data[:end], data[end:]


def _entries(data: Any) -> list[Entry]:
    """The entries, checked: anybody may have sealed them. Raises `ValueError` or `TypeError`."""
    if type(data) is not list or any(type(one) is not dict or one.keys() != entry.FIELDS for one in data):
        raise ValueError("not what a batch holds")
    entries = [Entry(*entry.from_json(fields)) for fields in data]
    if len({one.name for one in entries}) < len(entries) or len(entries) > MOST:
        raise ValueError("a name twice, or too many")
    return entries

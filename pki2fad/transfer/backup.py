r"""Backups: the accounts under a master key of their own, which each named RSA key can open.

A backup is

    "pki2fad backup N\n", 4 bytes: the length of the header (big-endian), the header, the content

N is the version: 1 wherever that suffices, otherwise 2 (see `pki2fad.transfer.entry`).

The header is JSON, `{"slots": {FINGERPRINT: BASE64}}`: the backup's master key, wrapped for each key as
that of a state is (RSA-OAEP). The content is JSON, sealed by that master key (AES-256-GCM: 12 bytes of
nonce, the ciphertext, 16 bytes of tag) and bound to all that stands before it, so that no byte of a
backup can change unnoticed. Every seed in it is sealed by the master key once more, bound to its account,
so that nobody who reads a backup has more than one seed in memory.

A backup does not have what belongs to one state: the digests of removed seeds, the counted failures, recovery
codes, the ids of accounts, and the files of `seeds.d` that were applied.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING

from pki2fad.errors import BadRequest, BadSeal
from pki2fad.rules.pieces import Pieces, in_pieces
from pki2fad.transfer import content as texts
from pki2fad.transfer.content import Content, Record
from pki2fad.wire import messages

if TYPE_CHECKING:  # master keys are passed in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

# A backup travels as one response. The rest, up to the limit of a response, is for the envelope and for about
# a hundred slots that are added later.
LIMIT = messages.RESPONSE_LIMIT
MADE_LIMIT = LIMIT - 256 * 1024

DAMAGED = "the backup is damaged or cut short"

_MAGICS = {1: b"pki2fad backup 1\n", 2: b"pki2fad backup 2\n"}
_MAGIC_BYTES = 17
_ANY_MAGIC = b"pki2fad backup "
_LENGTH_BYTES = 4

# The header is parsed before anything proves its origin. A slot takes at least 570 bytes: there is room for
# three times the keys of a request of 64 KiB, and for hundreds that are added later.
_LONGEST_HEADER = 256 * 1024
_MOST_SLOTS = _LONGEST_HEADER // 512
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")

_FINGERPRINTS_NAMED = 8  # in a message

# Bytes of the content to open and read at a time, and how many of these are one piece of work.
_TEXT = 64 * 1024
_TEXTS = 16


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
    start = _start(slots, content.version)
    sealer = master.sealer(start)
    parts = [start + sealer.start, sealer.add(texts.start(content))]
    size, separator = 0, b""
    for some in in_pieces(chain(content.records, records)):
        text = separator + texts.middle(some)
        parts.append(sealer.add(text))
        size, separator = size + len(text), b","
        if size > MADE_LIMIT:
            raise BadRequest("there are too many accounts for a backup")
        yield
    parts.append(sealer.add(texts.end(content)) + sealer.end())
    return parts


def unpack(data: bytes | bytearray, master: "MasterKey") -> Pieces[Content]:
    """The content of a backup. Raises `BadSeal` if a byte of it was changed."""
    version, _, start, sealed = _parts(data)
    try:
        opener = master.opener(sealed, start)
        opened: list[bytes] = []
        for some in in_pieces(opener.parts(_TEXT), _TEXTS):
            opened += some
            yield
        opener.end()
        return (yield from texts.read(opened, version))
    except (BadSeal, ValueError, KeyError, TypeError, RecursionError):
        raise BadSeal(DAMAGED) from None


def slot(data: bytes | bytearray, fingerprint: str) -> bytes:
    """The master key, wrapped for this key. Raises `BadSeal`, which names the keys that can open it."""
    _, slots, _, _ = _parts(data)
    if fingerprint not in slots:
        known = ", ".join([*slots][:_FINGERPRINTS_NAMED])
        raise BadSeal(f"this backup can be opened with the keys {known}, and not with {fingerprint}")
    return slots[fingerprint]


def with_slot(data: bytes, master: "MasterKey", fingerprint: str, wrapped: bytes) -> bytes:
    """The same backup with a slot for one more key. Raises `BadSeal`, and `BadRequest` if it has no room."""
    version, slots, start, sealed = _parts(data)
    try:
        with master.opened(bytes(sealed), start) as text:
            start = _start({**slots, fingerprint: wrapped}, version)
            return start + master.seal(text, start)
    except BadSeal:
        raise BadSeal(DAMAGED) from None


def _start(slots: Mapping[str, bytes], version: int) -> bytes:
    """Everything before the content. Raises `BadRequest` for too many slots."""
    header = json.dumps({"slots": {name: base64.b64encode(key).decode() for name, key in slots.items()}})
    if len(header) > _LONGEST_HEADER or len(slots) > _MOST_SLOTS:
        raise BadRequest("a backup has no room for that many keys")
    return _MAGICS[version] + len(header).to_bytes(_LENGTH_BYTES, "big") + header.encode()


def _parts(data: bytes | bytearray) -> tuple[int, dict[str, bytes], bytes, memoryview]:
    """The version, the slots, everything before the content, and the sealed content. Raises `BadSeal`."""
    version = next((version for version, magic in _MAGICS.items() if data.startswith(magic)), None)
    if version is None:
        if data.startswith(_ANY_MAGIC):
            raise BadSeal("this backup is damaged, or of another version of pki2fad")
        raise BadSeal("this is not a backup of pki2fad")
    begin = _MAGIC_BYTES + _LENGTH_BYTES
    length = int.from_bytes(data[_MAGIC_BYTES:begin], "big")
    end = begin + length
    try:
        _require(length <= _LONGEST_HEADER)
        slots = _slots(bytes(data[begin:end]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadSeal(DAMAGED) from None
    return version, slots, bytes(data[:end]), memoryview(data)[end:]


def _slots(header: bytes) -> dict[str, bytes]:
    """The slots in a header, checked: anybody may have written it. Raises `ValueError` and the like.

    It has two objects and no list, and no more values than commas: that bounds the parser's work.
    """
    _require(header.count(b"{") == 2 and b"[" not in header and header.count(b",") < _MOST_SLOTS)
    slots = json.loads(header)["slots"]
    _require(all(map(_FINGERPRINT.fullmatch, slots)))
    return {name: base64.b64decode(key, validate=True) for name, key in slots.items()}


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError("not what a backup holds")

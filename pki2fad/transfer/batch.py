r"""Batches: seeds for many accounts, sealed to a host under one RSA operation.

A batch is

    "pki2fad batch N\n", 2 bytes: the length of the key (big-endian), the key, the content

N is the version: 1 wherever that suffices, otherwise 2 (see `pki2fad.transfer.entry`).

The key is the batch's own, wrapped for the host's key as that of a state is (RSA-OAEP). The content is JSON,
a list of authenticators, sealed by it (AES-256-GCM: 12 bytes of nonce, the ciphertext, 16 bytes of tag) and
bound to all that stands before it, so that no byte of a batch can change unnoticed. Every seed in it is
sealed by that key once more, bound to its account, so that nobody who reads a batch has more than one seed in
memory.

A batch of one account is also used as a sealed seed that contains its account's name and parameters.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pki2fad.crypto import seedsizes
from pki2fad.errors import BadSeal
from pki2fad.rules.otp import HOTP, LAST_COUNTER, Parameters
from pki2fad.transfer import entry
from pki2fad.transfer.entry import Entry, Order, associated, version_for
from pki2fad.wire import messages
from pki2fad.wire.forms import MAIN

if TYPE_CHECKING:  # keys are passed in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

# The most authenticators in one batch: that bounds the time that it takes, and version 0.1.0 takes no more.
MOST = 200

# The most bytes of a batch, however long the names are. A request has room for it, and for what a foreign
# client announces of itself.
LIMIT = messages.REQUEST_LIMIT - 4096

_DAMAGED = "this is damaged or cut short"

_MAGICS = {1: b"pki2fad batch 1\n", 2: b"pki2fad batch 2\n"}
_MAGIC_BYTES = 16
_ANY_MAGIC = b"pki2fad batch "
_ANY_MAGIC_TEXT = base64.b64encode(_ANY_MAGIC[:12])  # 12 bytes are always 16 characters
_LENGTH_BYTES = 2
_LONGEST_KEY = 16384 // 8  # bytes: OpenSSL uses no RSA key of more bits
_LONGEST_TEXT = LIMIT - _MAGIC_BYTES - _LENGTH_BYTES - _LONGEST_KEY - seedsizes.SEAL

_FIELDS = {1: entry.FIELDS[1], 2: entry.FIELDS[2] | {"counter"}}

_dumps = partial(json.dumps, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Unsealed:
    """An authenticator that goes into a batch."""

    name: str  # of the account
    parameters: Parameters
    seed: bytearray = field(repr=False)
    label: str = MAIN
    counter: int = 0  # HOTP: the next that it uses

    def entry(self, version: int, sealed: bytes) -> Entry:
        """It with its seed sealed."""
        return Entry(self.name, self.parameters, sealed, self.counter - 1, self.label, version)


def version_of(unsealed: Iterable[Unsealed]) -> int:
    """The first version of a batch that can hold all of these."""
    return max(version_for(one.label, one.parameters, len(one.seed)) for one in unsealed)


def split(unsealed: Iterable[Unsealed], version: int) -> Iterator[list[Unsealed]]:
    """Lists of them that fit into a batch each."""
    some: list[Unsealed] = []
    size = 2  # of the brackets
    for one in unsealed:
        more = len(_dumps(_to_json(one.entry(version, bytes(seedsizes.SEAL + len(one.seed)))))) + 1
        if some and (len(some) == MOST or size + more > _LONGEST_TEXT):
            yield some
            some, size = [], 2
        some.append(one)
        size += more
    if some:
        yield some


def pack(
    unsealed: Sequence[Unsealed], wrapped: bytes, master: "MasterKey", version: int | None = None
) -> bytes:
    """Make a batch of these. `wrapped` is its key, wrapped for the host's key.

    Without a version it gets the first that suffices.
    """
    version = version or version_of(unsealed)
    start = _MAGICS[version] + len(wrapped).to_bytes(_LENGTH_BYTES, "big") + wrapped
    accounts = []
    for one in unsealed:
        bound = associated(one.name, one.parameters, one.label, version)
        accounts.append(_to_json(one.entry(version, master.seal(one.seed, bound))))
    return start + master.seal(bytearray(_dumps(accounts).encode()), start)


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
    _, wrapped, _, _ = _parts(data)
    return wrapped


def unpack(data: bytes, master: "MasterKey") -> list[Entry]:
    """The entries of a batch. Raises `BadSeal` if a byte of it was changed."""
    version, _, start, sealed = _parts(data)
    try:
        with master.opened(sealed, start) as text:
            return _entries(json.loads(text), version)
    except (BadSeal, ValueError, TypeError, RecursionError):
        raise BadSeal(_DAMAGED) from None


def _parts(data: bytes) -> tuple[int, bytes, bytes, bytes]:
    """The version, the wrapped key, all that stands before the content, and the content. Raises `BadSeal`."""
    version = next((version for version, magic in _MAGICS.items() if data.startswith(magic)), None)
    if version is None:
        if data.startswith(_ANY_MAGIC):
            raise BadSeal("this is damaged, or of another version of pki2fad")
        raise BadSeal("this is not a batch of pki2fad")
    begin = _MAGIC_BYTES + _LENGTH_BYTES
    length = int.from_bytes(data[_MAGIC_BYTES:begin], "big")
    if length > _LONGEST_KEY:
        raise BadSeal(_DAMAGED)
    end = begin + length
    return version, data[begin:end], data[:end], data[end:]


def _to_json(one: Entry) -> dict[str, Any]:
    return {**entry.to_json(one), **({"counter": one.last_step + 1} if one.version > 1 else {})}


def _entries(data: Any, version: int) -> list[Entry]:
    """The entries, checked: anybody may have sealed them. Raises `ValueError` or `TypeError`."""
    if type(data) is not list or len(data) > MOST:
        raise ValueError("not what a batch holds")
    order = Order()
    entries = [_entry(fields, version) for fields in data]
    for one in entries:
        order.add(one)
    return entries


def _entry(fields: Any, version: int) -> Entry:
    if type(fields) is not dict or fields.keys() != _FIELDS[version]:
        raise ValueError("not what a batch holds")
    name, of, sealed, label = entry.from_json(fields, version)
    counter = fields.get("counter", 0)
    if type(counter) is not int or not 0 <= counter <= (LAST_COUNTER if of.kind == HOTP else 0):
        raise ValueError("no counter of such an authenticator")
    return Entry(name, of, sealed, counter - 1, label, version)

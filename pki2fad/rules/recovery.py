"""Recovery codes: ten for an account, for when no authenticator is at hand, each good once, for ever."""

import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pki2fad.crypto.memory import wipe
from pki2fad.wire.forms import RECOVERY_HALF, RECOVERY_SYMBOLS

if TYPE_CHECKING:  # master keys are passed in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

CODES = 10  # in one set
ENTROPY = CODES * 2 * RECOVERY_HALF  # random bytes for one set, of which each symbol takes five bits

HASHES_BYTES = CODES * 32  # of all codes

_HASH = "sha256"
_HASH_BYTES = HASHES_BYTES // CODES
_READ_AS = str.maketrans("ILO", "110", "-")  # as Crockford has it


class Recovery:
    """The recovery codes of one account. Only which are used, and the seal of their key, ever change.

    Copies of the account share it, so that none of them knows a used code as unused.
    """

    __slots__ = ("account_id", "hashes", "made", "name", "sealed", "used")

    def __init__(
        self, name: str, account_id: bytes, sealed: bytes, hashes: bytes, *, used: int, made: int
    ) -> None:
        self.name = name  # the account's
        self.account_id = account_id
        self.sealed = sealed  # the key of the hashes, under the master key
        self.hashes = hashes  # HMAC-SHA-256 of each code, one after the other
        self.used = used  # a bit for each code that was used
        self.made = made  # Unix time

    @property
    def associated(self) -> bytes:
        """What the sealed key is bound to; it cannot pass for a seed."""
        return b"pki2fad recovery codes 1\0" + self.account_id.hex().encode()

    @property
    def left(self) -> int:
        """How many codes are not used."""
        return CODES - self.used.bit_count()

    def match(self, code: str, master: "MasterKey") -> int:
        """The bit of the code that this is, 0 for none.

        It is compared with all of them in constant time, also with those that are used.
        """
        with master.opened(self.sealed, self.associated) as key:
            hashed = _hashed(key, code)
        found = 0
        for place in range(CODES):
            one = self.hashes[place * _HASH_BYTES : (place + 1) * _HASH_BYTES]
            found |= hmac.compare_digest(hashed, one) << place
        return found

    def spend(self, bits: int) -> None:
        """Note that these codes are used."""
        self.used |= bits

    def reseal(self, sealed: bytes) -> None:
        """Hold the key as another master key seals it."""
        self.sealed = sealed

    def __repr__(self) -> str:
        return f"Recovery({self.name!r}, left={self.left})"


def new_codes(random: bytes) -> list[str]:
    """The codes of a new set, as people see them, from `ENTROPY` random bytes."""
    symbols = "".join([RECOVERY_SYMBOLS[byte % len(RECOVERY_SYMBOLS)] for byte in random])
    halves = [symbols[at : at + RECOVERY_HALF] for at in range(0, len(symbols), RECOVERY_HALF)]
    return ["-".join(pair) for pair in zip(halves[::2], halves[1::2], strict=True)]


def new_set(
    name: str, account_id: bytes, codes: Sequence[str], *, key: bytearray, master: "MasterKey", made: int
) -> Recovery:
    """A set of these codes for an account, under a random key, which is wiped."""
    try:
        hashes = b"".join([_hashed(key, code) for code in codes])
        recovery = Recovery(name, account_id, b"", hashes, used=0, made=made)
        recovery.reseal(master.seal(key, recovery.associated))
    finally:
        wipe(key)
    return recovery


def _hashed(key: bytearray, code: str) -> bytes:
    """The keyed hash of a code, however it is typed."""
    return hmac.digest(key, code.upper().translate(_READ_AS).encode(), _HASH)

"""An authenticator in a batch or a backup: its account and parameters, and its seed sealed by the file's key.

In a file of version 1 each account has one authenticator: it is `main`, TOTP, and its seed is not short. That
version is written wherever it suffices, since hosts with version 0.1.0 read no other.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pki2fad.crypto import seedsizes
from pki2fad.rules.account import MOST
from pki2fad.rules.otp import HOTP, TOTP, Parameters
from pki2fad.wire.forms import MAIN, is_label, is_name

_FIELDS_1 = frozenset({"name", "algorithm", "digits", "period", "sealed"})
FIELDS = {1: _FIELDS_1, 2: _FIELDS_1 | {"label", "kind", "short"}}  # by the version of the file

# No clock gets to this step, and no token to this counter.
_BEYOND = {TOTP: 2**40, HOTP: 2**62}


@dataclass(frozen=True, slots=True)
class Entry:
    """An authenticator. Raises `ValueError` or `TypeError` for impossible values."""

    name: str  # of the account
    parameters: Parameters
    sealed: bytes  # under the key of the batch or backup, bound to `associated`
    last_step: int = -1  # the watermark: the last accepted step, or counter; -1 for none
    label: str = MAIN
    version: int = 1  # of the file

    @property
    def associated(self) -> bytes:
        """What the sealed seed is bound to."""
        return associated(self.name, self.parameters, self.label, self.version)

    @property
    def is_short(self) -> bool:
        """True for a seed of less than 128 bits."""
        return seedsizes.of_sealed(self.sealed) < seedsizes.LEAST

    def __post_init__(self) -> None:
        of, size = self.parameters, seedsizes.of_sealed(self.sealed)
        if not seedsizes.SHORT <= size <= seedsizes.MOST or not is_name(self.name):
            raise ValueError("not an authenticator and its seed")
        if version_for(self.label, of, size) > self.version or (
            self.label != MAIN and not is_label(self.label)
        ):
            raise ValueError("not what a file of this version holds")
        if not -1 <= self.last_step < _BEYOND[of.kind]:
            raise ValueError("no step or counter")


class Order:
    """Sees that the authenticators of each account stand together, and that an account can have them."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._name = ""  # of the account at which it is
        self._labels: set[str] = set()

    def add(self, entry: Entry) -> None:
        """Look at the next entry. Raises `ValueError`."""
        if entry.name != self._name:
            if entry.name in self._names:
                raise ValueError("an account twice")
            self._names.add(entry.name)
            self._name = entry.name
            self._labels.clear()
        if entry.label in self._labels or len(self._labels) == MOST:
            raise ValueError("a label twice, or too many authenticators")
        self._labels.add(entry.label)


def version_for(label: str, of: Parameters, seed_bytes: int) -> int:
    """The first version of a file that can hold such an authenticator."""
    return 1 if label == MAIN and of.kind == TOTP and seed_bytes >= seedsizes.LEAST else 2


def associated(name: str, of: Parameters, label: str = MAIN, version: int = 1) -> bytes:
    """What the sealed seed of an entry is bound to; no field can contain the separator."""
    which = f"1\0{name}" if version == 1 else f"2\0{name}\0{label}\0{of.kind}"
    return f"pki2fad account {which}\0{of.algorithm}\0{of.digits}\0{of.period}".encode()


def to_json(entry: Entry) -> dict[str, Any]:
    """The `FIELDS` of an entry, for JSON."""
    of = entry.parameters
    more = {"label": entry.label, "kind": of.kind, "short": entry.is_short} if entry.version > 1 else {}
    return {"name": entry.name, **more, **of.fields, "sealed": base64.b64encode(entry.sealed).decode()}


def from_json(fields: Mapping[str, Any], version: int) -> tuple[str, Parameters, bytes, str]:
    """Name, parameters, sealed seed and label of an `Entry` with these `FIELDS`.

    Raises `ValueError` or `TypeError`.
    """
    label, kind, short = MAIN, TOTP, False
    if version > 1:
        label, kind, short = fields["label"], fields["kind"], fields["short"]
    of = Parameters(fields["algorithm"], fields["digits"], fields["period"], kind)
    sealed = base64.b64decode(fields["sealed"], validate=True)
    if type(label) is not str or short is not (seedsizes.of_sealed(sealed) < seedsizes.LEAST):
        raise ValueError("no label, or a short seed that is not said to be one, or the other way round")
    return fields["name"], of, sealed, label

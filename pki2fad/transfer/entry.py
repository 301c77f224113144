"""An account in a batch or a backup: its name, its parameters, and its seed sealed by the file's key."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pki2fad.rules.otp import Parameters
from pki2fad.wire.forms import is_name

FIELDS = frozenset({"name", "algorithm", "digits", "period", "sealed"})

_SEED_SIZES = range(16, 65)  # bytes, the same as for sealed seeds
_SEAL_BYTES = 28  # nonce and tag


@dataclass(frozen=True, slots=True)
class Entry:
    """An account. Raises `ValueError` or `TypeError` for impossible values."""

    name: str
    parameters: Parameters
    sealed: bytes  # under the key of the batch or backup, bound to `associated`

    @property
    def associated(self) -> bytes:
        """What the sealed seed is bound to; no field can contain the separator."""
        return associated(self.name, self.parameters)

    def __post_init__(self) -> None:
        if not is_name(self.name) or len(self.sealed) - _SEAL_BYTES not in _SEED_SIZES:
            raise ValueError("not an account and its seed")


def associated(name: str, of: Parameters) -> bytes:
    """What the sealed seed of an entry is bound to."""
    return f"pki2fad account 1\0{name}\0{of.algorithm}\0{of.digits}\0{of.period}".encode()


def to_json(entry: Entry) -> dict[str, Any]:
    """The `FIELDS` of an entry, for JSON."""
    sealed = base64.b64encode(entry.sealed).decode()
    return {"name": entry.name, **entry.parameters.fields, "sealed": sealed}


def from_json(fields: Mapping[str, Any]) -> tuple[str, Parameters, bytes]:
    """The arguments of an `Entry` with these `FIELDS`. Raises `ValueError` or `TypeError`."""
    parameters = Parameters(fields["algorithm"], fields["digits"], fields["period"])
    return fields["name"], parameters, base64.b64decode(fields["sealed"], validate=True)

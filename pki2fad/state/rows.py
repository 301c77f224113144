"""Reads the rows of accounts, their other authenticators and successors, and checks them."""

import functools
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import ID_BYTES, UNKNOWN, Authenticator, Successor, is_fixed
from pki2fad.rules.otp import Parameters
from pki2fad.rules.recovery import CODES, HASHES_BYTES, Recovery
from pki2fad.rules.tally import EMPTY, NO_TALLY, Level, Tally, with_costs
from pki2fad.state.database import StateFile, damaged

# What the rows of authenticators and of successors begin with.
_SEED = "name, label, algorithm, digits, period, kind, sealed, fixed, last_step"
_SEED_TYPES = (str, str, str, int, int, str, bytes, bytes, int)

_TYPES = (*_SEED_TYPES, int, bytes, float, float, bytes, int, bytes)
_OTHER_TYPES = (*_SEED_TYPES, int, bytes)
_SUCCESSOR_TYPES = (*_SEED_TYPES, int)

_RECOVERY_TYPES = (bytes, bytes, int, int)

_Successors = dict[tuple[str, str], Successor]


def accounts(file: StateFile) -> Iterator[Account]:
    """Every account, with all that it has. Raises `UnusableState` for a row that cannot be one."""
    successors = _successors(file)
    others = _others(file, successors)
    recoveries = _recoveries(file)
    for *row, used in file.rows(
        f"SELECT {_SEED}, offset, drift, failed_units, failed_at, marks, resets, reset_at, used FROM accounts"  # noqa: S608 - no value is in it
    ):
        name, label, algorithm, digits, period, kind, sealed, fixed, last_step, offset, drift, *counted = row
        try:
            _require(row, _TYPES, used, fixed)
            parameters = _parameters(algorithm, digits, period, kind)
            tally = _tally(*counted)
        except ValueError as error:
            raise damaged(file.path, f"account {name!r}: {error}") from None
        yield Account(
            name,
            parameters,
            sealed,
            fixed,
            last_step,
            label=sys.intern(label),
            offset=offset,
            drift=drift,
            used=used,
            successor=successors.get((name, label)),
            others=tuple(others.get(name, ())),
            tally=tally,
            recovery=_recovery(name, fixed, recoveries.get(name)),
        )


def _others(file: StateFile, successors: _Successors) -> dict[str, list[Authenticator]]:
    """The authenticators beside the first, by account, in order."""
    found: dict[str, list[Authenticator]] = defaultdict(list)
    for *row, used in file.rows(
        f"SELECT {_SEED}, offset, drift, used FROM authenticators ORDER BY name, position"  # noqa: S608 - as above
    ):
        name, label, algorithm, digits, period, kind, sealed, fixed, last_step, offset, drift = row
        try:
            _require(row, _OTHER_TYPES, used, fixed)
            parameters = _parameters(algorithm, digits, period, kind)
        except ValueError as error:
            raise damaged(file.path, f"authenticator {label!r} of account {name!r}: {error}") from None
        found[name].append(
            Authenticator(
                name,
                parameters,
                sealed,
                fixed,
                last_step,
                label=sys.intern(label),
                offset=offset,
                drift=drift,
                used=used,
                successor=successors.get((name, label)),
            )
        )
    return found


def _successors(file: StateFile) -> _Successors:
    found: _Successors = {}
    for *row, deadline in file.rows(f"SELECT {_SEED}, cutover, deadline FROM successors"):  # noqa: S608 - as above
        name, label, algorithm, digits, period, kind, sealed, fixed, last_step, cutover = row
        try:
            _require(row, _SUCCESSOR_TYPES, deadline, fixed)
            parameters = _parameters(algorithm, digits, period, kind)
        except ValueError as error:
            raise damaged(file.path, f"successor of account {name!r}: {error}") from None
        # A successor that was used before is a seed that came back.
        drift = UNKNOWN if last_step >= 0 and period else b""
        waiting = Authenticator(name, parameters, sealed, fixed, last_step, label=label, drift=drift)
        found[name, label] = Successor(waiting, deadline, bool(cutover))
    return found


def _recoveries(file: StateFile) -> dict[str, list[Any]]:
    """The rows of recovery codes, by account."""
    found = {}
    for name, *row in file.rows("SELECT name, key, codes, used, made FROM recovery"):
        _, hashes, used, _ = row
        if tuple(map(type, row)) != _RECOVERY_TYPES or len(hashes) != HASHES_BYTES or used >> CODES:
            raise damaged(file.path, f"recovery codes of account {name!r}: the row is damaged")
        found[name] = row
    return found


def _recovery(name: str, fixed: bytes, row: list[Any] | None) -> Recovery | None:
    if row is None:
        return None
    sealed, hashes, used, made = row
    return Recovery(name, fixed[:ID_BYTES], sealed, hashes, used=used, made=made)


def _require(row: list[Any], types: tuple[type, ...], time: object, fixed: bytes) -> None:
    """Raise `ValueError` for a row that is not of these types."""
    if tuple(map(type, row)) != types or type(time) not in (int, type(None)):
        raise ValueError("a value is of the wrong type")
    if not is_fixed(fixed):
        raise ValueError("its ids are cut short")


# A million accounts share equal values: each exists once in memory.


@functools.cache
def _parameters(algorithm: str, digits: int, period: int, kind: str) -> Parameters:
    return Parameters(algorithm, digits, period, kind)


def _tally(units: float, at: float, marks: bytes, resets: int, reset_at: bytes) -> Tally:
    marks = with_costs(marks)
    if units or at:
        return Tally(Level(units, at), marks, resets, reset_at)
    return Tally(EMPTY, marks, resets, reset_at) if marks or resets else NO_TALLY

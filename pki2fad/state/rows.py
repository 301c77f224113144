"""Reads the rows of accounts, their other authenticators and successors, and checks them."""

import functools
import sys
from collections import defaultdict
from collections.abc import Iterator
from types import NoneType
from typing import Any

from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import ID_BYTES, Authenticator, Successor, drift_of_waiting, is_fixed
from pki2fad.rules.otp import HOTP, TOTP, Parameters
from pki2fad.rules.recovery import CODES, HASHES_BYTES, Recovery
from pki2fad.rules.tally import EMPTY, NO_TALLY, Level, Tally, with_costs
from pki2fad.state.database import StateFile, damaged
from pki2fad.wire.forms import is_label

# What the rows of authenticators and of successors begin with.
_SEED = "name, label, algorithm, digits, period, sealed, fixed, last_step"
_SEED_TYPES = (str, str, str, int, int, bytes, bytes, int)

_Types = tuple[tuple[type, ...], ...]  # what the types of a row may be


def _ending_in_a_time(*types: type) -> _Types:
    """The types of a row whose last value is a Unix time, or none."""
    return ((*types, NoneType), (*types, int))


_TYPES = _ending_in_a_time(*_SEED_TYPES, int, bytes, float, float, bytes, int, bytes)
_OTHER_TYPES = _ending_in_a_time(*_SEED_TYPES, int, bytes)
_SUCCESSOR_TYPES = _ending_in_a_time(*_SEED_TYPES, int)

_RECOVERY_TYPES = (bytes, bytes, int, int)

_WRONG = "a value is of the wrong type, or ids are cut short"

_Successors = dict[tuple[str, str], Successor]


def accounts(file: StateFile) -> Iterator[Account]:
    """Every account, with all that it has. Raises `UnusableState` for a row that cannot be one."""
    successors = _successors(file)
    others = _others(file, successors)
    recoveries = _recoveries(file)
    for row in file.rows(  # perhaps a million: what few of them have is not looked up for all
        f"SELECT {_SEED}, offset, drift, failed_units, failed_at, marks, resets, reset_at, used FROM accounts"  # noqa: S608 - no value is in it
    ):
        (
            name,
            label,
            algorithm,
            digits,
            period,
            sealed,
            fixed,
            last_step,
            offset,
            drift,
            units,
            at,
            marks,
            resets,
            reset_at,
            used,
        ) = row
        try:
            if tuple(map(type, row)) not in _TYPES or not is_fixed(fixed):
                raise ValueError(_WRONG)
            parameters = _parameters(algorithm, digits, period)
            is_counted = units or at or marks or resets
            tally = _tally(units, at, marks, resets, reset_at) if is_counted else NO_TALLY
        except ValueError as error:
            raise damaged(file.path, f"account {name!r}: {error}") from None
        account = Account(
            name,
            parameters,
            sealed,
            fixed,
            last_step,
            sys.intern(label),
            offset,
            drift,
            used,
            successors.get((name, label)) if successors else None,
            tuple(others[name]) if name in others else (),
            tally,
            _recovery(name, fixed, recoveries[name]) if name in recoveries else None,
        )
        if account.others or account.successor is not None:
            _require_own(account, file.path)
        yield account


def _others(file: StateFile, successors: _Successors) -> dict[str, list[Authenticator]]:
    """The authenticators beside the first, by account, in order."""
    found: dict[str, list[Authenticator]] = defaultdict(list)
    for row in file.rows(
        f"SELECT {_SEED}, offset, drift, used FROM authenticators ORDER BY name, position"  # noqa: S608 - as above
    ):
        name, label, algorithm, digits, period, sealed, fixed, last_step, offset, drift, used = row
        try:
            if tuple(map(type, row)) not in _OTHER_TYPES or not is_fixed(fixed):
                raise ValueError(_WRONG)
            parameters = _parameters(algorithm, digits, period)
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
    for row in file.rows(f"SELECT {_SEED}, cutover, deadline FROM successors"):  # noqa: S608 - as above
        name, label, algorithm, digits, period, sealed, fixed, last_step, cutover, deadline = row
        try:
            if tuple(map(type, row)) not in _SUCCESSOR_TYPES or not is_fixed(fixed):
                raise ValueError(_WRONG)
            parameters = _parameters(algorithm, digits, period)
        except ValueError as error:
            raise damaged(file.path, f"successor of account {name!r}: {error}") from None
        drift = drift_of_waiting(last_step, period)
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


def _recovery(name: str, fixed: bytes, row: list[Any]) -> Recovery:
    sealed, hashes, used, made = row
    return Recovery(name, fixed[:ID_BYTES], sealed, hashes, used=used, made=made)


def _require_own(account: Account, path: str) -> None:
    """Raise `UnusableState` if a row with the name of this account cannot be of it."""
    labels = [one.label for one in account.authenticators]
    if len({*labels}) < len(labels) or not all(map(is_label, labels)):
        raise damaged(path, f"account {account.name!r}: its authenticators cannot have these labels")
    for one in account.seeds:
        if one.account_id != account.account_id or one.former != account.former:
            raise damaged(path, f"authenticator {one.label!r} of account {account.name!r}: it is another's")


# A million accounts share equal values: each exists once in memory.


@functools.cache
def _parameters(algorithm: str, digits: int, period: int) -> Parameters:
    return Parameters(algorithm, digits, period, TOTP if period else HOTP)


def _tally(units: float, at: float, marks: bytes, resets: int, reset_at: bytes) -> Tally:
    level = Level(units, at) if units or at else EMPTY
    return Tally(level, with_costs(marks), resets, reset_at)

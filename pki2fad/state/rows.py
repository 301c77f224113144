"""Reads the rows of accounts and successors, and checks them."""

import functools
from collections.abc import Iterator

from pki2fad.rules.account import UNKNOWN, Account, Successor
from pki2fad.rules.otp import Parameters
from pki2fad.rules.tally import EMPTY, NO_TALLY, Level, Tally
from pki2fad.state.database import StateFile, damaged

# What the rows of accounts and of successors begin with.
_SEED_TYPES = (str, str, int, int, bytes, bytes, int)
_ACCOUNT_TYPES = (*_SEED_TYPES, int, bytes, float, float, bytes, int, bytes)
_SUCCESSOR_TYPES = (*_SEED_TYPES, int)


def accounts(file: StateFile) -> Iterator[Account]:
    """Every account with its successor. Raises `UnusableState` for a row that cannot be one."""
    successors = {successor.account.name: successor for successor in _successors(file)}
    for row in file.rows(
        "SELECT name, algorithm, digits, period,"
        " sealed, digest, last_step, offset, drift, failed_units, failed_at, marks, resets, reset_at"
        " FROM accounts"
    ):
        name, algorithm, digits, period, sealed, digest, last_step, offset, drift, *counted = row
        try:
            if tuple(map(type, row)) != _ACCOUNT_TYPES:
                raise ValueError("a value is of the wrong type")
            parameters = _parameters(algorithm, digits, period)
            tally = _tally(*counted)
        except ValueError as error:
            raise damaged(file.path, f"account {name!r}: {error}") from None
        yield Account(
            name,
            parameters,
            sealed,
            digest,
            last_step,
            tally=tally,
            offset=offset,
            drift=drift,
            successor=successors.get(name),
        )


def _successors(file: StateFile) -> Iterator[Successor]:
    for *row, deadline in file.rows(
        "SELECT name, algorithm, digits, period, sealed, digest, last_step, cutover, deadline FROM successors"
    ):
        name, algorithm, digits, period, sealed, digest, last_step, cutover = row
        try:
            if tuple(map(type, row)) != _SUCCESSOR_TYPES:
                raise ValueError("a value is of the wrong type")
            if type(deadline) not in (int, type(None)):
                raise ValueError("a deadline is of the wrong type")
            parameters = _parameters(algorithm, digits, period)
        except ValueError as error:
            raise damaged(file.path, f"successor of account {name!r}: {error}") from None
        # A successor that was used before is a seed that came back.
        drift = UNKNOWN if last_step >= 0 else b""
        account = Account(name, parameters, sealed, digest, last_step, drift=drift)
        yield Successor(account, deadline, bool(cutover))


# A million accounts share equal values: each exists once in memory.


@functools.cache
def _parameters(algorithm: str, digits: int, period: int) -> Parameters:
    return Parameters(algorithm, digits, period)


def _tally(units: float, at: float, marks: bytes, resets: int, reset_at: bytes) -> Tally:
    if units or at:
        return Tally(Level(units, at), marks, resets, reset_at)
    return Tally(EMPTY, marks, resets, reset_at) if marks or resets else NO_TALLY

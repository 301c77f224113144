"""Rows that were given the name of another account."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from support.agents import NOW, make_keyring
from support.authenticators import seed_of
from support.stores import keep

from pki2fad.errors import UnusableState
from pki2fad.rules.authenticator import Successor
from pki2fad.rules.changes import Edit
from pki2fad.rules.otp import Parameters
from pki2fad.state.store import Store

# What an authenticator's row and a successor's have of an account's row.
_SEED = "algorithm, digits, period, sealed, fixed, last_step"

MOVED = {
    "an authenticator": "UPDATE authenticators SET name = 'ann' WHERE name = 'bob'",
    "a successor": "UPDATE successors SET name = 'ann' WHERE name = 'bob'",
    "a first authenticator as another one": (
        f"INSERT INTO authenticators SELECT 'ann', 'more', {_SEED}, offset, drift, used, 1 FROM accounts"
        " WHERE name = 'bob'"
    ),
    "a first authenticator as a successor": (
        f"INSERT INTO successors SELECT 'ann', 'main', {_SEED}, NULL, 0 FROM accounts WHERE name = 'bob'"
    ),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store with ann, who has one authenticator, and bob, who has two and a successor."""
    path, keyring = tmp_path / "state.db", make_keyring({})
    ann, bob = [keyring.seal(name, bytearray(seed_of(1)), Parameters()) for name in ("ann", "bob")]
    tablet, new = [
        keyring.seal("bob", bytearray(seed_of(number)), Parameters(), label=label, beside=bob)
        for number, label in enumerate(["tablet", "main"], 2)
    ]
    waiting = Successor(new.changed(), None, cutover=False)
    bob = bob.replaced(bob, bob.changed(successor=waiting)).with_authenticator(tablet)
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [Edit(one.name, NOW.wall, one) for one in (ann, bob)])
    return path


@pytest.mark.parametrize("what", MOVED)
def test_a_row_of_another_account_is_damage_of_a_named_account(path: Path, what: str) -> None:
    _edit(path, MOVED[what])
    with contextlib.closing(Store(str(path))) as store, pytest.raises(UnusableState, match="account 'ann'"):
        list(store.accounts())


@pytest.mark.parametrize("label", ["main", "", "a b", "new\nline"])
def test_a_label_that_cannot_be_or_comes_twice_is_damage_of_a_named_account(path: Path, label: str) -> None:
    _edit(path, "UPDATE authenticators SET label = ?", label)
    with contextlib.closing(Store(str(path))) as store, pytest.raises(UnusableState, match="account 'bob'"):
        list(store.accounts())


def _edit(path: Path, statement: str, *values: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute(statement, values).rowcount == 1

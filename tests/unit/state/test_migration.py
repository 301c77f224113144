"""A state file of version 0.1.0 becomes one of this version, with all that is in it."""

import contextlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import SEED
from support.oldstate import LOCKED, OLD_SCHEMA, VECTORS, OldState, make_old, query

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import UNKNOWN
from pki2fad.rules.otp import Parameters
from pki2fad.rules.tally import Tally
from pki2fad.state import schema
from pki2fad.state.database import APPLICATION_ID
from pki2fad.state.store import Store
from pki2fad.transfer.entry import associated

KEPT_TABLES = ("meta", "keyslots", "gone", "seed_files", "periods", "secrets", "stretches", "spent")
VECTORS_OF_0_1_0 = pytest.mark.parametrize("vector", [VECTORS, LOCKED], ids=["open", "locked"])


@pytest.fixture
def old(tmp_path: Path) -> OldState:
    """The state file that a daemon of version 0.1.0 left."""
    return OldState(tmp_path)


@pytest.fixture
def migrated(old: OldState) -> Iterator[dict[str, Account]]:
    """Its accounts as this version has them."""
    with contextlib.closing(Store(str(old.path))) as store:
        yield {account.name: account for account in store.accounts()}


def table(path: Path, name: str) -> list[tuple[Any, ...]]:
    return sorted(query(path, f"SELECT * FROM {name}"), key=repr)


def old_marks(tally: Tally) -> bytes:
    """The marks as version 0.1.0 kept them, where a failure of all accounts cost 3 units."""
    assert all(mark.level.cost == 3 for mark in tally.all_marks())
    return b"".join(
        struct.pack("<16sddd", mark.digest, mark.succeeded, mark.level.units, mark.level.at)
        for mark in tally.all_marks()
    )


@VECTORS_OF_0_1_0
def test_every_row_that_is_about_no_account_stays_as_it_was(tmp_path: Path, vector: Path) -> None:
    old = OldState(tmp_path, vector)
    before = {name: table(old.path, name) for name in KEPT_TABLES}
    slots = query(old.path, "SELECT slot, units, at, 3 FROM slots")
    Store(str(old.path)).close()
    assert {name: table(old.path, name) for name in KEPT_TABLES} == before
    assert query(old.path, "SELECT slot, units, at, cost FROM slots") == slots


@VECTORS_OF_0_1_0
def test_every_account_comes_through_with_its_watermark_offset_drift_and_tally(
    tmp_path: Path, vector: Path
) -> None:
    old = OldState(tmp_path, vector)
    rows = query(
        old.path,
        "SELECT name, algorithm, digits, period, sealed, digest, last_step, offset, drift, failed_units,"
        " failed_at, marks, resets, reset_at FROM accounts ORDER BY name",
    )
    assert [row[0] for row in rows] == sorted(old.accounts)
    with contextlib.closing(Store(str(old.path))) as store:
        accounts = sorted(store.accounts(), key=lambda account: account.name)
    assert [
        (
            one.name,
            *(one.parameters.algorithm, one.parameters.digits, one.parameters.period),
            *(one.sealed, one.digest, one.last_step, one.offset, one.drift),
            *(one.tally.level.units, one.tally.level.at),
            *(old_marks(one.tally), one.tally.resets, one.tally.reset_at),
        )
        for one in accounts
    ] == rows
    assert all((one.label, one.others, one.made, one.used) == ("main", (), None, None) for one in accounts)


def test_the_state_has_all_that_the_test_is_about(old: OldState) -> None:
    """Otherwise it would show nothing."""
    with_some = (
        "offset > 0",
        "offset < 0",
        "drift > x''",
        "marks > x''",
        "resets > 0 AND failed_units > 0 AND reset_at > x''",
        "failed_units >= 162 - 3",
    )
    for condition in with_some:
        assert query(old.path, f"SELECT name FROM accounts WHERE {condition}"), condition
    assert query(old.path, "SELECT cutover FROM successors WHERE deadline > 0 ORDER BY cutover") == [
        (0,),
        (1,),
    ]
    assert query(old.path, "SELECT name FROM successors WHERE deadline IS NULL AND last_step >= 0")
    assert query(old.path, "SELECT period FROM periods WHERE floor > 0 AND lease > floor")
    for name in ("gone", "seed_files", "slots", "stretches"):
        assert query(old.path, f"SELECT * FROM {name}"), name


def test_every_successor_comes_through_with_its_deadline_and_cutover(old: OldState) -> None:
    rows = query(
        old.path,
        "SELECT name, algorithm, digits, period, sealed, digest, last_step, deadline, cutover"
        " FROM successors ORDER BY name",
    )
    assert len(rows) == 3
    with contextlib.closing(Store(str(old.path))) as store:
        found = {account.name: account for account in store.accounts() if account.successor is not None}
    after = []
    for name, account in sorted(found.items()):
        assert account.successor is not None
        one, of = account.successor.authenticator, account.successor.authenticator.parameters
        ends = (account.successor.deadline, account.successor.cutover)
        after.append((name, of.algorithm, of.digits, of.period, one.sealed, one.digest, one.last_step, *ends))
        assert (one.account_id, one.label, one.former) == (account.account_id, "main", name.encode())
        # It was used before, for another account or under floors: how far ahead it was is not known.
        assert one.drift == (UNKNOWN if one.last_step >= 0 else b"")
    assert after == rows


def test_every_account_gets_an_id_of_its_own_and_keeps_its_former_name(migrated: dict[str, Account]) -> None:
    ids = [account.account_id for account in migrated.values()]
    assert len(set(ids)) == len(ids)
    assert [len(each) for each in ids] == [16] * len(ids)
    assert all(account.former == name.encode() == account.caller for name, account in migrated.items())


def test_ids_are_the_same_after_another_start(old: OldState) -> None:
    ids = []
    for _ in range(2):
        with contextlib.closing(Store(str(old.path))) as store:
            ids.append({account.name: account.account_id for account in store.accounts()})
    assert ids[0] == ids[1]


@VECTORS_OF_0_1_0
def test_every_seal_of_version_0_1_0_opens_to_its_seed(tmp_path: Path, vector: Path) -> None:
    old = OldState(tmp_path, vector)
    with contextlib.closing(Store(str(old.path))) as store, old.master(store) as master:
        for account in store.accounts():
            known = old.accounts[account.name]
            seeds = [known["seed"], known.get("successor", {}).get("seed")]
            for one, seed in zip(account.seeds, seeds, strict=False):
                with master.opened(one.sealed, one.associated) as opened:
                    assert opened.hex() == seed


def test_version_0_1_0_refuses_the_new_state(old: OldState) -> None:
    """It refuses every schema above 5 (`_check` of its state/database.py), before it changes anything."""
    assert query(old.path, "PRAGMA user_version") == [(OLD_SCHEMA,)]
    Store(str(old.path)).close()
    ((version,),) = query(old.path, "PRAGMA user_version")
    assert version == len(schema.MIGRATIONS) > OLD_SCHEMA
    assert query(old.path, "PRAGMA application_id") == [(APPLICATION_ID,)]


# Files that no daemon made: odd bytes, and many accounts


ODD_NAMES = ["é", "ﬀ", "日本", "\U0001f511" * 4, "e\u0301", "a\x7f", "\ufeffbom", "x" * 64]


def test_all_bytes_come_through_in_digests_and_all_characters_in_names(tmp_path: Path) -> None:
    digests = [bytes([first, *bytes(14), last]) for first in range(256) for last in (0, first, 255)]
    names = [*ODD_NAMES, *(f"a{number}" for number in range(len(digests) - len(ODD_NAMES)))]
    rows = [(name, digest * 3, digest) for name, digest in zip(names, digests, strict=True)]
    make_old(tmp_path / "state.db", rows)
    with contextlib.closing(Store(str(tmp_path / "state.db"))) as store:
        accounts = list(store.accounts())
        assert {(one.name, one.sealed, one.digest) for one in accounts} == set(rows)
        assert {one.former.decode() for one in accounts} == set(names)


def test_a_hundred_thousand_accounts_come_through_in_seconds(tmp_path: Path, master: MasterKey) -> None:
    count, usual = 100_000, Parameters()
    names = [f"account-{number:06}" for number in range(count)]
    rows = [
        (name, master.seal(bytearray(SEED), associated(name, usual)), number.to_bytes(16))
        for number, name in enumerate(names)
    ]
    make_old(tmp_path / "state.db", rows)
    begun = time.process_time()
    with contextlib.closing(Store(str(tmp_path / "state.db"))) as store:
        took = time.process_time() - begun
        accounts = list(store.accounts())
    assert took < 20  # 1 s where nothing else runs
    assert [account.name for account in accounts] == names
    assert len({account.account_id for account in accounts}) == count
    assert [int.from_bytes(account.digest) for account in accounts] == list(range(count))
    for account in accounts[:: count // 100]:
        with master.opened(account.sealed, account.associated) as seed:
            assert bytes(seed) == SEED

"""A state file that cannot be used stops the start, is named, and is left as it is."""

import contextlib
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agents import NOW, SEED, STEP, make_keyring, open_below
from support.stores import keep

from pki2fad.errors import UnusableState
from pki2fad.rules.changes import Edit, Spend
from pki2fad.rules.otp import Parameters
from pki2fad.rules.recovery import ENTROPY, new_codes, new_set
from pki2fad.state.store import Store

PAGE = 4096
KEYRING = make_keyring()
ACCOUNTS = [KEYRING.seal(f"a{number:03}", bytearray(SEED), Parameters()) for number in range(200)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store with 200 accounts that was closed."""
    path = tmp_path / "state.db"
    with contextlib.closing(Store(str(path))) as store:
        fill(store)
    return path


def fill(store: Store) -> None:
    keep(store, [Edit(account.name, NOW.wall, account) for account in ACCOUNTS])
    keep(store, [Spend("a000", STEP, 30, NOW.wall)])


@contextlib.contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as any other program may edit it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        yield database
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def contents(path: Path) -> dict[str, bytes]:
    """The state file and its log, byte for byte; the index of the log is rebuilt by each reader."""
    files = (path, Path(f"{path}-wal"))
    return {each.name: each.read_bytes() for each in files if each.exists() and each.stat().st_size}


def assert_refused(path: Path, told: str) -> None:
    before = contents(path)
    with pytest.raises(UnusableState, match=f"(?s){re.escape(str(path))}.*{told}"):
        Store(str(path))
    assert contents(path) == before
    assert open_below(path.parent) == []


# Damage


def truncated(size: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:size]


def flipped(start: int, count: int = 16) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        end = start + count
        return content[:start] + bytes(byte ^ 0xFF for byte in content[start:end]) + content[end:]

    return flip


def zeroed(start: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:start] + bytes(PAGE) + content[start + PAGE :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda _content: bytes(range(256)) * 64,
    "text": lambda _content: b"these are not the accounts you are looking for\n",
    "half a header": truncated(50),
    "one page": truncated(PAGE),
    "the first half": lambda content: content[: len(content) // 2 // PAGE * PAGE],
    "header flipped": flipped(0),
    "schema flipped": flipped(100),
    "second page flipped": flipped(PAGE),
    "middle page flipped": flipped(8 * PAGE),
    "cells of a page flipped": flipped(8 * PAGE, PAGE),
    "second page zeroed": zeroed(PAGE),
    "middle page zeroed": zeroed(8 * PAGE),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_file_is_refused_and_left_as_it_is(path: Path, damage: str) -> None:
    content = path.read_bytes()
    assert len(content) > 10 * PAGE
    path.write_bytes(DAMAGE[damage](content))
    assert_refused(path, "damaged.*left as it is")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_log_beside_a_damaged_state_file_is_left_too(path: Path, damage: str) -> None:
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [Spend("a000", STEP + 1, 30, NOW.wall)])
        log = Path(f"{path}-wal").read_bytes()
    Path(f"{path}-wal").write_bytes(log)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert len(contents(path)) == 2
    assert_refused(path, "left as it is")


# Files of others


def test_another_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with edited(path) as database:
        database.execute("CREATE TABLE photos (name TEXT)")
    assert_refused(path, "is not a state file of pki2fad; it was left as it is")


def test_another_applications_database_is_refused_and_left_as_it_is(path: Path) -> None:
    with edited(path) as database:
        database.execute("PRAGMA application_id=42")
    assert_refused(path, "is not a state file of pki2fad")


def test_a_newer_state_file_is_refused_and_left_as_it_is(path: Path) -> None:
    with edited(path) as database:
        ((version,),) = database.execute("PRAGMA user_version")
        database.execute(f"PRAGMA user_version={version + 1}")
    assert_refused(path, f"newer version of pki2fad .schema {version + 1}, this one knows {version}.")


def test_a_newer_state_file_with_a_log_is_refused_and_both_are_left(tmp_path: Path) -> None:
    alive, path = tmp_path / "alive.db", tmp_path / "state.db"
    with contextlib.closing(Store(str(alive))) as store:
        fill(store)
        with contextlib.closing(sqlite3.connect(alive)) as newer:
            newer.execute("PRAGMA user_version=99")
            for end in ("", "-wal"):
                shutil.copy(f"{alive}{end}", f"{path}{end}")
    assert len(contents(path)) == 2
    assert_refused(path, "newer version")


@pytest.mark.parametrize("what", ["a directory", "in no directory", "below a file"])
def test_a_path_that_can_be_no_file_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state.db"
    if what == "a directory":
        path.mkdir()
    else:
        path = path / "state.db"
        if what == "below a file":
            path.parent.touch()
    with pytest.raises(UnusableState, match=re.escape(str(path))):
        Store(str(path))


WRONG_RECOVERY = [
    "codes = substr(codes, 1, 319)",
    "codes = CAST(codes || x'00' AS BLOB)",
    "codes = x''",
    "codes = hex(zeroblob(160))",
    "key = hex(key)",
    "key = 5",
    "used = 1024",
    "used = -1",
    "used = 'none'",
    "made = 'today'",
]


@pytest.mark.parametrize("wrong", WRONG_RECOVERY)
def test_a_row_that_cannot_be_recovery_codes_is_refused_by_name(path: Path, wrong: str) -> None:
    account = ACCOUNTS[7]
    codes = new_codes(bytes(ENTROPY))
    recovery = new_set(
        account.name, account.account_id, codes, key=bytearray(32), master=KEYRING.master, made=1
    )
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [Edit(account.name, NOW.wall, account.with_recovery(recovery))])
        (kept,) = [one.recovery for one in store.accounts() if one.recovery is not None]
        assert (kept.name, kept.sealed, kept.hashes) == ("a007", recovery.sealed, recovery.hashes)
    with edited(path) as database:
        database.execute(f"UPDATE recovery SET {wrong}")
    with contextlib.closing(Store(str(path))) as store:
        told = f"(?s){re.escape(str(path))} is damaged.*recovery codes of account 'a007'"
        with pytest.raises(UnusableState, match=told):
            list(store.accounts())


# What is not damaged


def test_what_was_kept_survives_the_death_of_the_process(tmp_path: Path) -> None:
    alive, path = tmp_path / "alive.db", tmp_path / "state.db"
    with contextlib.closing(Store(str(alive))) as store:
        fill(store)
        for end in ("", "-wal"):
            shutil.copy(f"{alive}{end}", f"{path}{end}")
    with contextlib.closing(Store(str(path))) as store:
        assert {account.name: account.last_step for account in store.accounts()} == {
            account.name: STEP if account.name == "a000" else -1 for account in ACCOUNTS
        }


@pytest.mark.parametrize("made", ["nothing", "header", "header and log"])
def test_a_file_whose_making_was_cut_short_is_taken(tmp_path: Path, made: str) -> None:
    path = tmp_path / "state.db"
    path.touch(mode=0o600)
    if made != "nothing":
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            if made == "header and log":
                database.execute("PRAGMA wal_autocheckpoint=0")
                database.execute("BEGIN")
                database.execute("CREATE TABLE meta (name TEXT)")
                for end in ("", "-wal"):
                    shutil.copy(f"{path}{end}", f"{path}.copy{end}")
                path = Path(f"{path}.copy")
    with contextlib.closing(Store(str(path))) as store:
        fill(store)
        assert len(list(store.accounts())) == len(ACCOUNTS)


def test_any_character_may_be_in_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a ?b=c#d%20e&\u00e9'.db"
    with contextlib.closing(Store(str(path))) as store:
        fill(store)
    assert list(tmp_path.iterdir()) == [path]
    with contextlib.closing(Store(str(path))) as store:
        assert len(list(store.accounts())) == len(ACCOUNTS)
    with edited(path) as database:
        database.execute("PRAGMA user_version=99")
    assert_refused(path, "newer version")


# Rows


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("algorithm", "MD5"),
        ("algorithm", "sha1"),
        ("digits", 5),
        ("digits", 9),
        ("digits", "six"),
        ("digits", 6.5),
        ("period", 121),
        ("period", -30),
        ("last_step", "last"),
        ("last_step", 1.5),
        ("sealed", "text"),
        ("fixed", 7),
        ("fixed", b"short"),
        ("used", "now"),
        ("marks", bytes(41)),
        ("marks", bytes(7)),
    ],
)
def test_a_row_with_a_value_out_of_range_or_of_another_type_is_damage_of_a_named_account(
    path: Path, column: str, value: object
) -> None:
    with edited(path) as database:
        database.execute(f"UPDATE accounts SET {column} = ? WHERE name = 'a007'", (value,))
    told = f"{re.escape(str(path))} is damaged \\(account 'a007'"
    with contextlib.closing(Store(str(path))) as store, pytest.raises(UnusableState, match=told):
        list(store.accounts())


@pytest.mark.parametrize("row", ["(1, 'much', 0.0, 3)", "(1, 3.0, x'', 3)", "(1, 3.0, 0.0, 0)"])
def test_a_row_that_can_be_no_slot_of_the_throttle_is_damage(path: Path, row: str) -> None:
    with edited(path) as database:
        database.execute(f"INSERT OR REPLACE INTO slots VALUES {row}")
    with contextlib.closing(Store(str(path))) as store, pytest.raises(UnusableState, match="slot 1"):
        list(store.throttle_slots())


def test_a_state_that_is_taken_apart_while_in_use_raises_no_other_error(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        with edited(path) as database:
            database.execute("DROP TABLE accounts")
        with pytest.raises(UnusableState, match=str(path)):
            list(store.accounts())
        with pytest.raises(UnusableState, match=str(path)):
            keep(store, [Spend("a000", STEP + 1, 30, NOW.wall)])

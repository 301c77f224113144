"""The state file and its disk: nothing half-kept when it is full, and a log that does not grow for ever."""

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import (
    CODE,
    NOW,
    OTHER_SEED,
    ROOT,
    SEED,
    STEP,
    booted,
    call,
    fill_disk,
    is_valid,
    make_keyring,
    open_below,
    reference_code,
    sealed,
    small_disk,
)
from support.stores import keep

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import UnusableState
from pki2fad.methods.agent import Agent
from pki2fad.rules.account import Account
from pki2fad.rules.changes import Edit, Spend
from pki2fad.rules.otp import Parameters
from pki2fad.state.store import Store

PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as disk:
        yield disk


def accounts(count: int) -> list[Account]:
    keyring = make_keyring()
    return [keyring.seal(f"a{number}", bytearray(SEED), Parameters()) for number in range(count)]


def put(account: Account, gone: Account | None = None, file_digest: bytes | None = None) -> Edit:
    return Edit(account.name, NOW.wall, account, gone.seeds if gone else (), file_digest)


def spend(step: int, name: str = "a0") -> Spend:
    return Spend(name, step, 30, NOW.wall)


def state_of(store: Store) -> tuple[object, ...]:
    rows = [
        (account.name, account.parameters, account.sealed, account.digest, account.last_step)
        for account in store.accounts()
    ]
    return rows, store.gone(), store.file_digests()


def log_size(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


# A full disk


@pytest.mark.parametrize("kind", ["a spend", "an edit", "a removal", "many of both"])
def test_on_a_full_disk_nothing_is_half_kept_and_room_mends_it(disk: Path, kind: str) -> None:
    first, second, *more = accounts(100)
    changes = {
        "a spend": [spend(STEP)],
        "an edit": [put(second, first, b"digest")],
        "a removal": [Edit("a0", NOW.wall, put=None, gone=first.seeds)],
        "many of both": [spend(STEP), *(put(account, first, b"digest") for account in more), spend(STEP + 1)],
    }[kind]
    with contextlib.closing(Store(str(disk / "state.db"))) as store:
        keep(store, [put(first)])
        before = state_of(store)
        fill_disk(disk / "filler")
        for _ in range(3):
            with pytest.raises(UnusableState, match=r"state\.db: .*full"):
                keep(store, changes)
            assert state_of(store) == before
        (disk / "filler").unlink()
        assert keep(store, changes) == [True] * len(changes)
        after = state_of(store)
        assert after != before
    with contextlib.closing(Store(str(disk / "state.db"))) as store:
        assert state_of(store) == after


@pytest.fixture
def loaded(disk: Path) -> Iterator[tuple[Agent, Store]]:
    """An agent with one account, over a state file on the small disk."""
    with contextlib.closing(MasterKey()) as master, booted(disk / "state.db", master, NOW) as (agent, store):
        call(agent, "load", ROOT, NOW, store=store, sealed=sealed(SEED))
        yield agent, store


def test_a_code_that_met_a_full_disk_is_not_accepted_afterwards(
    disk: Path, loaded: tuple[Agent, Store]
) -> None:
    agent, store = loaded
    fill_disk(disk / "filler")
    with pytest.raises(UnusableState):
        is_valid(agent, CODE, NOW, store=store)
    (disk / "filler").unlink()
    assert not is_valid(agent, CODE, NOW, store=store)
    assert is_valid(agent, reference_code(SEED, STEP + 1), NOW, store=store)


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("load", {"account": "new", "sealed": sealed(SEED)}),
        ("load", {"sealed": sealed(OTHER_SEED), "replace": True}),
        ("remove", {}),
    ],
)
def test_an_edit_that_met_a_full_disk_has_not_moved_memory(
    disk: Path, loaded: tuple[Agent, Store], method: str, args: dict[str, Any]
) -> None:
    agent, store = loaded
    fill_disk(disk / "filler")
    with pytest.raises(UnusableState):
        call(agent, method, ROOT, NOW, store=store, **args)
    assert agent.account_count == 1
    assert call(agent, "generate", ROOT, NOW)["code"] == CODE


def leave_room(filler: Path, pages: int) -> None:
    """Fill the disk, but for some pages."""
    fill_disk(filler)
    os.truncate(filler, filler.stat().st_size - pages * PAGE)


@pytest.mark.parametrize("pages", [0, 1, 2, 8, 9, 10, 11, 14])
def test_a_state_file_cannot_be_made_on_a_full_disk_and_can_be_afterwards(disk: Path, pages: int) -> None:
    path = disk / "state.db"
    leave_room(disk / "filler", pages)
    with pytest.raises(UnusableState, match=str(path)):
        Store(str(path))
    assert open_below(disk) == []
    (disk / "filler").unlink()
    with contextlib.closing(Store(str(path))) as store:
        assert keep(store, [put(accounts(1)[0])]) == [True]


# The write-ahead log


def test_the_write_ahead_log_is_copied_into_the_database_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    others = set(threading.enumerate())
    sizes = []
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [put(accounts(1)[0])])
        for step in range(6000):
            assert keep(store, [spend(step)]) == [True]
            if step % 1000 == 999:
                sizes.append(log_size(path))
            for copying in set(threading.enumerate()) - others:
                copying.join()
        assert max(sizes) < 1.5 * sizes[0]
        shutil.copy(path, tmp_path / "without-log.db")
    with contextlib.closing(Store(str(tmp_path / "without-log.db"))) as store:
        assert next(account.last_step for account in store.accounts()) >= 4990


LIMIT = 64 * 1024 * 1024  # bytes of log above which what is kept next waits for its copy


def grow_log(store: Store, path: Path) -> None:
    """Grow the log beyond its limit while a reader holds it."""
    large = Account("large", Parameters(), bytes(16 * 1024 * 1024), bytes(54))
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM accounts").fetchall()
        while log_size(path) <= LIMIT:
            keep(store, [put(large), put(accounts(1)[0])])


def last_steps(path: Path) -> dict[str, int]:
    """The watermarks in a state file, by account."""
    with contextlib.closing(Store(str(path))) as store:
        return {account.name: account.last_step for account in store.accounts()}


def test_a_log_that_grew_large_is_copied_with_what_is_kept_and_is_short_again(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    others = set(threading.enumerate())
    with contextlib.closing(Store(str(path))) as store:
        grow_log(store, path)
        for step in range(1000):
            keep(store, [spend(step)])
            if log_size(path) <= LIMIT:
                break
        assert log_size(path) <= LIMIT
        assert set(threading.enumerate()) <= others
        shutil.copy(path, tmp_path / "without-log.db")
    assert last_steps(tmp_path / "without-log.db") == {"a0": step, "large": -1}


def test_a_copy_of_the_log_that_fails_takes_nothing_back(tmp_path: Path) -> None:
    with small_disk(tmp_path, "112m"):
        path = tmp_path / "state.db"
        with contextlib.closing(Store(str(path))) as store:
            grow_log(store, path)
            leave_room(tmp_path / "filler", 2000)  # enough for commits, not for the copy
            size = path.stat().st_size
            kept = 0
            with contextlib.suppress(UnusableState):  # once the copy has taken all the room
                while kept < 1000:
                    assert keep(store, [spend(kept + 1)]) == [True]
                    kept += 1
            assert path.stat().st_size > size
            assert next(store.accounts()).last_step == kept > 0
            (tmp_path / "filler").unlink()
            assert keep(store, [spend(STEP)]) == [True]
        assert last_steps(path)["a0"] == STEP

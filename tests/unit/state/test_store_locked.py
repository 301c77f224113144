"""Another process keeps the state file locked: it is named, and nothing is lost by looking."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agents import SEED, at_step, logged, make_keyring
from support.stores import keep

from pki2fad.errors import UnusableState
from pki2fad.host import locks
from pki2fad.rules.changes import Edit, Shred
from pki2fad.rules.otp import Parameters
from pki2fad.state.store import Store

NOW = at_step(50_000_000)
EDIT = Edit("a", NOW.wall, make_keyring().seal("a", bytearray(SEED), Parameters()))

HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    list(database.execute(statement))
print("locked", flush=True)
sys.stdin.read()
"""
WRITES = ("BEGIN IMMEDIATE",)
READS = ("BEGIN", "SELECT * FROM meta")
OWNS = ("PRAGMA locking_mode=EXCLUSIVE", "BEGIN IMMEDIATE", "COMMIT")

Hold = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store that was closed."""
    path = tmp_path / "state.db"
    Store(str(path)).close()
    return path


@pytest.fixture
def hold(path: Path) -> Iterator[Hold]:
    """Starts a process that has locked the file by these statements, until the end of the test."""
    with contextlib.ExitStack() as running:

        def hold(*statements: str) -> "subprocess.Popen[bytes]":
            process = running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD, str(path), *statements],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            return process

        yield hold


def named(process: "subprocess.Popen[bytes]") -> str:
    """How a message calls it: as the kernel does."""
    command = Path(f"/proc/{process.pid}/comm").read_text().strip()
    return rf"pid {process.pid} \({command}\)"


def test_who_writes_too_long_is_named_and_afterwards_all_is_well(path: Path, hold: Hold) -> None:
    with contextlib.closing(Store(str(path))) as store:
        writer = hold(*WRITES)
        with pytest.raises(UnusableState, match=f"{path}: {named(writer)} has locked it for more than 2 s"):
            keep(store, [EDIT])
        writer.communicate()
        assert keep(store, [EDIT]) == [True]


def test_who_has_the_file_alone_is_named_at_the_start(path: Path, hold: Hold) -> None:
    owner = hold(*OWNS)
    with pytest.raises(UnusableState, match=f"{path}: {named(owner)} has locked it"):
        Store(str(path))
    owner.communicate()
    Store(str(path)).close()


def test_who_reads_is_named_where_the_log_is_to_be_emptied(path: Path, hold: Hold) -> None:
    with contextlib.closing(Store(str(path))) as store:
        reader = hold(*READS)
        keep(store, [EDIT])
        with pytest.raises(UnusableState, match=f"{named(reader)} reads it"):
            keep(store, [Shred()])
        reader.communicate()
        keep(store, [Shred()])


def test_a_reader_is_not_named_for_a_writer(path: Path, hold: Hold) -> None:
    with contextlib.closing(Store(str(path))) as store:
        hold(*READS)
        writer = hold(*WRITES)
        hold(*READS)
        with pytest.raises(UnusableState, match=named(writer)):
            keep(store, [EDIT])


def test_who_only_has_the_file_open_and_we_ourselves_hold_nothing(path: Path, hold: Hold) -> None:
    with contextlib.closing(Store(str(path))) as store:
        hold("SELECT * FROM meta")
        store.file.database.execute("BEGIN IMMEDIATE")
        assert locks.sqlite_holder(str(path)) is None
        store.file.database.execute("ROLLBACK")


def test_to_look_for_the_holder_drops_no_lock_of_ours(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        store.file.database.execute("BEGIN IMMEDIATE")
        assert locks.sqlite_holder(str(path)) is None
        script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
        assert "database is locked" in done.stderr
        store.file.database.execute("ROLLBACK")


def test_a_second_name_of_the_state_file_is_told_at_the_start(path: Path) -> None:
    with logged() as lines:
        Store(str(path)).close()
    assert lines == []
    os.link(path, path.with_name("second"))
    with logged() as lines:
        Store(str(path)).close()
    (line,) = lines
    assert line.startswith(f"state_linked path={path} names=2 ")

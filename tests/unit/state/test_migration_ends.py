"""A migration that is killed at any moment, or meets a full disk, changes nothing, and is done later."""

import contextlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.agents import fill_disk, open_below, small_disk
from support.oldstate import VECTORS, OldState, query

from pki2fad.errors import UnusableState
from pki2fad.state import schema
from pki2fad.state.store import Store

TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
INTERVAL = 60  # instructions of SQLite's machine between two kills

Content = dict[str, list[tuple[Any, ...]]]


def content(path: Path) -> Content:
    """All rows by table. Account ids, which differ with each migration, are counted instead."""
    tables: Content = {
        name: sorted(query(path, f"SELECT * FROM {name}"), key=repr) for (name,) in query(path, TABLES)
    }
    if "ids" not in tables:
        return tables
    ids = {row[0]: row[6][:16] for row in tables["accounts"]}
    assert all(row[6][:16] == ids[row[0]] for row in tables["successors"])
    for name in ("accounts", "successors"):
        tables[name] = [(*row[:6], row[6][16:], *row[7:]) for row in tables[name]]
    return {**tables, "distinct ids": [(len(set(ids.values())),)]}


def test_a_migration_that_was_killed_at_any_moment_is_done_whole_the_next_time(tmp_path: Path) -> None:
    old = OldState(tmp_path)
    before = content(old.path)
    killed = tmp_path / "killed"
    killed.mkdir()
    command = [sys.executable, "-P", "-m", "support.killed", old.path, killed, str(INTERVAL)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    moments = int(done.stdout)
    Store(str(old.path)).close()
    after = content(old.path)
    assert after.keys() > before.keys()
    seen: Counter[int] = Counter()
    for moment in range(moments):
        path = killed / f"{moment}.db"
        ((version,),) = query(path, "PRAGMA user_version")
        seen[version] += 1
        assert content(path) == (before if version == 5 else after)
        Store(str(path)).close()
        assert content(path) == after
    assert seen.keys() == {5, len(schema.MIGRATIONS)}
    assert seen[5] > 50


@pytest.mark.parametrize("pages", [0, 1, 2, 8, 9, 10, 11, 12])
def test_a_full_disk_during_a_migration_changes_nothing_and_room_mends_it(tmp_path: Path, pages: int) -> None:
    whole = OldState(tmp_path)
    before = content(whole.path)
    Store(str(whole.path)).close()
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", "512k") as disk:
        path = disk / "state.db"
        shutil.copy(VECTORS / "state.db", path)
        (disk / "room").write_bytes(bytes(pages * 4096))
        fill_disk(disk / "filler")
        (disk / "room").unlink()
        with pytest.raises(UnusableState, match=r"state\.db: .*(full|disk)"):
            Store(str(path))
        assert open_below(disk) == []
        assert path.read_bytes() == (VECTORS / "state.db").read_bytes()
        (disk / "filler").unlink()
        assert content(path) == before
        with contextlib.closing(Store(str(path))):
            pass
        assert content(path) == content(whole.path)

"""The minute log's file: its mode, rotation, unfinished lines, full disks, and where codes never go."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import (
    ROOT,
    SEED,
    at,
    call,
    code_line,
    fill_disk,
    logged,
    make_agent,
    make_keyring,
    open_below,
    sealed,
    small_disk,
    stamp,
    write_due,
)
from support.paths import mode
from support.peers import require_root

from pki2fad.daemon.minutelog import MinuteLog

MINUTE = 1_700_000_040
PAGE = 4096


def make_log(path: Path) -> MinuteLog:
    """A minute log as a start makes it."""
    return MinuteLog(make_agent(make_keyring({"default": SEED})), ROOT, {"default": str(path)})


@pytest.fixture
def log(path: Path) -> MinuteLog:
    return make_log(path)


def content(*walls: float) -> str:
    return "".join(f"{code_line(wall)}\n" for wall in walls)


# Mode


@pytest.fixture
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.parametrize("_umask", [0, 0o022, 0o077], indirect=True)
@pytest.mark.usefixtures("_umask")
def test_the_file_is_made_for_its_owner_only(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE)
    assert mode(path) == 0o600


@pytest.mark.parametrize("wrong", [0o644, 0o666, 0o640, 0o700, 0o4600])
def test_another_mode_is_mended_before_a_line_is_written(log: MinuteLog, path: Path, wrong: int) -> None:
    write_due(log, MINUTE)
    path.chmod(wrong)
    write_due(log, MINUTE + 60)
    assert mode(path) == 0o600
    assert path.read_text() == content(MINUTE, MINUTE + 60)


def test_a_file_that_cannot_be_made_private_is_not_written(tmp_path: Path, path: Path) -> None:
    with small_disk(tmp_path):
        path.write_text(content(MINUTE))
        path.chmod(0o644)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with logged() as lines:
            write_due(make_log(path), MINUTE + 60, MINUTE + 61)
        assert path.read_text() == content(MINUTE)
        assert open_below(tmp_path) == []
    assert len(lines) == 1
    assert lines[0].startswith(f"minute_log_failed path={path} ")


# Rotation


@pytest.mark.parametrize("second", [1, 60])
def test_a_renamed_file_is_left_alone_and_a_new_one_goes_on(
    log: MinuteLog, path: Path, tmp_path: Path, second: int
) -> None:
    old = tmp_path / "codes.log.1"
    write_due(log, MINUTE)
    path.rename(old)
    write_due(log, MINUTE + second, MINUTE + 60, MINUTE + 61, MINUTE + 120)
    assert old.read_text() == content(MINUTE)
    assert path.read_text() == content(MINUTE + 60, MINUTE + 120)
    assert mode(path) == 0o600


def test_why_there_is_no_code_is_not_repeated_in_a_new_file(path: Path, tmp_path: Path) -> None:
    log = MinuteLog(make_agent(make_keyring()), ROOT, {"default": str(path)})
    write_due(log, MINUTE)
    path.rename(tmp_path / "codes.log.1")
    write_due(log, MINUTE + 1, MINUTE + 60)
    assert not path.exists()


def test_a_copied_and_truncated_file_goes_on(log: MinuteLog, path: Path, tmp_path: Path) -> None:
    old = tmp_path / "codes.log.1"
    write_due(log, MINUTE)
    shutil.copy(path, old)
    os.truncate(path, 0)
    write_due(log, MINUTE + 1, MINUTE + 60, MINUTE + 120)
    assert old.read_text() == content(MINUTE)
    assert path.read_text() == content(MINUTE + 60, MINUTE + 120)


def test_a_file_that_another_program_writes_is_appended_to(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE)
    with path.open("a") as file:
        file.write("rotated by hand\n")
    write_due(log, MINUTE + 60)
    assert path.read_text() == content(MINUTE) + "rotated by hand\n" + content(MINUTE + 60)


@pytest.mark.parametrize("end", ["", f"{stamp(MINUTE)} - 2FA Code: 12", "half a line"])
def test_a_line_that_was_left_unfinished_is_ended_first(log: MinuteLog, path: Path, end: str) -> None:
    before = content(MINUTE - 60) + end
    path.write_text(before)
    write_due(log, MINUTE)
    assert path.read_text() == (f"{before}\n" if end else before) + content(MINUTE)


# A file that another one was put in the place of, as `pki2factl migrate` does


def put(path: Path, text: str) -> None:
    """Give the name to another file, in one step."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def test_a_file_that_was_put_there_with_a_code_for_this_minute_gets_no_second_one(
    log: MinuteLog, path: Path
) -> None:
    write_due(log, MINUTE)
    put(path, content(MINUTE, MINUTE + 60))
    write_due(log, MINUTE + 61, MINUTE + 62, MINUTE + 120)
    assert path.read_text() == content(MINUTE, MINUTE + 60, MINUTE + 120)


def test_a_file_that_was_put_there_before_there_was_a_code_counts_too(path: Path) -> None:
    agent = make_agent(make_keyring())
    log = MinuteLog(agent, ROOT, {"default": str(path)})
    write_due(log, MINUTE)
    put(path, before := content(MINUTE + 1) + path.read_text())
    call(agent, "load", ROOT, at(MINUTE + 2), sealed=sealed(SEED))
    write_due(log, MINUTE + 2, MINUTE + 60)
    assert path.read_text() == before + content(MINUTE + 60)


def test_a_file_that_was_put_there_with_older_codes_makes_no_code_due_again(
    log: MinuteLog, path: Path
) -> None:
    write_due(log, MINUTE)
    put(path, content(MINUTE - 120))
    write_due(log, MINUTE + 1, MINUTE + 60)
    assert path.read_text() == content(MINUTE - 120, MINUTE + 60)


def test_what_the_file_that_was_put_there_says_last_is_not_repeated(path: Path) -> None:
    log = MinuteLog(make_agent(make_keyring()), ROOT, {"default": str(path)})
    write_due(log, MINUTE)
    put(path, before := content(MINUTE - 60) + path.read_text())
    write_due(log, MINUTE + 1, MINUTE + 60)
    assert path.read_text() == before


def test_a_file_that_got_the_inode_of_one_that_is_gone_counts_too(path: Path) -> None:
    agent = make_agent(make_keyring())
    log = MinuteLog(agent, ROOT, {"default": str(path)})
    write_due(log, MINUTE, MINUTE + 0.5)
    inode = path.stat().st_ino
    path.write_text(before := content(MINUTE + 1))
    assert path.stat().st_ino == inode
    call(agent, "load", ROOT, at(MINUTE + 2), sealed=sealed(SEED))
    write_due(log, MINUTE + 2, MINUTE + 60)
    assert path.read_text() == before + content(MINUTE + 60)


def test_a_file_with_codes_of_the_future_that_was_put_there_ends_no_lines(log: MinuteLog, path: Path) -> None:
    write_due(log, MINUTE)
    put(path, before := content(MINUTE + 3600))
    write_due(log, MINUTE + 1, MINUTE + 60, MINUTE + 61, MINUTE + 120)
    assert path.read_text() == before + content(MINUTE + 60, MINUTE + 120)


def test_codes_before_line_ends_of_other_systems_count_too(path: Path) -> None:
    path.write_text(before := content(MINUTE), newline="\r\n")
    write_due(make_log(path), MINUTE + 1, MINUTE + 60)
    assert path.read_bytes().decode() == before.replace("\n", "\r\n") + content(MINUTE + 60)


# Where codes never go


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """What reads as the terminal's screen, and the terminal's path."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


def test_nothing_is_written_to_a_terminal(terminal: tuple[int, str]) -> None:
    screen, name = terminal
    with logged() as lines:
        write_due(make_log(Path(name)), MINUTE, MINUTE + 60)
    with pytest.raises(BlockingIOError):
        os.read(screen, 1)
    assert len(lines) == 1
    assert "not a regular file" in lines[0]


def test_nothing_is_written_to_a_fifo_and_nobody_waits_for_its_reader(log: MinuteLog, path: Path) -> None:
    os.mkfifo(path, 0o600)
    write_due(log, MINUTE)  # nobody reads
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        with logged() as lines:
            write_due(make_log(path), MINUTE, MINUTE + 60)
        assert reader.read(1) == b""
    assert len(lines) == 1


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_written_through_a_symbolic_link(
    log: MinuteLog, path: Path, tmp_path: Path, exists: bool
) -> None:
    target = tmp_path / "target"
    if exists:
        target.touch()
    path.symlink_to(target)
    with logged() as lines:
        write_due(log, MINUTE)
    assert len(lines) == 1
    assert (target.read_bytes() if exists else target.exists()) in (b"", False)


def test_nothing_is_written_to_a_file_that_has_a_second_name(
    log: MinuteLog, path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.touch(mode=0o600)
    path.hardlink_to(target)
    with logged() as lines:
        write_due(log, MINUTE, MINUTE + 1)
    assert len(lines) == 1
    assert target.read_bytes() == b""
    target.unlink()
    write_due(log, MINUTE + 2)
    assert path.read_text() == content(MINUTE + 2)


def test_nothing_is_written_to_a_file_of_somebody_else(log: MinuteLog, path: Path) -> None:
    require_root()
    path.touch(mode=0o600)
    os.chown(path, 12345, 12345)
    with logged() as lines:
        write_due(log, MINUTE, MINUTE + 1)
    assert len(lines) == 1
    assert path.read_bytes() == b""


@pytest.mark.parametrize("kind", ["terminal", "fifo", "link"])
def test_a_file_that_is_exchanged_while_the_daemon_runs_gets_nothing_more(
    log: MinuteLog, path: Path, tmp_path: Path, kind: str, terminal: tuple[int, str]
) -> None:
    write_due(log, MINUTE)
    path.unlink()
    target = tmp_path / "target"
    target.touch()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(terminal[1] if kind == "terminal" else target)
    with logged() as lines:
        write_due(log, MINUTE + 60)
    assert len(lines) == 1
    assert target.read_bytes() == b""
    path.unlink()
    write_due(log, MINUTE + 61)
    assert path.read_text() == content(MINUTE + 61)


# Trouble


def test_trouble_is_told_once_until_it_is_over_and_again_when_it_is_back(log: MinuteLog, path: Path) -> None:
    with logged() as lines:
        for minute in (0, 2):
            path.symlink_to("nowhere")
            write_due(log, *(MINUTE + 60 * minute + second for second in range(60)))
            path.unlink()
            write_due(log, MINUTE + 60 * minute + 59.5)
            path.unlink()
    assert [line.split()[:2] for line in lines] == [["minute_log_failed", f"path={path}"]] * 2


def test_other_trouble_is_told_too(log: MinuteLog, path: Path) -> None:
    with logged() as lines:
        path.symlink_to("nowhere")
        write_due(log, MINUTE)
        path.unlink()
        path.mkdir()
        write_due(log, MINUTE + 1)
    assert len(lines) == 2


def test_a_directory_that_is_missing_is_told_and_mended_by_making_it(tmp_path: Path) -> None:
    path = tmp_path / "log" / "codes.log"
    log = make_log(path)
    with logged() as lines:
        write_due(log, MINUTE, MINUTE + 1)
        path.parent.mkdir()
        write_due(log, MINUTE + 2, MINUTE + 3)
    assert len(lines) == 1
    assert path.read_text() == content(MINUTE + 2)


def test_one_accounts_trouble_does_not_keep_another_from_its_line(tmp_path: Path) -> None:
    agent = make_agent(make_keyring({"a": SEED, "b": SEED}))
    paths = {"a": str(tmp_path / "missing" / "a.log"), "b": str(tmp_path / "b.log")}
    with logged() as lines:
        write_due(MinuteLog(agent, ROOT, paths), MINUTE)
    assert len(lines) == 1
    assert (tmp_path / "b.log").read_text() == content(MINUTE)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, "64k") as disk:
        yield disk


@pytest.mark.parametrize("room", [0, 1, 20, 38])
def test_a_full_disk_leaves_no_half_line_and_is_told_once(
    disk: Path, log: MinuteLog, path: Path, room: int
) -> None:
    before = content(MINUTE - 60)
    before = "#" * (PAGE - room - len(before) - 1) + "\n" + before
    path.write_text(before)
    fill_disk(disk / "filler")
    with logged() as lines:
        write_due(log, *(MINUTE + second for second in range(30)))
        assert path.read_text() == before
        (disk / "filler").unlink()
        write_due(log, MINUTE + 30, MINUTE + 31)
    assert path.read_text() == before + content(MINUTE + 30)
    assert len(lines) == 1
    assert "No space left" in lines[0]


def test_a_file_that_cannot_be_made_on_a_full_disk_is_made_later(
    disk: Path, log: MinuteLog, path: Path
) -> None:
    fill_disk(disk / "filler")
    with logged() as lines:
        write_due(log, MINUTE, MINUTE + 1)
    assert len(lines) == 1
    with contextlib.suppress(FileNotFoundError):
        assert path.read_bytes() == b""
    (disk / "filler").unlink()
    write_due(log, MINUTE + 2)
    assert path.read_text() == content(MINUTE + 2)


def test_no_file_is_left_open(log: MinuteLog, path: Path, tmp_path: Path) -> None:
    write_due(log, MINUTE, MINUTE - 60, MINUTE + 60)
    path.unlink()
    path.mkdir()
    write_due(log, MINUTE + 120)
    path.rmdir()
    os.mkfifo(path)
    write_due(log, MINUTE + 180)
    assert open_below(tmp_path) == []

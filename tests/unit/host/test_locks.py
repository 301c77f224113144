"""The lock file: one holder, whom it names, until that one's death."""

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import no_descriptor_stays_open

from pki2fad.errors import AlreadyRunning, UnusablePath
from pki2fad.host import locks

HOLD = """
import sys
from pki2fad.host import locks
locks.lock(sys.argv[1], 'is busy')
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def holder(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which has the lock."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_the_lock_file_has_our_pid_and_is_ours_alone(path: Path) -> None:
    path.write_text("4194304 of somebody long gone\n")
    path.chmod(0o600)
    descriptor = locks.lock(str(path), "is busy")
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_lock_file_that_its_holder_removed_meanwhile_locks_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = locks.lock(str(path), "is busy")
    waiting = os.open(path, os.O_RDWR)
    path.unlink()
    os.close(held)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_: waiting)  # as if opened just before it was removed
        with pytest.raises(AlreadyRunning):
            locks.lock(str(path), "is busy")
    os.close(locks.lock(str(path), "is busy"))


def test_another_process_is_kept_out_and_told_whom_to_stop(
    path: Path, holder: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(AlreadyRunning) as caught:
        locks.lock(str(path), "is busy")
    assert f"pid {holder.pid}" in str(caught.value)
    assert "is busy" in str(caught.value)
    assert path.read_text() == f"{holder.pid}\n"


def test_the_lock_is_free_when_its_holder_was_killed(path: Path, holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    holder.wait()
    os.close(locks.lock(str(path), "is busy"))


def test_the_lock_is_free_when_its_descriptor_is_closed(path: Path) -> None:
    os.close(locks.lock(str(path), "is busy"))
    os.close(locks.lock(str(path), "is busy"))


def test_a_refused_lock_leaves_no_descriptor_open(path: Path, holder: "subprocess.Popen[str]") -> None:
    assert holder.poll() is None
    with no_descriptor_stays_open(), pytest.raises(AlreadyRunning):
        locks.lock(str(path), "is busy")


def test_a_holder_that_has_not_said_its_pid_yet_keeps_others_out_too(path: Path) -> None:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning, match="pid unknown"):
            locks.lock(str(path), "is busy")


def test_a_lock_stays_with_a_child_when_its_parent_ends(path: Path) -> None:
    script = """
import os, sys
from pki2fad.host import locks
locks.lock(sys.argv[1], 'is busy')
reading, writing = os.pipe()
if os.fork():
    os.close(writing)
    os.read(reading, 1)  # the child holds it, and the parent ends
    os._exit(0)
os.write(writing, b"+")
sys.stdin.read()
os._exit(0)
"""
    reading, writing = os.pipe()
    try:
        subprocess.run([sys.executable, "-P", "-c", script, str(path)], stdin=reading, check=True)
        with pytest.raises(AlreadyRunning):
            locks.lock(str(path), "is busy")
    finally:
        os.close(writing)
        os.close(reading)


def test_a_lock_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "directory").mkdir()
    for name in ("missing/lock", "link", "directory"):
        with pytest.raises(UnusablePath, match=f"cannot open the lock .*/{name}: "):
            locks.lock(str(tmp_path / name), "is busy")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_cannot_be_written_is_named_and_not_kept(path: Path) -> None:
    script = """
import os, resource, sys
from pki2fad.host import locks
from pki2fad.errors import UnusablePath
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
try:
    locks.lock(sys.argv[1], 'is busy')
except UnusablePath as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
os.close(locks.lock(sys.argv[1], 'is busy'))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cannot write the lock {path}: File too large\n"

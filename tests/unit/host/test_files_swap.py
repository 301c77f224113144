"""Somebody owns the directory in which root makes things, and puts links in their place meanwhile."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.peers import require, require_root

from pki2fad.errors import UnusablePath
from pki2fad.host import files

UID = 4711
TRIES = 300  # six of which succeeded where the mode was changed by the path
MOST_TRIES = 100 * TRIES  # on a machine so busy that the user does not run meanwhile

# Exchanges the directory for a link before whatever comes next, each time there is one.
SWAP = """
import os, sys
from pki2fad.host import files
from pki2fad.errors import UnusablePath
parent, victim, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])
new = f"{parent}/new"
swapped = []

def swap(event, arguments):
    if not swapped and event in EVENTS and os.path.isdir(new):
        swapped.append(event)
        os.rename(new, f"{parent}/aside")
        os.symlink(victim, new)

EVENTS = {"os.chmod", "os.chown", "os.mkdir", "open"}
sys.addaudithook(swap)
try:
    files.make_directory(f"{new}{sys.argv[4]}", 0o755)
except UnusablePath as error:
    print(error)
assert swapped, "nothing came after the directory was made"
"""

# The same as fast as it can, as the user, until it is ended.
RACE = """
import ctypes, os, sys
exchange = ctypes.CDLL(None).renameat2
parent, victim = sys.argv[1:]
os.chdir(parent)
os.symlink(victim, "link")
print("begun", flush=True)
while True:
    if exchange(-100, b"link", -100, b"new", 2) == 0:  # AT_FDCWD, RENAME_EXCHANGE
        os.unlink("new")
        os.rmdir("link")  # root's, but empty, and in a directory of ours
        os.symlink(victim, "link")
"""


@pytest.fixture
def parent(short_path: Path) -> Path:
    """A directory of an ordinary user, beside a file and a directory of root's alone."""
    require_root()
    short_path.chmod(0o755)
    parent = short_path / "theirs"
    parent.mkdir(mode=0o755)
    os.chown(parent, UID, UID)
    for victim in (short_path / "file", short_path / "directory"):
        victim.touch(mode=0o600) if victim.name == "file" else victim.mkdir(mode=0o700)
    return parent


def modes(parent: Path) -> tuple[int, int]:
    """Those of the file and of the directory of root's."""
    return tuple(stat.S_IMODE((parent.parent / name).stat().st_mode) for name in ("file", "directory"))  # type: ignore[return-value]


@pytest.mark.parametrize("below", ["", "/below"])
@pytest.mark.parametrize("victim", ["file", "directory"])
def test_a_directory_that_becomes_a_link_as_it_is_made_leads_to_nothing(
    parent: Path, victim: str, below: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SWAP, str(parent), str(parent.parent / victim), str(UID), below],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "/new is in the way: it is not a directory" in done.stdout
    assert modes(parent) == (0o600, 0o700)
    assert os.listdir(parent.parent / "directory") == []


@pytest.fixture
def racing(parent: Path) -> Iterator[Callable[[Path], None]]:
    """Has the user put links to this in the place of `new` until the end of the test."""
    running = []

    def race(victim: Path) -> None:
        process = subprocess.Popen(
            [
                *(require("setpriv"), f"--reuid={UID}", f"--regid={UID}", "--clear-groups"),
                *("/usr/bin/python3", "-I", "-c", RACE, str(parent), str(victim)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"

    yield race
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_who_races_for_the_place_of_a_directory_changes_nothing_of_roots(
    parent: Path, racing: Callable[[Path], None]
) -> None:
    racing(parent.parent / "file")
    lost = 0
    for tried in range(MOST_TRIES):
        if tried >= TRIES and lost:
            break
        try:
            files.make_directory(str(parent / "new"), 0o755)
        except UnusablePath:
            lost += 1
        with contextlib.suppress(OSError):
            (parent / "new").rmdir()
        assert modes(parent) == (0o600, 0o700)
    assert lost, "the user never came between"

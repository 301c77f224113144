"""Shims for LD_PRELOAD: a wall clock that a test sets, and what a crash of the machine leaves behind."""

import mmap
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

from support.daemon import wait_until
from support.peers import require

_SHIFT = struct.Struct("q")
_LOOKS_AT = 8  # where the shim counts the reads of the clock


def library(name: str, directory: Path) -> str:
    """Compile NAME.c, which is beside this file; once for a directory."""
    target = directory / f"{name}.so"
    if not target.exists():
        source = Path(__file__).with_name(f"{name}.c")
        options = ["-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
        subprocess.run([require("gcc"), *options, "-o", str(target), str(source)], check=True, timeout=60)
    return str(target)


def environment(*shims: "Clock | SyncedCopy") -> dict[str, str]:
    """The variables under which a process runs with these shims."""
    joined = {"LD_PRELOAD": ":".join(shim.library for shim in shims)}
    for shim in shims:
        joined |= shim.environment
    return joined


class Clock:
    """The wall clock of the processes that run with it; it goes on by itself from where it is set."""

    def __init__(self, path: Path, built: str) -> None:
        self.library = built
        self.environment = {"CLOCK_SHIFT_FILE": str(path)}
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def set(self, moment: float) -> None:
        """Let it be this Unix time now."""
        _SHIFT.pack_into(self._map, 0, round((moment - time.time()) * 1e9))

    def shown_at(self, moment: float) -> float:
        """What it shows at a moment of the real clock, as it is set now."""
        return moment + _SHIFT.unpack_from(self._map)[0] / 1e9

    def now(self) -> float:
        return self.shown_at(time.time())

    def wait_for_a_look(self) -> None:
        """Wait until an idle daemon has looked at the clock as it is set now, and done what follows.

        Each second the timekeeper looks, and the housekeeping, and at a full minute the minute log: among so
        many there is one of the timekeeper's, and one after it, which shows that all is done.
        """
        enough = self._looks() + 5
        wait_until(lambda: self._looks() >= enough, "the daemon does not look at the clock")

    def close(self) -> None:
        self._map.close()

    def _looks(self) -> int:
        looks: int = _SHIFT.unpack_from(self._map, _LOOKS_AT)[0]
        return looks


class SyncedCopy:
    """The files of a directory as they were when they were last synced."""

    def __init__(self, directory: Path, copy: Path, built: str) -> None:
        self.library = built
        self.copy = copy
        self._directory = directory
        copy.mkdir()
        self.environment = {"SYNCED_FROM": os.path.realpath(directory), "SYNCED_TO": str(copy)}

    def restore(self) -> None:
        """Leave of the directory what is on the disk for sure."""
        shutil.rmtree(self._directory)
        self._directory.mkdir(mode=0o700)
        for path in self.copy.iterdir():
            if path.suffix != ".part":  # of a sync that was not over
                shutil.copy2(path, self._directory)

    def clear(self) -> None:
        """Begin again with an empty directory."""
        for directory in (self.copy, self._directory):
            shutil.rmtree(directory)
        self.copy.mkdir()

"""The C programs: built once, run on a core, and what they measured."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "c"
PROGRAMS = ("load", "spawn", "echo", "lookup")

# Seconds that one measurement may take longer than it was to: it prints itself what did not come.
_PATIENCE = 120


class Missing(Exception):
    """A contestant is not on this machine; the text says what to install."""


class Failed(Exception):
    """A contestant did not answer as it has to."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many connections there are, and how many requests each has under way."""

    connections: int
    depth: int

    def __str__(self) -> str:
        return f"{self.connections} x {self.depth}"

    @property
    def cores(self) -> tuple[int, int]:
        """Those of the server and of the client: one for a single connection, two for many."""
        ours = sorted(os.sched_getaffinity(0))
        return (ours[0], ours[0]) if self.connections == 1 else (ours[0], ours[-1])


@dataclass(frozen=True, slots=True)
class Result:
    """A measurement: requests, seconds, percentiles in microseconds; `next` is the plan's next entry."""

    requests: int
    seconds: float
    next: int
    latencies: dict[str, float]

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @classmethod
    def parsed(cls, text: str) -> "Result":
        data: dict[str, Any] = json.loads(text)
        return cls(data.pop("requests"), data.pop("seconds"), data.pop("next"), data)


def require(command: str, package: str) -> str:
    """The path of a command. Raises `Missing`."""
    path = shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")
    if path is None:
        raise Missing(f"apt-get install {package}")
    return path


class Programs:
    """The C programs, compiled into a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        gcc = require("gcc", "gcc libc6-dev")
        for name in PROGRAMS:
            source = str(SOURCES / f"{name}.c")
            command = [gcc, "-O2", "-Wall", "-Wextra", "-Werror", "-o", self.path(name), source]
            subprocess.run(command, check=True)

    def path(self, name: str) -> str:
        return str(self._directory / name)

    def load(
        self, address: str, plan: Path, load: Load, *options: str, seconds: float | None = None
    ) -> Result:
        """Run the load generator on its core. Raises `Failed`."""
        command = [
            self.path("load"),
            f"--connections={load.connections}",
            f"--depth={load.depth}",
            f"--core={load.cores[1]}",
            *([] if seconds is None else [f"--seconds={seconds}"]),
            *options,
            address,
            str(plan),
        ]
        return run(command, None if seconds is None else seconds + _PATIENCE)

    def spawn(self, seconds: float, load: Load, expected: str, command: Sequence[str]) -> Result:
        """Run a command again and again. Raises `Failed`."""
        core = str(load.cores[1])
        return run([self.path("spawn"), str(seconds), core, expected, *command], seconds + _PATIENCE)


def run(command: Sequence[str], timeout: float | None) -> Result:
    """Run what prints a result. Raises `Failed`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{os.path.basename(command[0])} did not end") from None
    if done.returncode != 0:
        raise Failed("; ".join(done.stderr.splitlines()) or f"exit status {done.returncode}")
    return Result.parsed(done.stdout)


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on a core."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})

"""Processes: from exec of the daemon to its first answer, and the whole of `pki2factl verify`."""

import compileall
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import accounts, goals
from benchmarks.accounts import States
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Failed, Programs
from benchmarks.report import Table
from benchmarks.rounds import Say
from benchmarks.sizes import Size
from msgpack import packb
from support.daemon import PKI2FACTL, PKI2FAD, environment

import pki2factl
import pki2fad

# As systemd starts it: the socket is there before, so that a request waits for the daemon.
_ACTIVATE = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'


def measure(root: Path, _programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """A row for each command."""
    _compile()
    cold = Pki2fad(root / "cold", states, 1)
    cold.prepare()
    running = Pki2fad(root / "running", states, size.processes)
    numbers = iter(range(size.processes))
    ways: dict[str, Callable[[], float]] = {
        "python3 -c pass": lambda: _whole(root, [sys.executable, "-c", "pass"]),
        "pki2fad, exec to first answer": lambda: _first_answer(cold),
        "pki2factl verify": lambda: _verify(root, running, next(numbers)),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    try:
        running.start()
        for number in range(size.processes):
            say(f"processes: round {number + 1} of {size.processes}")
            for name, way in ways.items():
                taken[name].append(way())
    finally:
        running.stop()
    table = Table("starts", "whole processes", ["command", "ms", "of python3 -c pass"], data=taken)
    least = taken["python3 -c pass"]
    for name, times in taken.items():
        ratios = [time / other for time, other in zip(times, least, strict=True)]
        table.rows.append([name, statistics.median(times) * 1e3, statistics.median(ratios)])
    _, cold_start, verify = (row[2] for row in table.rows)
    table.goals = [
        goals.row("cold start to first answer, of python3 -c pass", cold_start, most=12),
        goals.row("pki2factl verify, of python3 -c pass", verify, most=3.5),
    ]
    return [table]


def _compile() -> None:
    """Make the bytecode that pip makes where it installs: a checkout, installed with `-e`, may have none."""
    for package in (pki2fad, pki2factl):
        assert package.__file__ is not None
        compileall.compile_dir(Path(package.__file__).parent, quiet=1)


def _whole(root: Path, command: Sequence[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, env=environment(root), capture_output=True, check=False)
    elapsed = time.perf_counter() - begun
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.decode()}")
    return elapsed


def _verify(root: Path, running: Pki2fad, number: int) -> float:
    """A right code, of an account that had none before."""
    code = accounts.right_codes(accounts.step_now())[number % accounts.SEEDS]
    account = f"--account={accounts.name(number)}"
    return _whole(root, [PKI2FACTL, "--socket", running.address, "verify", account, code])


def _first_answer(cold: Pki2fad) -> float:
    request = packb([0, 1, "status", []])
    with contextlib.suppress(FileNotFoundError):
        os.unlink(cold.address)
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(cold.address)
        listening.listen()
        descriptor = listening.fileno()
        wrapped = ["/bin/sh", "-c", _ACTIVATE, "sh", str(descriptor), PKI2FAD, *cold.daemon.arguments()]
        with cold.daemon.stderr.open("wb") as log:
            begun = time.perf_counter()
            process = subprocess.Popen(
                wrapped, env=environment(cold.root), pass_fds=[descriptor], stdout=log, stderr=log
            )
            try:
                client.connect(cold.address)
                client.settimeout(60)
                client.send(request)
                answer = client.recv(65536)
                elapsed = time.perf_counter() - begun
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()
    if not answer.startswith(b"\x94\x01\x01\xc0"):
        raise Failed(f"the daemon answers {answer!r}: {cold.daemon.log()}")
    return elapsed

"""A normal client beside thousands of connections that do nothing, or send a byte a second."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import goals
from benchmarks.accounts import States
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Failed, Load, Programs, pin
from benchmarks.peers import SERVERS
from benchmarks.report import Table
from benchmarks.rounds import Say, latency, median, rate, ratio
from benchmarks.sizes import Size
from benchmarks.supplies import used

_ACCOUNTS = 1000
_LOAD = Load(1, 1)
_SETTINGS = "[server]\nmax_connections_per_uid = 16384\n"


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """The client alone and beside the crowd, in turns."""
    daemon = Pki2fad(root / "crowds", states, _ACCOUNTS, settings=_SETTINGS)
    supply = used(_ACCOUNTS, root / "plan")
    alone, beside, memory = [], [], []
    try:
        daemon.start()
        daemon.pin(_LOAD)
        for number in range(size.rounds):
            say(f"crowd: round {number + 1} of {size.rounds}")
            plan, options = supply.take(_LOAD)
            alone.append(programs.load(daemon.address, plan, _LOAD, *options, seconds=size.seconds))
            before = daemon.memory
            with _crowd(daemon, size):
                memory.append(daemon.memory - before)
                beside.append(programs.load(daemon.address, plan, _LOAD, *options, seconds=size.seconds))
            daemon.tidy()
    finally:
        daemon.stop()
    table = Table(
        "crowds",
        f"a client alone, and beside {size.idle} idle connections and {size.slow} that send a byte a second",
        ["", "requests/s", "of alone", "p50 us", "of alone", "p99 us", "of alone"],
        data={"bytes": memory},
    )
    for name, results in (("alone", alone), ("beside them", beside)):
        values = (rate, latency("p50"), latency("p99"))
        row = [cell for value in values for cell in (median(results, value), ratio(results, alone, value))]
        table.rows.append([name, *row])
    # later crowds find the memory of the first
    each = max(memory) / (size.idle + size.slow)
    table.rows.append(["memory of a connection", f"{each:.0f} bytes"])
    beside_p99 = table.rows[1][6]
    table.goals = [goals.row("p99 beside a crowd, of that alone", beside_p99, most=2)]
    return [table]


@contextlib.contextmanager
def _crowd(daemon: Pki2fad, size: Size) -> Iterator[None]:
    command = [
        sys.executable,
        "-P",
        str(SERVERS / "crowd.py"),
        daemon.address,
        str(size.idle),
        str(size.slow),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as crowd:
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        pin(crowd.pid, Load(2, 1).cores[1])
        try:
            if crowd.stdout.readline() != b"ready\n":
                raise Failed("the crowd does not gather; are there enough descriptors (ulimit -n)?")
            yield
        finally:
            crowd.stdin.close()
            crowd.wait()

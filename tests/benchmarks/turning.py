"""The end of a step, when the codes of all accounts are due to be made again."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import goals, plans
from benchmarks.accounts import States
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Load, Programs, Result
from benchmarks.report import Table
from benchmarks.rounds import Say, latency, median
from benchmarks.sizes import Size

Value = Callable[[Result], float]

_EARLY = 0.5  # seconds of a step
_LOAD = Load(64, 1)


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """Latencies in the first half second of a step, and in its second half."""
    period = size.period
    daemon = Pki2fad(root / "turning", states, size.turning, period=period)
    plan = plans.write(root / "plan", plans.any_code(size.turning), wild=True)
    options = ["--cycle", f"--period={period}", f"--early={min(_EARLY, period / 4)}", f"--late={period / 2}"]
    results = []
    try:
        daemon.start()
        daemon.pin(_LOAD)
        programs.load(daemon.address, plan, _LOAD, f"--requests={size.turning}", *options[:1])
        for number in range(size.rounds):
            say(f"end of a step: round {number + 1} of {size.rounds}")
            # from the middle of a step to the middle of the next
            left = (period * 1.5 - time.time() % period) % period
            programs.load(daemon.address, plan, _LOAD, *options, seconds=left)
            results.append(programs.load(daemon.address, plan, _LOAD, *options, seconds=float(period)))
            daemon.tidy()
    finally:
        daemon.stop()
    table = Table(
        "turning",
        f"the end of a step of {period} s, {size.turning} accounts in use, {_LOAD.connections} connections",
        ["latency", "first 500 ms, us", "second half, us", "ratio"],
    )
    for name in ("p50", "p99", "p999"):
        early, late = latency(f"early_{name}"), latency(f"late_{name}")
        table.rows.append(
            [
                name,
                median(results, early),
                median(results, late),
                statistics.median(map(_over(early, late), results)),
            ]
        )
    table.goals = [
        goals.row("end of a step: p99 of the first 500 ms, of the steady one", table.rows[1][3], most=1.5)
    ]
    return [table]


def _over(value: Value, other: Value) -> Value:
    return lambda result: value(result) / other(result)

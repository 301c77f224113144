"""Millions of requests: is memory, are descriptors and latencies what they were at the beginning?"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import accounts, goals, plans
from benchmarks.accounts import States
from benchmarks.daemons import NOT_THROTTLED, Pki2fad
from benchmarks.generator import Load, Programs, Result
from benchmarks.plans import Exchange
from benchmarks.report import Table
from benchmarks.rounds import Say, latency, median, rate
from benchmarks.sizes import Size
from benchmarks.supplies import Fresh

_LOAD = Load(64, 1)
_PARTS = 10  # of the run, a row for each
_LOOKS = 10  # at descriptors, after each slice
_ASKED = 1000  # accounts that wrong codes and generate are for


@dataclass(frozen=True, slots=True)
class _Slice:
    mixed: Result  # wrong codes and generate
    right: Result | None
    memory: int
    descriptors: int | None


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """Wrong codes and generate until a slice is over, then right codes, as many as the step has."""
    daemon = Pki2fad(root / "soak", states, size.fresh, settings=NOT_THROTTLED)
    fresh = Fresh(root / "right", size.fresh)
    slices: list[_Slice] = []
    done = 0
    try:
        daemon.start()
        daemon.pin(_LOAD)
        plan, options = fresh.take(_LOAD)  # what an account in use takes, all have from here on
        fresh.used(programs.load(daemon.address, plan, _LOAD, *options))
        while done < size.requests:
            say(f"soak: {done} of {size.requests} requests")
            plan = _mixed(root / "mixed")
            most = f"--requests={size.requests - done}"
            mixed = programs.load(daemon.address, plan, _LOAD, "--cycle", most, seconds=size.slice)
            done += mixed.requests
            right = None
            if fresh.has_more(_LOAD):
                plan, options = fresh.take(_LOAD)
                right = programs.load(daemon.address, plan, _LOAD, *options, seconds=size.slice / 5)
                fresh.used(right)
                done += right.requests
            daemon.settle()
            slices.append(_Slice(mixed, right, daemon.memory, _descriptors(daemon)))
            daemon.tidy()
    finally:
        daemon.stop()
    return [_table(slices, done)]


def _descriptors(daemon: Pki2fad) -> int | None:
    """The least of several looks: a copy of the write-ahead log has some open for a moment."""
    looks = []
    for _ in range(_LOOKS):
        looks.append(daemon.descriptors or 0)
        time.sleep(0.05)
    return min(looks) or None


def _mixed(path: Path) -> Path:
    """A wrong code and generate in turns; good for this step and the next."""
    step = accounts.step_now()
    wrong = (one._replace(other=one.reply) for one in plans.verify(plans.wrong(_ASKED)))
    generate = plans.generate(_ASKED, step)
    exchanges: list[Exchange] = [one for pair in zip(wrong, generate, strict=True) for one in pair]
    return plans.write(path, exchanges, turn=(step + 1) * accounts.PERIOD)


def _table(slices: Sequence[_Slice], done: int) -> Table:
    table = Table(
        "soak",
        f"{done} requests on {_LOAD.connections} connections: wrong codes and generate, and right codes",
        ["part", "requests/s", "p99 us", "right codes/s", "p99 us", "memory kB", "descriptors"],
    )
    size = -(-len(slices) // _PARTS)
    for first in range(0, len(slices), size):
        part = slices[first : first + size]
        right = [one.right for one in part if one.right is not None]
        table.rows.append(
            [
                str(first // size + 1),
                median([one.mixed for one in part], rate),
                median([one.mixed for one in part], latency("p99")),
                median(right, rate),
                median(right, latency("p99")),
                max(one.memory for one in part) // 1024,
                max((one.descriptors or 0) for one in part) or None,
            ]
        )
    third = max(1, len(slices) // 3)
    table.goals = [
        goals.row(f"soak: {what} of the last third, of the first's", found, most=most)
        for what, most, found in (
            ("memory", 1.1, _grown(slices, third, lambda one: one.memory)),
            ("descriptors", 1.0, _grown(slices, third, lambda one: one.descriptors)),
            ("p99", 1.2, _grown(slices, third, lambda one: one.mixed.latencies["p99"])),
        )
    ]
    table.data = {
        "requests": done,
        "memory": [one.memory for one in slices],
        "descriptors": [one.descriptors for one in slices],
    }
    return table


def _grown(slices: Sequence[_Slice], many: int, value: Callable[[_Slice], float | None]) -> float | None:
    """The median of the last so many slices over that of the first; None where it is not known."""
    first, last = ([value(one) for one in part] for part in (slices[:many], slices[-many:]))
    if None in first or None in last:
        return None
    return statistics.median(filter(None, last)) / statistics.median(filter(None, first))

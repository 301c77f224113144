"""Millions of requests: is memory, are descriptors and latencies what they were at the beginning?"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import goals, plans
from benchmarks.accounts import States
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Load, Programs, Result
from benchmarks.report import Table
from benchmarks.rounds import Say, latency, median, rate
from benchmarks.sizes import Size
from benchmarks.supplies import Fresh, Generated

_LOAD = Load(64, 1)
_PARTS = 10  # of the run, a row for each
_LOOKS = 10  # at descriptors, after each slice
_ASKED = 1000  # accounts that generate is for


@dataclass(frozen=True, slots=True)
class _Slice:
    generated: Result
    right: Result | None
    memory: int
    descriptors: int | None


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """Generate until a slice is over; then right codes, as many as the step has, and as many wrong ones."""
    daemon = Pki2fad(root / "soak", states, size.fresh)
    fresh = Fresh(root / "right", size.fresh)
    wrong = plans.write(root / "wrong", plans.verify(plans.wrong(size.fresh)))  # in the same order
    generated = Generated(root / "generate", _ASKED)
    slices: list[_Slice] = []
    done = 0
    try:
        daemon.start()
        daemon.pin(_LOAD)
        plan, options = fresh.take(_LOAD)  # what an account in use takes, all have from here on
        fresh.used(programs.load(daemon.address, plan, _LOAD, *options))
        while done < size.requests:
            say(f"soak: {done} of {size.requests} requests")
            plan, options = generated.take(_LOAD)
            options.append(f"--requests={size.requests - done}")
            asked = programs.load(daemon.address, plan, _LOAD, *options, seconds=size.slice)
            done += asked.requests
            right = None
            if fresh.has_more(_LOAD):
                plan, options = fresh.take(_LOAD)
                right = programs.load(daemon.address, plan, _LOAD, *options, seconds=size.slice / 5)
                fresh.used(right)
                # A failure after each success: none is refused.
                failing = [*options, f"--requests={right.requests}"]
                done += right.requests + programs.load(daemon.address, wrong, _LOAD, *failing).requests
            daemon.settle()
            slices.append(_Slice(asked, right, daemon.memory, _descriptors(daemon)))
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


def _table(slices: Sequence[_Slice], done: int) -> Table:
    table = Table(
        "soak",
        f"{done} requests on {_LOAD.connections} connections: generate; right codes, and as many wrong ones",
        ["part", "generate/s", "p99 us", "right codes/s", "p99 us", "memory kB", "descriptors"],
    )
    size = -(-len(slices) // _PARTS)
    for first in range(0, len(slices), size):
        part = slices[first : first + size]
        right = [one.right for one in part if one.right is not None]
        table.rows.append(
            [
                str(first // size + 1),
                median([one.generated for one in part], rate),
                median([one.generated for one in part], latency("p99")),
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
            ("p99", 1.2, _grown(slices, third, lambda one: one.generated.latencies["p99"])),
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

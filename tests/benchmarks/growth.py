"""What many accounts cost: the start, the memory, and the rate."""

import functools
import time
from pathlib import Path

from benchmarks import goals
from benchmarks.accounts import States
from benchmarks.contestants import Row
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Load, Programs
from benchmarks.report import Cell, Table
from benchmarks.rounds import Say, interleaved, median, rate, ratio, started
from benchmarks.sizes import Size
from benchmarks.supplies import used

LOADS = (Load(1, 1), Load(64, 1))


class _Timed(Pki2fad):
    """Knows how long it took to be ready, and the memory it had then."""

    ready = 0.0
    memory_at_rest = 0

    def start(self) -> None:
        self.prepare()
        begun = time.perf_counter()
        super().start()
        self.ready = time.perf_counter() - begun
        self.memory_at_rest = self.memory


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """A row for each number of accounts."""
    daemons = [_Timed(root / f"{count}", states, count) for count in size.counts]
    supplies = {daemon: used(daemon.count, root / f"{daemon.count}.plan") for daemon in daemons}
    rows = [
        Row(f"{one.count}", programs, one, functools.partial(supplies.__getitem__, one)) for one in daemons
    ]
    table = Table(
        "growth",
        "accounts: generate for all of them, at random; memory is beyond that of a daemon with one",
        ["accounts", "ready s", "bytes each", "in use"]
        + [head for load in LOADS for head in (f"{load} /s", "of one's")],
    )
    with started(rows, say):
        for daemon, supply in supplies.items():  # every account is used once
            plan, _ = supply.take(LOADS[1])
            programs.load(daemon.address, plan, LOADS[1])
        measured = interleaved(rows, LOADS, size.rounds, size.seconds, say)
        least = daemons[0]
        for daemon, row in zip(daemons, rows, strict=True):
            more = max(1, daemon.count - least.count)
            table.rows.append(
                [
                    row.name,
                    daemon.ready,
                    (daemon.memory_at_rest - least.memory_at_rest) / more if more > 1 else None,
                    (daemon.memory - least.memory) / more if more > 1 else None,
                ]
            )
            for load in LOADS:
                results, ones = measured[load][row.name], measured[load][rows[0].name]
                table.rows[-1] += [median(results, rate), ratio(results, ones, rate)]
    table.goals = [goal for row in table.rows if row[0] == "1000000" for goal in _goals(row)]
    return [table]


def _goals(row: list[Cell]) -> list[list[Cell]]:
    _, ready, memory, _, _, one, _, many = row
    return [
        goals.row("1 000 000 accounts: ready, s", ready, most=8),
        goals.row("1 000 000 accounts: bytes each", memory, most=400),
        goals.row(f"1 000 000 accounts: rate, of one's, {LOADS[0]}", one, least=0.4),
        goals.row(f"1 000 000 accounts: rate, of one's, {LOADS[1]}", many, least=0.4),
    ]

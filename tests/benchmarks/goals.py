"""What was to be reached (medians of ratios), and what was."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import contestants as names
from benchmarks.generator import Load, Result
from benchmarks.report import Cell, Table
from benchmarks.rounds import Rounds, latency, rate, ratio

Measured = dict[Load, Rounds]
_ONE, _MANY, _MOST, _DEEP = Load(1, 1), Load(64, 1), Load(512, 1), Load(1, 32)


@dataclass(frozen=True, slots=True)
class _Goal:
    """A contestant's value over another's, under a load, is to be at least, or at most, so much."""

    what: str
    load: Load
    goal: float
    of: str
    to: str
    value: Callable[[Result], float] = rate

    def row(self, measured: Measured) -> list[Cell]:
        rounds = measured.get(self.load, {})
        found = ratio(rounds.get(self.of, []), rounds.get(self.to, []), self.value)
        least = self.value is rate
        sign = "at least" if least else "at most"
        return [
            self.what,
            str(self.load),
            f"{sign} {self.goal:g}",
            found,
            verdict(found, self.goal, least=least),
        ]


_GOALS = [
    _Goal("verify, of C echo", _ONE, 0.65, names.WRONG, names.ECHO),
    _Goal("verify p50, of C echo's", _ONE, 1.6, names.WRONG, names.ECHO, latency("p50")),
    _Goal("verify, of FastAPI", _ONE, 15, names.WRONG, names.FASTAPI),
    _Goal("verify, of FreeRADIUS", _ONE, 2.5, names.WRONG, names.FREERADIUS),
    _Goal("verify, of redis GET", _ONE, 0.75, names.WRONG, names.REDIS),
    *(
        goal
        for load, least in ((_MANY, 0.4), (_MOST, 0.35))
        for goal in (
            _Goal("verify, of C echo", load, least, names.WRONG, names.ECHO),
            _Goal("verify, of FastAPI", load, 30, names.WRONG, names.FASTAPI),
            _Goal("verify p99, of C echo's", load, 2.5, names.WRONG, names.ECHO, latency("p99")),
        )
    ),
    _Goal("verify, of C echo", _DEEP, 0.2, names.WRONG, names.ECHO),
    *(
        _Goal("right codes, of those in memory alone", load, least, names.RIGHT, names.IN_MEMORY_RIGHT)
        for load, least in ((_ONE, 0.5), (_MANY, 0.8), (_MOST, 0.8))
    ),
]


def rates(measured: Measured) -> list[list[Cell]]:
    """Rows for the loads that were measured."""
    return [goal.row(measured) for goal in _GOALS if goal.load in measured]


def row(what: str, found: Cell, most: float | None = None, least: float | None = None) -> list[Cell]:
    """A row for a single value."""
    goal = f"at most {most:g}" if least is None else f"at least {least:g}"
    limit = least if most is None else most
    assert limit is not None
    value = found if isinstance(found, int | float) else None
    return [what, None, goal, found, verdict(value, limit, least=most is None)]


def verdict(found: float | None, goal: float, *, least: bool) -> str:
    """In a word."""
    if found is None:
        return "not measured"
    return "reached" if (found >= goal if least else found <= goal) else "short"


def table(rows: list[list[Cell]]) -> Table:
    """All goals."""
    return Table("goals", "what was to be reached", ["what", "load", "goal", "found", ""], rows)

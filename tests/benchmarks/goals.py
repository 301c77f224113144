"""What was to be reached (medians of ratios), and what was."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import contestants as names
from benchmarks.generator import Load
from benchmarks.report import Cell, Table
from benchmarks.rounds import Rounds, rate, ratio

Measured = dict[Load, Rounds]


@dataclass(frozen=True, slots=True)
class _Goal:
    """A contestant's rate over another's is to be at least so much, under each of these loads."""

    what: str
    least: float
    of: str
    to: str
    loads: tuple[Load, ...] = (Load(1, 1), Load(64, 1), Load(512, 1))

    def rows(self, measured: Measured) -> Iterator[list[Cell]]:
        for load in self.loads:
            if load in measured:
                rounds = measured[load]
                found = ratio(rounds.get(self.of, []), rounds.get(self.to, []), rate)
                said = verdict(found, self.least, least=True)
                yield [self.what, str(load), f"at least {self.least:g}", found, said]


_DEEP = (Load(1, 32),)
_GOALS = (
    _Goal("generate, of the older version", 0.9, names.GENERATE, names.OLDER_GENERATE),
    _Goal("generate in another encoding, of by name", 0.9, names.GENERATE_OTHER, names.GENERATE),
    _Goal("generate, of C echo", 0.12, names.GENERATE, names.ECHO, _DEEP),
    _Goal("generate in another encoding, of C echo", 0.12, names.GENERATE_OTHER, names.ECHO, _DEEP),
    _Goal("verify that is throttled, of generate", 2 / 3, names.THROTTLED, names.GENERATE),
    _Goal("right codes, of the older version", 0.97, names.RIGHT, names.OLDER_RIGHT),
)


def rates(measured: Measured) -> list[list[Cell]]:
    """Rows for the loads that were measured."""
    return [row for goal in _GOALS for row in goal.rows(measured)]


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

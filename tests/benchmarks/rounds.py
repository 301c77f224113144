"""Contestants measured in turns, so that what else the machine does meets all of them alike."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.contestants import Row
from benchmarks.generator import Failed, Load, Missing, Result

Rounds = dict[str, list[Result]]  # by the row's name, a result for each round
Say = Callable[[str], None]


@contextmanager
def started(rows: Iterable[Row], say: Say) -> Iterator[None]:
    """Start the servers of all rows, and end them; a row whose server is not there says why."""
    troubles: dict[int, str | None] = {}
    with ExitStack() as servers:
        for row in rows:
            say(f"starting {row.name.strip()}")
            key = id(row.server)
            if key not in troubles:
                servers.callback(row.server.stop)
                troubles[key] = _trouble(row.server.start)
            row.trouble = troubles[key] or _trouble(row.prepare)
        yield


def interleaved(
    rows: Sequence[Row], loads: Sequence[Load], rounds: int, seconds: float, say: Say
) -> dict[Load, Rounds]:
    """Measure each row in each round; who is first changes from round to round."""
    measured: dict[Load, Rounds] = {}
    for load in loads:
        able = [row for row in rows if row.stands(load)]
        results: Rounds = {row.name: [] for row in able}
        for number in range(rounds):
            say(f"{load}: round {number + 1} of {rounds}")
            first = number % len(able)
            for row in able[first:] + able[:first]:
                if row.trouble is None and load not in row.failures:
                    _measure(row, load, seconds, results[row.name])
        measured[load] = results
    return measured


def _measure(row: Row, load: Load, seconds: float, results: list[Result]) -> None:
    try:
        results.append(row.measure(load, seconds))
    except Failed as error:
        row.failures[load] = f"failed: {error}"
    row.server.tidy()


def _trouble(action: Callable[[], None]) -> str | None:
    try:
        action()
    except Missing as missing:
        return f"missing: {missing}"
    except Failed as failed:
        return f"failed: {failed}"
    return None


def median(results: Sequence[Result], value: Callable[[Result], float]) -> float | None:
    """The median of a value over the rounds; None if there were none."""
    return statistics.median(map(value, results)) if results else None


def ratio(results: Sequence[Result], to: Sequence[Result], value: Callable[[Result], float]) -> float | None:
    """The median of the ratios of both in each round; None where one of them has none."""
    pairs = list(zip(results, to, strict=False))
    if not pairs:
        return None
    return statistics.median(value(one) / value(other) for one, other in pairs)


def rate(result: Result) -> float:
    """Requests in a second."""
    return result.rate


def latency(name: str) -> Callable[[Result], float]:
    """A percentile in microseconds."""
    return lambda result: result.latencies[name]

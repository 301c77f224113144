"""Counts requests, their outcomes and their time: numbers, and no names of accounts or callers."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

from pki2fad.methods.table import UNKNOWN, Method

# Numbers that other parts of the daemon have, by their names on the wire.
CONNECTIONS = "connections"
LAST_CODE = "last_code"

# Upper bounds of the classes of latency, in microseconds. Most answers take 2 to 15, a durable watermark some
# hundred, RSA some thousand, and a large backup seconds.
BOUNDS = (25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 100_000, 1_000_000)


class Metrics:
    """The counts since the start, for each of `methods`. Clients cannot add names to them."""

    def __init__(self, methods: Iterable[Method]) -> None:
        self._gauges: dict[str, Callable[[], int | None]] = {
            CONNECTIONS: lambda: 0,  # that are open
            LAST_CODE: lambda: None,  # the minute log's, as `MinuteLog` says
        }
        self._counts = {of.name: _Counts(of.counted) for of in (*methods, UNKNOWN)}

    def use_gauge(self, name: str, read: Callable[[], int | None]) -> None:
        """Call this to read one of the numbers of other parts."""
        self._gauges[name] = read

    def add(self, method: str, outcome: str, seconds: float) -> None:
        """Count a request. `seconds` is the time until its answer was ready."""
        (self._counts.get(method) or self._counts[UNKNOWN.name]).add(outcome, seconds)

    def read(self) -> dict[str, Any]:
        """All counts, as PROTOCOL.md says; methods that were never called are left out."""
        counted = {name: counts for name, counts in self._counts.items() if counts.outcomes}
        return {
            **{name: read() for name, read in self._gauges.items()},
            "requests": {name: dict(counts.outcomes) for name, counts in counted.items()},
            "bounds": list(BOUNDS),
            "latencies": {name: list(counts.latencies) for name, counts in counted.items()},
            "microseconds": {name: int(counts.seconds * 1e6) for name, counts in counted.items()},
        }


class _Counts:
    """The counts of one method."""

    __slots__ = ("latencies", "outcomes", "seconds")

    def __init__(self, outcomes: Iterable[str]) -> None:
        self.outcomes = dict.fromkeys(outcomes, 0)
        self.latencies = [0] * (len(BOUNDS) + 1)  # in each class; the last is of those above all bounds
        self.seconds = 0.0  # in all

    def add(self, outcome: str, seconds: float) -> None:
        """Count a request that took `seconds`."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.seconds += seconds
        self.latencies[bisect_left(BOUNDS, seconds * 1e6)] += 1

"""The callers that were throttled last, for the method `throttled`. Kept in memory alone."""

from typing import NamedTuple

LIMIT = 1024  # callers that are remembered: 2 MiB at most


class Attempt(NamedTuple):
    """A caller, and what it asked for."""

    method: str
    uid: int  # whose budget pays
    origin: str
    account: str  # or a name without an account


class Refused(NamedTuple):
    """When an attempt was refused last (Unix time), and how often."""

    time: int
    until: int  # what the answer said
    times: int


class Refusals:
    """The callers that were refused last. A caller that repeats an attempt displaces no others."""

    def __init__(self) -> None:
        self._last: dict[Attempt, Refused] = {}  # in the order of their times

    def add(self, attempt: Attempt, time: int, until: int) -> None:
        """Remember a refused attempt. The oldest makes room."""
        before = self._last.pop(attempt, None)
        self._last[attempt] = Refused(time, until, 1 if before is None else before.times + 1)
        if len(self._last) > LIMIT:
            del self._last[next(iter(self._last))]

    def of(self, account: str | None) -> list[tuple[Attempt, Refused]]:
        """The refusals for one account, or for all, the latest first."""
        return [
            (attempt, last)
            for attempt, last in reversed(self._last.items())
            if account in (None, attempt.account)
        ]

"""Who was throttled last: in memory alone, for the method `throttled`."""

from typing import NamedTuple

LIMIT = 1024  # callers that are remembered: 2 MiB at the most


class Attempt(NamedTuple):
    """What a caller asked for."""

    method: str
    uid: int  # whose budget pays
    origin: str
    account: str  # or a name that is none


class Refusal(NamedTuple):
    """That it was refused: the last time, in Unix time, and how often."""

    time: int
    until: int  # as it was told then
    times: int


class Refusals:
    """The callers that were refused last. One that asks again and again hides no others."""

    def __init__(self) -> None:
        self._last: dict[Attempt, Refusal] = {}  # in the order of their times

    def add(self, attempt: Attempt, time: int, until: int) -> None:
        """Remember that an attempt was refused; the oldest makes room."""
        before = self._last.pop(attempt, None)
        self._last[attempt] = Refusal(time, until, 1 if before is None else before.times + 1)
        if len(self._last) > LIMIT:
            del self._last[next(iter(self._last))]

    def of(self, account: str | None) -> list[tuple[Attempt, Refusal]]:
        """Those for one account or for all, the latest first."""
        return [
            (attempt, last)
            for attempt, last in reversed(self._last.items())
            if account in (None, attempt.account)
        ]

"""How far codes are spent, over all accounts: kept up to date, so that `status` need not look at each."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable

from pki2fad.rules.authenticator import Authenticator, spent_until


class Spent:
    """The periods and offsets in use, and the code that is furthest ahead of all that are spent.

    HOTP has neither.
    """

    def __init__(self) -> None:
        self._kinds: Counter[tuple[int, int]] = Counter()
        self._latest = 0
        self._latest_left = False  # the one that was furthest ahead is gone

    @property
    def kinds(self) -> Collection[tuple[int, int]]:
        """The pairs of period and offset (without its sign)."""
        return self._kinds.keys()

    def add(self, one: Authenticator) -> None:
        """An authenticator is there."""
        period = one.parameters.period
        if period:
            self._kinds[period, abs(one.offset)] += 1
            if one.last_step >= 0:
                self.move(one)

    def discard(self, one: Authenticator) -> None:
        """It is gone."""
        if one.is_hotp:
            return
        kind = _kind(one)
        self._kinds[kind] -= 1
        if not self._kinds[kind]:
            del self._kinds[kind]
        self._latest_left |= spent_until(one) >= self._latest

    def move(self, one: Authenticator) -> None:
        """Its watermark moved."""
        self._latest = max(self._latest, spent_until(one))

    def lower(self, latest: int) -> None:
        """All watermarks came down: this is the Unix time up to which codes are spent."""
        self._latest, self._latest_left = latest, False

    def latest(self, beyond: float, seeds: Callable[[], Iterable[Authenticator]]) -> int:
        """The Unix time until which codes are spent, for the one of the `seeds` that is furthest ahead.

        0 if that is not beyond the given time, as nearly always: then there is no need to look at all.
        """
        if self._latest > beyond and self._latest_left:
            self._latest = max(map(spent_until, seeds()), default=0)
            self._latest_left = False
        return self._latest if self._latest > beyond else 0


def _kind(one: Authenticator) -> tuple[int, int]:
    return one.parameters.period, abs(one.offset)

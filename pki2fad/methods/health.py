"""The daemon's troubles, for `status`: what is wrong, since when, and why."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pki2fad.errors import UnusableState
from pki2fad.rules import clock

# What can be wrong.
STATE = "state"  # the last change could not be stored
RELOAD = "reload"  # the last reload failed, and the settings before it hold
MINUTE_LOG = "minute_log"  # a minute log could not be written
SEEDS = "seeds"  # a file of seeds.d, or all of it, was ignored


class _Trouble(NamedTuple):
    since: float
    reason: str


class Health:
    """Keeps the troubles. A reason may name paths and settings: not every caller may see it.

    `lines_dropped` counts the lines that the log has lost, and `log` says where it is (see PROTOCOL.md).
    """

    def __init__(
        self,
        lines_dropped: Callable[[], int] = lambda: 0,
        log: Callable[[], dict[str, Any]] = dict,
        now: Callable[[], float] = clock.wall,
    ) -> None:
        self.lines_dropped = lines_dropped
        self.log = log
        self._now = now
        self._troubles: dict[str, _Trouble] = {}

    def failed(self, what: str, reason: object) -> None:
        """Note a trouble. A known one keeps the time of its beginning."""
        known = self._troubles.get(what)
        self._troubles[what] = _Trouble(known.since if known else self._now(), str(reason))

    def mended(self, what: str) -> None:
        """Note the end of a trouble."""
        self._troubles.pop(what, None)

    def stored(self, failure: UnusableState | None) -> None:
        """Note whether a change could be stored. The thread for large changes calls this too."""
        if failure is not None:
            self.failed(STATE, failure)
        elif self._troubles:
            self.mended(STATE)

    def is_failing(self, what: str) -> bool:
        """True while this trouble lasts."""
        return what in self._troubles

    def troubles(self, *, reasons: bool) -> list[dict[str, Any]]:
        """What is wrong now, with `reasons` for callers that may see them."""
        return [
            {"what": what, "since": int(trouble.since), "reason": trouble.reason if reasons else None}
            for what, trouble in list(self._troubles.items())
        ]

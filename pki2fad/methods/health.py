"""What is wrong with the daemon, since when and why, and where it logs: for `status`."""

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
    """The daemon's troubles. A reason may hold paths and settings: it is not for everybody."""

    def __init__(self, now: Callable[[], float] = clock.wall) -> None:
        self.lines_dropped: Callable[[], int] = lambda: 0  # of the log
        self.log: Callable[[], dict[str, Any]] = dict  # where it is, as PROTOCOL.md says
        self.state_failed: Callable[[], None] = lambda: None  # is called when a change could not be stored
        self._now = now
        self._troubles: dict[str, _Trouble] = {}

    def failed(self, what: str, reason: object) -> None:
        """Note a trouble; one that is known keeps its beginning."""
        known = self._troubles.get(what)
        self._troubles[what] = _Trouble(known.since if known else self._now(), str(reason))

    def mended(self, what: str) -> None:
        """It is right again."""
        self._troubles.pop(what, None)

    def stored(self, failure: UnusableState | None) -> None:
        """A change was stored, or could not be. The thread for large changes calls this too."""
        if failure is not None:
            self.failed(STATE, failure)
            self.state_failed()
        elif self._troubles:
            self.mended(STATE)

    def troubles(self, *, reasons: bool) -> list[dict[str, Any]]:
        """What is wrong now; `reasons` for those who may know them."""
        return [
            {"what": what, "since": int(trouble.since), "reason": trouble.reason if reasons else None}
            for what, trouble in list(self._troubles.items())
        ]

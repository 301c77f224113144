"""Follows the wall clock: looks at it every second, and keeps what is known of it."""

import asyncio
from collections.abc import Callable

from pki2fad.host import log
from pki2fad.rules import clock
from pki2fad.rules.changes import Change, WatchEdit
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.outcomes import NotKept, Outcome, Unknown
from pki2fad.server.commit import Settled
from pki2fad.times import CLOCK_BEHIND

_PERIOD = 1.0  # seconds between two looks

# The mark is written when it has risen so far (seconds): a sync of the disk every second is not worth it.
_WRITE_AFTER = 300.0


class Timekeeper:
    """Lets a `Watch` look at the clock, and has the store `keep` what has changed, unless it `is_busy`.

    While the store `is_failing` each look writes: so it is known when it can be written again.
    """

    def __init__(
        self,
        watch: Watch,
        keep: Callable[[Change, Settled], object],
        read_clock: Callable[[], Reading] = clock.read,
        is_busy: Callable[[], bool] = lambda: False,
        is_failing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._watch = watch
        self._keep = keep
        self._read_clock = read_clock
        self._is_busy = is_busy
        self._is_failing = is_failing
        self._timer: asyncio.TimerHandle | None = None
        self._behind = False
        self._due = True  # something is to be written
        self._is_writing = False
        self._kept = watch.mark
        self._accepted = watch.accepted
        self._trouble = ""

    def start(self) -> None:
        """Look now, and go on from the running loop until `stop`."""
        self._timer = asyncio.get_running_loop().call_later(_PERIOD, self.start)
        self.look()

    def stop(self) -> None:
        """Look no more, and keep what is known."""
        if self._timer is not None:
            self._timer.cancel()
        self._write()

    def look(self) -> None:
        """Look once, and say what is to be said."""
        reading = self._read_clock()
        step = self._watch.look(reading, clock.is_synchronised())
        if step:
            log.warning("clock_set", by=f"{step:+.0f} s")
        behind = self._watch.behind(reading.wall)
        if (behind > CLOCK_BEHIND) != self._behind:
            self._behind = not self._behind
            if self._behind:
                log.error("clock_behind", by=f"{behind:.0f} s", hint="verify waits; see pki2factl status")
            else:
                log.info("clock_caught_up")
        was_accepted = self._watch.accepted != self._accepted
        if step or was_accepted or self._watch.mark - self._kept >= _WRITE_AFTER:
            self._accepted = self._watch.accepted
            self._due = True
        if (self._due or self._is_failing()) and not (self._is_writing or self._is_busy()):
            self._write()

    def _write(self) -> None:
        watch = self._watch
        edit = WatchEdit(watch.mark, watch.last, watch.stretches)
        self._due, self._is_writing = False, True
        self._keep(edit, lambda outcome: self._written(edit.mark, outcome))

    def _written(self, mark: float, outcome: Outcome) -> None:
        self._is_writing = False
        if isinstance(outcome, NotKept | Unknown):
            self._due = True
            if str(outcome.reason) != self._trouble:
                self._trouble = str(outcome.reason)
                log.error("clock_not_kept", reason=outcome.reason)
        else:
            self._kept = mark
            self._trouble = ""

"""What the daemon does by itself from time to time, and the STATUS that systemd shows."""

import asyncio

from pki2fad.errors import Unavailable, UnusableState
from pki2fad.host import log
from pki2fad.host.systemd import Notifier, watchdog_period
from pki2fad.methods import health
from pki2fad.methods.agent import Agent
from pki2fad.rules import clock
from pki2fad.rules.changes import Answer, Work
from pki2fad.server.server import Server
from pki2fad.times import CLOCK_BEHIND, moment

_PERIOD = 1.0  # seconds between two looks whether the daemon is idle, and how it is

# Seconds between two looks for deadlines of successors; they count without it.
_SETTLE_PERIOD = 60.0

# Everybody can read the STATUS that systemd shows, so the reasons are left out.
_TROUBLES = {
    health.STATE: "a change could not be stored",
    health.RELOAD: "reload failed, the old configuration holds",
    health.MINUTE_LOG: "the minute log cannot be written",
    health.SEEDS: "a file of seeds.d was ignored",
}

# Accounts for which the code of the next step is made in one go, and seconds until the next are: 100 000 are
# done before a usual step is over, nobody waits for it longer than for a few other requests, and it takes
# less than a tenth of all time.
_AHEAD_AT_ONCE = 5
_AHEAD_PERIOD = 0.001


class Housekeeping:
    """Locks an idle daemon, settles what deadlines did, makes codes ahead, tells systemd how it is.

    `idle` is after how many seconds without a request the daemon locks, 0 for never; `why_locked` says why
    the start could not unlock.
    """

    def __init__(
        self, agent: Agent, server: Server, notifier: Notifier, idle: int, why_locked: str = ""
    ) -> None:
        self._idle = idle
        self._why_locked = why_locked
        self._agent = agent
        self._server = server
        self._notifier = notifier
        self._told = ""

    def start(self) -> None:
        """Say that requests are answered, and go on from the running loop."""
        self.ready()
        self._look()
        self._settle()
        self._look_ahead()
        period = watchdog_period()
        if period is not None:
            self._ping(period)

    def ready(self) -> None:
        """Tell systemd that the start, or a reload, is over."""
        self._told = self._text()
        self._notifier.ready(self._told)

    def use(self, idle: int) -> None:
        """Lock after so many seconds without a request from now on."""
        self._idle = idle

    def unlocked(self) -> None:
        """Tell systemd that the daemon was unlocked."""
        self._why_locked = ""
        self.tell()

    def tell(self) -> None:
        """Tell systemd how the daemon is, if that has changed."""
        text = self._text()
        if text != self._told:
            self._told = text
            self._notifier.status(text)

    def _look_ahead(self) -> None:
        more = False
        try:
            more = self._agent.look_ahead(_AHEAD_AT_ONCE)
        finally:
            asyncio.get_running_loop().call_later(_AHEAD_PERIOD if more else _PERIOD, self._look_ahead)

    def _look(self) -> None:
        asyncio.get_running_loop().call_later(_PERIOD, self._look)
        if self._idle and not self._agent.locked and self._server.idle_for(clock.read()) >= self._idle:
            self._agent.lock()
            log.audit("locked", audit="locked", reason=f"nobody asked anything for {self._idle} s")
        self.tell()
        log.drain()

    def _settle(self) -> None:
        """Make permanent what the deadlines of successors did; a failure is no harm, and told."""
        asyncio.get_running_loop().call_later(_SETTLE_PERIOD, self._settle)
        self._server.long_work.begin(self._settling(), log_outcome)

    def _settling(self) -> Work:
        for edit, what in self._agent.due(clock.read()):
            yield edit
            log.audit("successor_due", account=edit.account, audit=what)
        return Answer(quiet=True)

    def _ping(self, period: float) -> None:
        self._notifier.watchdog()
        asyncio.get_running_loop().call_later(period, self._ping, period)

    def _lock_state(self, locked: bool) -> str:
        if not locked:
            return "unlocked"
        return f"locked ({self._why_locked})" if self._why_locked else "locked"

    def _text(self) -> str:
        status = self._agent.reports.status(clock.read())
        count, behind = status["accounts"], status["clock_behind"]
        parts = [f"{count} account{'' if count == 1 else 's'}", self._lock_state(status["locked"])]
        if behind > CLOCK_BEHIND:
            parts.append("clock behind what it was")
        else:
            synchronised = status["clock"] == "synchronised"
            parts.append("clock synchronised" if synchronised else "clock not set by systemd-timesyncd")
        if status["unavailable_until"] is not None:
            parts.append(f"verify waits for some accounts until {moment(status['unavailable_until'])}")
        if not status["throttling"]:
            parts.append("throttling is OFF")
        return "; ".join([", ".join(parts), *(_TROUBLES[trouble["what"]] for trouble in status["trouble"])])


def log_outcome(outcome: object) -> None:
    """Log what a long work came to that nobody asked for, unless all went well or the daemon stops."""
    if isinstance(outcome, UnusableState):
        log.error("state_failed", reason=outcome)
    elif isinstance(outcome, Exception) and not isinstance(outcome, Unavailable):
        log.failure("failed", outcome)

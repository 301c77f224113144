"""One look at the clocks, the name of this boot, and whether the wall clock can be believed.

Below the server and the minute log nothing reads a clock: a `Reading` is passed in.
"""

import functools
import itertools
import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

# systemd-timesyncd makes it when it has set the clock after a boot.
_SYNCHRONISED = "/run/systemd/timesync/synchronized"

# A wall clock that differs by so many seconds from what CLOCK_BOOTTIME says was set; slewing is slower.
_STEP = 2.0

# Two stretches less than _GAP seconds apart are joined; at most _STRETCHES are kept, the closest being joined
# first.
_GAP = 60.0
_STRETCHES = 32

# The state forgets the watermarks of removed seeds so many seconds after their end; some of it is for what
# the record of the clock may lag behind.
REMEMBERED = 86_400.0
_LAG = 3_600.0

Interval = tuple[float, float]  # Unix times


class Reading(NamedTuple):
    """Both clocks at one moment, in seconds."""

    wall: float  # Unix time, as RFC 6238 counts it
    boot: float  # CLOCK_BOOTTIME: nobody sets it, and it goes on in suspend


def read() -> Reading:
    """Look at the clocks now."""
    return Reading(wall(), boot())


# Each alone, as `Reading` has them: a call of ours would take as long as the look.
wall: Callable[[], float] = time.time
boot: Callable[[], float] = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)


def is_synchronised() -> bool | None:
    """True if the wall clock was set from a server since the machine started, None if that is unknown."""
    return True if os.path.exists(_SYNCHRONISED) else None


def boot_id() -> str | None:
    """What the kernel calls this boot, or None where it cannot be read.

    `$PKI2FAD_BOOT_ID` goes before: a test cannot reboot, and a container shares its host's.
    """
    given = os.environ.get("PKI2FAD_BOOT_ID")
    if given:
        return given
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip() or None
    except OSError:
        return None


class Watch:
    """What is known of the wall clock: the highest time that is believed, and where it has been.

    `mark` only rises: to the wall clock where that is synchronised, else no faster than CLOCK_BOOTTIME
    goes. A clock that shows less was set back, or was ahead before. `spent` are the intervals in which
    codes may have been used while the clock was ahead: none is good there.
    """

    def __init__(
        self, mark: float | None, stretches: Iterable[Interval], spent: Iterable[Interval], reading: Reading
    ) -> None:
        self.mark = reading.wall if mark is None else mark
        self.spent = list(spent)
        self.synchronised: bool | None = None
        self.accepted = 0  # how often, since the start
        self._seen = 0.0  # by how much it was set since the last look, as acceptances saw
        self.last = reading  # the last look
        self._stretches = list(stretches)
        self._current = (reading.wall, reading.wall)
        self._begin(reading.wall)

    @property
    def stretches(self) -> list[Interval]:
        """The intervals of the wall clock in which the daemon ran and nobody set it; the last goes on."""
        return [*self._stretches, self._current]

    def look(self, reading: Reading, synchronised: bool | None) -> float:
        """Look at the clock again; returns by how much it was set (seconds), 0.0 if it was not."""
        step, self._seen = self._seen + self._go_to(reading, synchronised), 0.0
        return step

    def saw(self, reading: Reading) -> None:
        """A code is accepted at this reading: note where the clock is, which may be gone at the next look."""
        passed = max(0.0, reading.boot - self.last.boot)
        if abs(reading.wall - self.last.wall - passed) >= _STEP:
            self._seen += self._go_to(reading, self.synchronised)

    def _go_to(self, reading: Reading, synchronised: bool | None) -> float:
        passed = max(0.0, reading.boot - self.last.boot)
        step = reading.wall - self.last.wall - passed
        self.last = reading
        self.synchronised = synchronised
        believed = reading.wall if synchronised else min(reading.wall, self.mark + passed)
        self.mark = max(self.mark, believed)
        if abs(step) < _STEP:
            step = 0.0
        else:
            self._stretches.append(self._current)
            self._begin(reading.wall - passed)  # it may have been set at any moment since the last look
        start, end = self._current
        self._current = (min(start, reading.wall), max(end, reading.wall))
        return step

    def believed(self, wall: float) -> float:
        """The wall clock, but no later than is believed."""
        return min(wall, self.mark)

    def behind(self, wall: float) -> float:
        """Seconds by which the clock is behind what it was known to be; 0.0 if it is not."""
        return max(0.0, self.mark - wall)

    def spent_until(self, wall: float, margin: float) -> float | None:
        """When it is `margin` seconds since the end of a spent interval, from `margin` before it on."""
        ends = [until + margin for since, until in self.spent if since - margin < wall < until + margin]
        return max(ends) if ends else None

    @property
    def forgotten(self) -> float:
        """Codes of removed seeds that were spent before this time may not be on record any more."""
        return max(end for _, end in self.stretches) - REMEMBERED + _LAG

    def first_ahead(self, wall: float) -> float | None:
        """The first time after `wall` that the clock has shown already; None if it never did."""
        starts = [start for start, end in self.stretches if end > wall]
        return max(wall, min(starts)) if starts else None

    def accept(self, wall: float, spent: Interval | None) -> None:
        """Believe this time from now on; codes of the interval stay spent."""
        self.accepted += 1
        self.mark = wall
        if spent is not None:
            self.spent.append(spent)
        self._stretches = [(start, min(end, wall)) for start, end in self.stretches if start < wall]
        self._begin(wall)

    def _begin(self, wall: float) -> None:
        """A new stretch, or one that an earlier one touches goes on."""
        past = _joined(sorted(self._stretches), _GAP)
        while len(past) >= _STRETCHES:
            past = _joined(past, min(later[0] - earlier[1] for earlier, later in itertools.pairwise(past)))
        touching = [one for one in past if one[0] <= wall <= one[1] + _GAP]
        self._stretches = [one for one in past if one not in touching]
        self._current = (touching[0][0], max(touching[0][1], wall)) if touching else (wall, wall)


def _joined(intervals: list[Interval], gap: float) -> list[Interval]:
    """Sorted intervals, with those that are no further apart than `gap` made one."""
    joined: list[Interval] = []
    for start, end in intervals:
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined

"""One look at the clocks, the name of this boot, and whether the wall clock can be believed.

Below the server and the minute log nothing reads a clock: a `Reading` is passed in.
"""

import functools
import itertools
import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

# systemd-timesyncd creates it once it has set the clock after a boot.
_SYNCHRONISED = "/run/systemd/timesync/synchronized"

# Seconds between the wall clock and CLOCK_BOOTTIME from which on it was set: slewing is slower.
_STEP = 2.0

# Two stretches less than _GAP seconds apart are joined. At most _STRETCHES are kept: the closest are joined
# first.
_GAP = 60.0
_STRETCHES = 32

# Seconds for which the watermark of a removed seed is remembered after its last code. _LAG of them are for
# the record of the clock, which may lag behind.
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


# Each clock alone, as in `Reading`. A function of ours around it would double the time.
wall: Callable[[], float] = time.time
boot: Callable[[], float] = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)


def is_synchronised() -> bool | None:
    """True if the wall clock was set from a server since the boot, None if that is unknown."""
    return True if os.path.exists(_SYNCHRONISED) else None


def boot_id() -> str | None:
    """The kernel's id of this boot, or None if it cannot be read.

    `$PKI2FAD_BOOT_ID` overrides it: a test cannot reboot, and a container has its host's id.
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
    """Keeps what is known of the wall clock: the highest time that is believed, and where it has been.

    `mark` only rises: to the wall clock if that is synchronised, otherwise no faster than CLOCK_BOOTTIME.
    A clock that shows less was set back, or was ahead before. `spent` are intervals in which codes may have
    been used while the clock was ahead: no code is good there.
    """

    def __init__(
        self, mark: float | None, stretches: Iterable[Interval], spent: Iterable[Interval], reading: Reading
    ) -> None:
        self.mark = reading.wall if mark is None else mark
        self.spent = list(spent)
        self.synchronised: bool | None = None
        self.accepted = 0  # how often, since the start
        self._seen = 0.0  # seconds by which acceptances saw it set since the last look
        self.last = reading  # the last look
        self._stretches = list(stretches)
        self._current = (reading.wall, reading.wall)
        self._begin(reading.wall)

    @property
    def stretches(self) -> list[Interval]:
        """The intervals in which the daemon ran and nobody set the clock; the last one goes on."""
        return [*self._stretches, self._current]

    def look(self, reading: Reading, synchronised: bool | None) -> float:
        """Look at the clock again; returns the seconds by which it was set, 0.0 if it was not."""
        step, self._seen = self._seen + self._go_to(reading, synchronised), 0.0
        return step

    def saw(self, reading: Reading) -> None:
        """Note the time of an accepted code: the clock may be set again before the next look."""
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
        """The wall clock, but not beyond the mark."""
        return min(wall, self.mark)

    def behind(self, wall: float) -> float:
        """Seconds by which the clock is behind the mark; 0.0 if it is not."""
        return max(0.0, self.mark - wall)

    def spent_until(self, wall: float, margin: float) -> float | None:
        """The Unix time until which a spent interval lasts, with `margin` seconds around it; None outside."""
        ends = [until + margin for since, until in self.spent if since - margin < wall < until + margin]
        return max(ends) if ends else None

    @property
    def forgotten(self) -> float:
        """The Unix time before which spent codes of removed seeds may not be on record any more."""
        return max(end for _, end in self.stretches) - REMEMBERED + _LAG

    def first_ahead(self, wall: float) -> float | None:
        """The first time after `wall` that the clock has shown before; None if there is none."""
        starts = [start for start, end in self.stretches if end > wall]
        return max(wall, min(starts)) if starts else None

    def accept(self, wall: float, spent: Interval | None) -> None:
        """Believe this time from now on. Codes of the interval stay spent."""
        self.accepted += 1
        self.mark = wall
        if spent is not None:
            self.spent.append(spent)
        self._stretches = [(start, min(end, wall)) for start, end in self.stretches if start < wall]
        self._begin(wall)

    def _begin(self, wall: float) -> None:
        """Begin a new stretch, or go on with an earlier one that touches this time."""
        past = _joined(sorted(self._stretches), _GAP)
        while len(past) >= _STRETCHES:
            past = _joined(past, min(later[0] - earlier[1] for earlier, later in itertools.pairwise(past)))
        touching = [one for one in past if one[0] <= wall <= one[1] + _GAP]
        self._stretches = [one for one in past if one not in touching]
        self._current = (touching[0][0], max(touching[0][1], wall)) if touching else (wall, wall)


def _joined(intervals: list[Interval], gap: float) -> list[Interval]:
    """Sorted intervals; those no further apart than `gap` become one."""
    joined: list[Interval] = []
    for start, end in intervals:
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined

"""Leases and floors: what a crash of the machine can take back of accepted codes.

A Spend survives the death of the process, but not that of the machine. Its period's lease covers it:
accepting step s of a prover that is o steps ahead needs (s-o+1)*X <= lease. At the start of another boot the
floor rises to the lease, so that nothing accepted before can be accepted again.
"""

from collections.abc import Mapping, Sequence

from pki2fad.rules import otp
from pki2fad.rules.changes import Spend
from pki2fad.state.database import StateFile

# Steps beyond the current one that a lease covers: a prover one step ahead, and one more for the
# step in which the lease is raised.
_LEASE_STEPS = 2

# If the clock is so many seconds from where it was when a lease was raised last, that is noted as a
# stretch of it: it may be set back before the timekeeper looks.
_JUMP = 600.0


class Leases:
    """The table of periods. What writes has to be called inside a transaction."""

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self._database = file.database
        self._ends = self.stored()
        self._raised_at: float | None = None  # where the wall clock was when leases were raised last

    @property
    def periods(self) -> list[int]:
        """All periods in use, in seconds."""
        return list(self._ends)

    def stored(self) -> dict[int, int]:
        """The leases as the file has them, by period."""
        return dict(self._file.rows("SELECT period, lease FROM periods"))

    def use(self, ends: dict[int, int]) -> None:
        """Go by these leases from now on, which are committed."""
        self._ends = ends

    def floors(self) -> dict[int, int]:
        """The Unix times before which codes may have been used, by period."""
        return dict(self._file.rows("SELECT period, floor FROM periods WHERE floor > 0"))

    def raised(self, spends: Sequence[Spend]) -> dict[int, int]:
        """All leases, raised, if one of the spends is not covered by its own; else none."""
        needed: dict[int, int] = {}
        for spend in spends:
            if not spend.period:  # of HOTP: it is synced
                continue
            end = (spend.step - spend.offset + 1) * spend.period
            if end > max(self._ends.get(spend.period, 0), needed.get(spend.period, 0)):
                needed[spend.period] = end
        if not needed:
            return {}
        wall = max(spend.wall for spend in spends)
        return {
            period: max(lease, needed.get(period, 0), safe_time(wall, period))
            for period, lease in self._ends.items()
        }

    def write(self, raised: Mapping[int, int], wall: float) -> None:
        """Write raised leases, and where the wall clock is if it came there in one go."""
        self._database.executemany(
            "UPDATE periods SET lease = ? WHERE period = ?",
            [(lease, period) for period, lease in raised.items()],
        )
        if self._raised_at is None or not 0 <= wall - self._raised_at < _JUMP:
            self._database.execute("INSERT INTO stretches VALUES (?, ?)", (wall, wall))
        self._raised_at = wall

    def add(self, period: int) -> None:
        """A period is in use from now on, if it is not already."""
        self._database.execute("INSERT OR IGNORE INTO periods (period) VALUES (?)", (period,))

    def raise_floor(self, period: int, floor: int) -> None:
        """Let no code of this period be good that began before this Unix time."""
        self.add(period)
        self._database.execute("UPDATE periods SET floor = max(floor, ?) WHERE period = ?", (floor, period))

    def raise_floors_after_crash(self, wall: float) -> None:
        """Let no code be good again that may have been accepted before this boot."""
        self._database.executemany(
            "UPDATE periods SET floor = max(floor, lease, ?) WHERE period = ?",
            [(safe_time(wall, period), period) for period in self._ends],
        )


def safe_time(wall: float, period: int) -> int:
    """The end of the last step that can be accepted now, and one period more."""
    return (otp.step_at(wall, period) + _LEASE_STEPS) * period

"""Counts the failures of one account, and remembers the callers that know its codes.

Times are in seconds as `Throttle` counts them. A mark is kept packed, since a million accounts may have one.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pki2fad.rules import otp

DAY = 86_400.0

KNOWN_FOR = 30 * DAY  # how long a mark lasts after the last success
MARKS = 16  # keys with a mark for one account; the one with the oldest success makes room

# How many resets an administrator may make within a time without `force`. SECURITY.md says what each reset
# gives to an attacker.
RESETS = 3
RESETS_WITHIN = 30 * DAY

DIGEST_BYTES = 16  # of a key
_MARK = struct.Struct(f"<{DIGEST_BYTES}sdddB")  # digest, time of the last success, level
_NO_MARK = struct.pack("<dddB", float("-inf"), 0.0, 0.0, otp.WINDOW_STEPS)  # behind a digest without a mark
_COSTLESS_MARK = struct.Struct(f"<{DIGEST_BYTES}sddd")  # a mark of version 0.1.0
_TIME = struct.Struct("<d")


class Level(NamedTuple):
    """How full a bucket was after the last failure.

    A caller's bucket holds failures of one cost, see `throttle`. For an account's bucket it means nothing.
    """

    units: float = 0.0
    at: float = 0.0
    cost: int = otp.WINDOW_STEPS  # units of one failure, 1 to 255

    @property
    def failures(self) -> float:
        """The failures in a caller's bucket."""
        return self.units / self.cost


EMPTY = Level()


class Mark(NamedTuple):
    """A key that gave a right code, with a bucket of its own."""

    digest: bytes
    succeeded: float  # the last time
    level: Level

    def is_known(self, now: float) -> bool:
        """True while failures of other keys do not count against this one."""
        return now - self.succeeded <= KNOWN_FOR


@dataclass(frozen=True, slots=True)
class Tally:
    """The bucket of one account, its marks, and its resets.

    `reset_at` are the times of an administrator's last resets, at most `RESETS`. Raises `ValueError` if
    `marks` or `reset_at` has a wrong length.
    """

    level: Level = EMPTY
    marks: bytes = b""
    resets: int = 0
    reset_at: bytes = b""

    def __post_init__(self) -> None:
        if len(self.marks) % _MARK.size:
            raise ValueError(f"{len(self.marks)} bytes are no whole marks")
        if len(self.reset_at) % _TIME.size:
            raise ValueError(f"{len(self.reset_at)} bytes are no whole times")

    def all_marks(self) -> list[Mark]:
        """All marks, also expired ones."""
        return [Mark(digest, at, Level(*level)) for digest, at, *level in _MARK.iter_unpack(self.marks)]

    def mark(self, digest: bytes) -> Mark:
        """The mark of a key, or an expired one. It takes the same time with any number of marks."""
        marks = self.marks.ljust(MARKS * _MARK.size, b"\0") + digest + _NO_MARK
        _, succeeded, units, at, cost = _MARK.unpack_from(marks, marks.index(digest))
        return Mark(digest, succeeded, Level(units, at, cost))

    def with_level(self, level: Level) -> "Tally":
        """A copy with another level of the account's bucket."""
        return Tally(level, self.marks, self.resets, self.reset_at)

    def with_mark(self, mark: Mark) -> "Tally":
        """A copy with this mark; it replaces the key's own mark, or the oldest."""
        others = [other for other in self.all_marks() if other.digest != mark.digest]
        if len(others) >= MARKS:
            others.remove(min(others, key=lambda other: other.succeeded))
        return Tally(self.level, _packed([*others, mark]), self.resets, self.reset_at)

    def reset(self, at: float | None = None) -> "Tally":
        """A copy without the failures. Keys with a mark keep it.

        `at` is the time of an administrator's reset, which is remembered.
        """
        marks = _packed(mark._replace(level=EMPTY) for mark in self.all_marks())
        times = self.reset_at if at is None else (self.reset_at + _TIME.pack(at))[-RESETS * _TIME.size :]
        return Tally(EMPTY, marks, self.resets + 1, times)

    def recent_resets(self, now: float) -> int:
        """How many resets an administrator made within `RESETS_WITHIN`; at most `RESETS`."""
        return sum(now - at <= RESETS_WITHIN for (at,) in _TIME.iter_unpack(self.reset_at))

    def not_after(self, now: float) -> "Tally":
        """A copy in which no time is later than now; the tally itself if there is none."""
        marks, reset_at = self.all_marks(), [at for (at,) in _TIME.iter_unpack(self.reset_at)]
        times = [self.level.at, *reset_at]
        for mark in marks:
            times += mark.succeeded, mark.level.at
        if max(times) <= now:
            return self
        return Tally(
            _not_after(self.level, now),
            _packed(
                Mark(mark.digest, min(mark.succeeded, now), _not_after(mark.level, now)) for mark in marks
            ),
            self.resets,
            b"".join(_TIME.pack(min(at, now)) for at in reset_at),
        )


NO_TALLY = Tally()


def _not_after(level: Level, now: float) -> Level:
    return level._replace(at=min(level.at, now))


def _packed(marks: Iterable[Mark]) -> bytes:
    return b"".join(_MARK.pack(mark.digest, mark.succeeded, *mark.level) for mark in marks)


def with_costs(marks: bytes) -> bytes:
    """The marks of a stored row, also of a row of version 0.1.0, which are shorter by the cost.

    No number of marks up to `MARKS` has the same length in both versions. Raises `ValueError` for a
    cost of 0.
    """
    if len(marks) % _COSTLESS_MARK.size:
        if 0 in marks[_MARK.size - 1 :: _MARK.size]:
            raise ValueError("a mark has the cost 0")
        return marks
    return _packed(
        Mark(digest, at, Level(*level)) for digest, at, *level in _COSTLESS_MARK.iter_unpack(marks)
    )


def caller_of_name(name: str) -> bytes:
    """What callers are hashed with for a name without an account, and for accounts of version 0.1.0."""
    return name.encode()


def caller_of_id(account_id: bytes) -> bytes:
    """What callers are hashed with for an account. Names are not empty and have no NUL: none is like this."""
    return b"\0" + account_id

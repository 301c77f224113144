"""How often a peer may fail: RFC 4226 section 7.3.

A failure costs as many units as the candidate steps that a code was compared with: each is one chance
to guess right. Two buckets take the units: that of the key, which is uid, origin and account together,
and that of the account. Both drain slowly, and what does not fit is refused before any code is made.
SECURITY.md has the arithmetic, and a test the simulation.

A key that gave a right code in the last 30 days has a mark in its account's row. Its failures count in
the account's bucket, but are not refused for it: who guesses cannot lock out who knows. All other keys
share a table of fixed size by a keyed hash; names that are no account share another, for the bucket that
an account has. What is in a table decays and is never evicted, so that nobody makes room by inventing
origins, names or uids; those who share a slot are throttled together.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pki2fad.clock import Reading

_DAY = 86_400.0


class Level(NamedTuple):
    """How full a bucket was after the last failure."""

    units: float = 0.0
    at: float = 0.0  # when, as `Throttle` counts seconds


EMPTY = Level()
Slots = dict[int, Level]


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket that holds `capacity` units and drains `drain` of them in a day."""

    capacity: float
    drain: float

    def wait(self, level: Level, cost: int, now: float) -> float:
        """Seconds until units of this cost fit; 0.0 if they do."""
        return max(0.0, (self._units(level, now) + cost - self.capacity) * _DAY / self.drain)

    def add(self, level: Level, cost: int, now: float) -> Level:
        """The level with one more failure; never above the capacity."""
        return Level(min(self._units(level, now) + cost, self.capacity), now)

    def _units(self, level: Level, now: float) -> float:
        return max(0.0, level.units - max(0.0, now - level.at) * self.drain / _DAY)


# With one comparison in a million right, a year of 162 + 365 * 27 units finds a code with a probability
# of .997 percent, however many keys share them; eight keys alone have 8 * (18 + 365 * 3): .89 percent.
KEY = Limit(capacity=18, drain=3)
ACCOUNT = Limit(capacity=162, drain=27)

FREE_FAILURES = 3  # that wait nothing: people mistype
FIRST_WAIT = 60.0  # seconds after the fourth; doubled for each that follows, until the bucket is full

KNOWN_FOR = 30 * _DAY  # a mark lasts so long after the last success
MARKS = 16  # keys with a mark for one account; the one that succeeded least recently makes room

# About 10 MiB of memory at the most. A slot is shared by every key, or by every name, whose hash it is; never
# by both: a name's bucket holds and drains more than a key's.
KEY_SLOTS = 49_152
NAME_SLOTS = 16_384
SLOTS = KEY_SLOTS + NAME_SLOTS

_DIGEST_BYTES = 16
_MARK = struct.Struct(f"<{_DIGEST_BYTES}sddd")  # digest, time of the last success, level
_RENEW_AFTER = 3_600.0  # a mark younger than this need not be written again


class Key(NamedTuple):
    """Who tries what: a digest that nobody else can aim at."""

    digest: bytes

    @property
    def slot(self) -> int:
        """Its place in the table."""
        return _place(self.digest) % KEY_SLOTS


NOBODY = Key(b"")  # where none is told from another


@dataclass(frozen=True, slots=True)
class Tally:
    """What is remembered of one account: its bucket, and the marks of keys that know its codes.

    Raises `ValueError` for marks that cannot be.
    """

    level: Level = EMPTY
    marks: bytes = b""

    def __post_init__(self) -> None:
        if len(self.marks) % _MARK.size:
            raise ValueError(f"{len(self.marks)} bytes are no whole marks")


NO_TALLY = Tally()


class Throttle:
    """The policy, and the table of the keys that have no mark.

    `secret` keys the hashes. Time is counted from `started` on by the clock that nobody sets; its `wall` is
    the time that the state has come to (`Store.begin_boot`). What a failure or a success changes is
    returned, for the caller to keep.
    """

    def __init__(self, secret: bytes, slots: Iterable[tuple[int, Level]], started: Reading) -> None:
        self.enabled = True
        self._secret = secret
        self._started = started
        self._name, self._name_slot = "", -1  # the name that was asked for last, and its slot
        self._slots = {slot: self._level_as_loaded(level) for slot, level in slots}

    def now(self, reading: Reading) -> float:
        """The time of a reading in seconds, which a step of the wall clock does not move."""
        return self._started.wall + reading.boot - self._started.boot

    def as_loaded(self, tally: Tally) -> Tally:
        """A tally of an earlier run: what is of the future, by a clock that was ahead, is of now."""
        if tally is NO_TALLY:  # as nearly all are in a large state
            return tally
        now = self.now(self._started)
        times = [tally.level.at]
        for _, succeeded, _, at in _MARK.iter_unpack(tally.marks):
            times += succeeded, at
        if max(times) <= now:
            return tally
        marks = [
            _Mark(mark.digest, min(mark.succeeded, now), self._level_as_loaded(mark.level))
            for mark in _unpack(tally.marks)
        ]
        return Tally(self._level_as_loaded(tally.level), _pack(marks))

    def key(self, uid: int, origin: str, account: str) -> Key:
        """The key of a peer, where it relays for others of the origin that it names."""
        # No name has a NUL; an origin, which may, comes last.
        return Key(self._digest(f"{uid}\0{account}\0{origin}"))

    def tally_of_unknown(self, name: str) -> Tally:
        """The tally of a name that is no account: it has to look like one."""
        return Tally(self._slots.get(self._slot_of_name(name), EMPTY))

    def wait(self, key: Key, tally: Tally, cost: int, now: float) -> float:
        """Seconds until a failure of this cost may be risked; 0.0 if it may be now."""
        if not self.enabled:
            return 0.0
        mark = _find(tally.marks, key, now)
        level = self._level(key) if mark is None else mark.level
        wait = max(level.at + _pause(level.units / cost) - now, KEY.wait(level, cost, now))
        return wait if mark is not None else max(wait, ACCOUNT.wait(tally.level, cost, now))

    def fail(self, key: Key, tally: Tally, cost: int, now: float) -> tuple[Tally, Slots]:
        """Count a failure: the account's new tally, and slots of the table."""
        level = ACCOUNT.add(tally.level, cost, now)
        mark = _find(tally.marks, key, now)
        if mark is None:
            return Tally(level, tally.marks), self._put(key.slot, KEY.add(self._level(key), cost, now))
        marked = _Mark(mark.digest, mark.succeeded, KEY.add(mark.level, cost, now))
        return Tally(level, _with(tally.marks, marked)), {}

    def fail_unknown(self, key: Key, name: str, cost: int, now: float) -> Slots:
        """Count a failure for a name that is no account."""
        tally, slots = self.fail(key, self.tally_of_unknown(name), cost, now)
        return slots | self._put(self._slot_of_name(name), tally.level)

    def succeed(self, key: Key, tally: Tally, now: float) -> Tally:
        """Clear the key's own bucket, and mark it; the same tally if there is nothing to change."""
        mark = _find(tally.marks, key, now)
        fresh = mark is not None and not mark.level.units and now - mark.succeeded < _RENEW_AFTER
        if fresh or not self.enabled:
            return tally
        return Tally(tally.level, _with(tally.marks, _Mark(key.digest, now, Level())))

    def _digest(self, text: str) -> bytes:
        hashed = hashlib.blake2b(
            text.encode("utf-8", "surrogateescape"), digest_size=_DIGEST_BYTES, key=self._secret
        )
        return hashed.digest()

    def _slot_of_name(self, name: str) -> int:
        if name != self._name:
            self._name, self._name_slot = name, KEY_SLOTS + _place(self._digest(name)) % NAME_SLOTS
        return self._name_slot

    def _level(self, key: Key) -> Level:
        return self._slots.get(key.slot, EMPTY)

    def _put(self, slot: int, level: Level) -> Slots:
        self._slots[slot] = level
        return {slot: level}

    def _level_as_loaded(self, level: Level) -> Level:
        return Level(level.units, min(level.at, self.now(self._started)))


class _Mark(NamedTuple):
    digest: bytes
    succeeded: float
    level: Level

    def pack(self) -> bytes:
        return _MARK.pack(self.digest, self.succeeded, self.level.units, self.level.at)


def _place(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "big")


def _pause(failures: float) -> float:
    """Seconds to wait after so many failures, beyond what the bucket asks for."""
    return 0.0 if failures <= FREE_FAILURES else FIRST_WAIT * 2 ** (failures - FREE_FAILURES - 1)


def _unpack(marks: bytes) -> list[_Mark]:
    return [
        _Mark(digest, succeeded, Level(units, at))
        for digest, succeeded, units, at in _MARK.iter_unpack(marks)
    ]


def _find(marks: bytes, key: Key, now: float) -> _Mark | None:
    for digest, succeeded, units, at in _MARK.iter_unpack(marks):
        if digest == key.digest:
            return _Mark(digest, succeeded, Level(units, at)) if now - succeeded <= KNOWN_FOR else None
    return None


def _with(marks: bytes, mark: _Mark) -> bytes:
    others = [other for other in _unpack(marks) if other.digest != mark.digest]
    if len(others) >= MARKS:
        others.remove(min(others, key=lambda other: other.succeeded))
    return _pack([*others, mark])


def _pack(marks: Iterable[_Mark]) -> bytes:
    return b"".join(mark.pack() for mark in marks)

"""How often a peer may fail: RFC 4226 section 7.3.

A failure costs one unit for each step that the code was compared with: each is one chance to guess right.
Two buckets take the units: one of the key (uid, origin and account together) and one of the account. Both
drain slowly. What does not fit is refused before any code is made. SECURITY.md has the arithmetic, and a test
the simulation.

A key that gave a right code in the last 30 days has a mark in its account's row. Its failures count in the
account's bucket, but it is not refused for that bucket: a guesser cannot lock out the owner. All other keys
share a table of fixed size, by a keyed hash. Names without an account share a second one, in place of the
account's bucket. What is in a table decays and is never evicted, so nobody makes room by inventing origins,
names or uids. Keys that share a slot are throttled together.

An administrator can reset one account. The number of its resets is part of the hash that picks a slot: its
callers get other slots, and nothing that is shared is cleared.
"""

import hashlib
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import NamedTuple

from pki2fad.rules import otp
from pki2fad.rules.clock import Reading
from pki2fad.rules.tally import DAY, DIGEST_BYTES, EMPTY, NO_TALLY, Level, Mark, Tally

Slots = dict[int, Level]


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket that holds `capacity` units and drains `drain` of them in a day."""

    capacity: float
    drain: float

    def wait(self, level: Level, cost: int, now: float) -> float:
        """Seconds until units of this cost fit; 0.0 if they do."""
        return max(0.0, (self._units(level, now) + cost - self.capacity) * DAY / self.drain)

    def add(self, level: Level, cost: int, now: float) -> Level:
        """The level after one more failure; never above the capacity."""
        return Level(min(self._units(level, now) + cost, self.capacity), now)

    def _units(self, level: Level, now: float) -> float:
        return max(0.0, level.units - max(0.0, now - level.at) * self.drain / DAY)


# One comparison in a million is right. A year of 162 + 365 * 27 units finds a code with a probability of
# .997 percent, however many keys share them. Eight keys alone have 8 * (18 + 365 * 3) units: .89 percent.
KEY = Limit(capacity=18, drain=3)
ACCOUNT = Limit(capacity=162, drain=27)

FREE_FAILURES = 3  # without a wait: people mistype
FIRST_WAIT = 60.0  # seconds after the fourth; doubled for each further one, until the bucket is full

# About 10 MiB of memory at most. Keys share slots with keys, and names with names: a name's bucket holds and
# drains more.
KEY_SLOTS = 49_152
NAME_SLOTS = 16_384

_RENEW_AFTER = 3_600.0  # seconds: a younger mark need not be written again

_SALT_BYTES = hashlib.blake2b.SALT_SIZE
_RESYNC = b"resync"  # the purpose of a key's hash, if it is not `verify`


class Key(NamedTuple):
    """A caller and an account: a digest for the mark, and a slot in the table. Nobody can aim at either."""

    digest: bytes
    slot: int


NOBODY = Key(bytes(DIGEST_BYTES), 0)  # where callers are not distinguished


class Known(NamedTuple):
    """A key that has a mark."""

    digest: bytes
    succeeded: float  # the last time, as `Throttle` counts seconds
    wait: float  # seconds until its next try


def cost_of_failure(seeds: Sized) -> int:
    """The units that a wrong code costs, when these seeds' codes are compared with it."""
    return otp.WINDOW_STEPS * len(seeds)


class Throttle:
    """The policy, and the table of the keys that have no mark.

    `secret` keys the hashes. Time is counted from `started` on by the clock that nobody sets; its `wall` is
    the time that the state has reached (`Store.begin_boot`). Changes by a failure or a success are returned,
    for the caller to keep. Unless it is `enabled`, no failure is counted: that is for benchmarks.
    """

    def __init__(
        self, secret: bytes, slots: Iterable[tuple[int, Level]], started: Reading, *, enabled: bool = True
    ) -> None:
        self.enabled = enabled
        self._secret = secret
        self._started = started
        self._name, self._name_slot = "", -1  # the last name, and its slot
        now = self.now(started)
        self._slots = {slot: Level(level.units, min(level.at, now)) for slot, level in slots}

    def enable(self, *, enabled: bool) -> None:
        """Count failures from now on, or count none."""
        self.enabled = enabled

    def now(self, reading: Reading) -> float:
        """The time of a reading in seconds. Setting the wall clock does not change it."""
        return self._started.wall + reading.boot - self._started.boot

    def as_loaded(self, tally: Tally) -> Tally:
        """A tally of an earlier run. Times in the future, by a clock that was ahead, become now."""
        if tally is NO_TALLY:  # as nearly all are in a large state
            return tally
        return tally.not_after(self.now(self._started))

    def key(self, uid: int, origin: str, account: str, resets: int = 0) -> Key:
        """The key of a peer, or of an origin that it relays for. `resets` are those of the account."""
        # No name has a NUL; an origin, which may, comes last.
        caller = f"{uid}\0{account}\0{origin}".encode("utf-8", "surrogateescape")
        return Key(self._digest(caller), _place(self._digest(caller, resets)) % KEY_SLOTS)

    def key_to_resync(self, uid: int, account: str, resets: int) -> Key:
        """The key of a peer that resynchronises an account. It is not the one for `verify`."""
        digest = self._digest(f"{uid}\0{account}".encode(), resets, _RESYNC)
        return Key(digest, _place(digest) % KEY_SLOTS)

    def tally_of_unknown(self, name: str) -> Tally:
        """The tally of a name without an account: it must look like an account's."""
        return Tally(self._slots.get(self._slot_of_name(name), EMPTY))

    def wait(self, key: Key, tally: Tally, cost: int, now: float) -> float:
        """Seconds until the key may try again, if a failure has this cost; 0.0 if it may now.

        It takes the same time with marks as without, so that the time of a refusal tells nothing.
        """
        level, mark, of_account = self._level(key), tally.mark(key.digest), self.wait_of_all(tally, cost, now)
        if mark.is_known(now):
            level, of_account = mark.level, 0.0
        return max(self._wait(level, cost, now), of_account)

    def wait_of_all(self, tally: Tally, cost: int, now: float) -> float:
        """The seconds that every key without a mark waits at least."""
        return ACCOUNT.wait(tally.level, cost, now) if self.enabled else 0.0

    def may_refuse(self, tally: Tally, cost: int, now: float) -> bool:
        """False if the last failure is too old to make any key wait."""
        return now - tally.level.at < cost * DAY / KEY.drain

    def known(self, tally: Tally, cost: int, now: float) -> list[Known]:
        """The keys with a mark, the latest success first."""
        marks = sorted(tally.all_marks(), key=lambda mark: mark.succeeded, reverse=True)
        return [
            Known(mark.digest, mark.succeeded, self._wait(mark.level, cost, now))
            for mark in marks
            if mark.is_known(now)
        ]

    def fail(self, key: Key, tally: Tally, cost: int, now: float) -> tuple[Tally, Slots]:
        """Count a failure; returns the account's new tally, and changed slots of the table."""
        counted = tally.with_level(ACCOUNT.add(tally.level, cost, now))
        mark = tally.mark(key.digest)
        if mark.is_known(now):
            return counted.with_mark(mark._replace(level=KEY.add(mark.level, cost, now))), {}
        return counted, self._put(key.slot, KEY.add(self._level(key), cost, now))

    def fail_unknown(self, key: Key, name: str, cost: int, now: float) -> Slots:
        """Count a failure for a name without an account."""
        tally, slots = self.fail(key, self.tally_of_unknown(name), cost, now)
        return slots | self._put(self._slot_of_name(name), tally.level)

    def succeed(self, key: Key, tally: Tally, now: float) -> Tally:
        """Clear the key's own bucket and mark the key; returns the same tally if nothing changes."""
        if not self.enabled:
            return tally
        mark = tally.mark(key.digest)
        if not mark.level.units and now - mark.succeeded < _RENEW_AFTER:
            return tally
        return tally.with_mark(Mark(key.digest, now, EMPTY))

    def _digest(self, data: bytes, resets: int = 0, purpose: bytes = b"") -> bytes:
        """The keyed hash, with the resets and the purpose in it."""
        salt = resets.to_bytes(_SALT_BYTES)
        return hashlib.blake2b(
            data, digest_size=DIGEST_BYTES, key=self._secret, salt=salt, person=purpose
        ).digest()

    def _slot_of_name(self, name: str) -> int:
        if name != self._name:
            self._name, self._name_slot = name, KEY_SLOTS + _place(self._digest(name.encode())) % NAME_SLOTS
        return self._name_slot

    def _level(self, key: Key) -> Level:
        return self._slots.get(key.slot, EMPTY)

    def _wait(self, level: Level, cost: int, now: float) -> float:
        """Seconds that a key waits for its own failures, if its bucket has this level."""
        if not self.enabled:
            return 0.0
        return max(level.at + _pause(level.units / cost) - now, KEY.wait(level, cost, now))

    def _put(self, slot: int, level: Level) -> Slots:
        self._slots[slot] = level
        return {slot: level}


def _place(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "big")


def _pause(failures: float) -> float:
    """Seconds to wait after this many failures, beyond the wait for the bucket."""
    return 0.0 if failures <= FREE_FAILURES else FIRST_WAIT * 2 ** (failures - FREE_FAILURES - 1)

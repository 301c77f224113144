"""How often a peer may fail: RFC 4226 section 7.3.

A failure costs one unit for each candidate that the code was compared with: each is one chance to guess
right. Two buckets take it: one of the key (uid, origin and account together), one of the account. Both drain
slowly. What does not fit is refused before any code is made. SECURITY.md has the arithmetic, and a test the
simulation.

The account's bucket holds units. A key's bucket holds six failures: with many authenticators people may
mistype as often as with one. It drains the same units in a day for all. The cost of an account changes with
its authenticators, and accounts that share a slot have different costs. So all failures in a key's bucket
count at the highest cost since it was empty. Then no mix of costs gives more than six failures and 3 units a
day.

A key that gave a right code in the last 30 days has a mark in its account's row. Its failures count in the
account's bucket, but it is not refused for that bucket: a guesser cannot lock out the owner. All other keys
share a table of fixed size, by a keyed hash. Names without an account share a second one, in place of the
account's bucket. What is in a table decays and is never evicted, so nobody makes room by inventing origins,
names or uids. Keys that share a slot are throttled together.

An administrator can reset one account. The number of its resets is part of the hash that picks a slot: its
callers get other slots, and nothing that is shared is cleared.
"""

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pki2fad.rules import otp
from pki2fad.rules.authenticator import Authenticator
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
        return max(0.0, (self.units(level, now) + cost - self.capacity) * DAY / self.drain)

    def add(self, level: Level, cost: int, now: float) -> Level:
        """The level after one more failure; never above the capacity."""
        return Level(min(self.units(level, now) + cost, self.capacity), now)

    def units(self, level: Level, now: float) -> float:
        """The units that have not drained by now."""
        return max(0.0, level.units - max(0.0, now - level.at) * self.drain / DAY)


# One comparison in a million is right. A year of 162 + 365 * 27 units finds a code with a probability of
# .997 percent, however many keys share them. Eight keys alone have 8 * (18 + 365 * 3) units: .89 percent. For
# four TOTP authenticators it is 8 * (72 + 365 * 3): .93 percent.
ACCOUNT = Limit(capacity=162, drain=27)
KEY_FAILURES = 6
KEY_DRAIN = 3

COST_OF_UNKNOWN = otp.WINDOW_STEPS  # of a failure for a name without an account

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


def cost_of_failure(authenticators: Iterable[Authenticator]) -> int:
    """The units that a wrong code costs, when the codes of these are compared with it.

    Without any it costs as much as one for a name without an account.
    """
    units = sum([otp.COUNTERS if one.is_hotp else otp.WINDOW_STEPS for one in authenticators])
    return units or COST_OF_UNKNOWN


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
        self._slots = {slot: level._replace(at=min(level.at, now)) for slot, level in slots}

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

    def key(self, uid: int, origin: str, caller: bytes, resets: int = 0) -> Key:
        """The key of a peer, or of an origin that it relays for. `resets` are those of the account.

        `caller` stands for the account, see `caller_of_id`, or for a name without one.
        """
        data = b"%d\0%b\0%b" % (uid, caller, origin.encode("utf-8", "surrogateescape"))
        return Key(self._digest(data), _place(self._digest(data, resets)) % KEY_SLOTS)

    def key_to_resync(self, uid: int, caller: bytes, resets: int) -> Key:
        """The key of a peer that resynchronises an account. It is not the one for `verify`."""
        digest = self._digest(b"%d\0%b" % (uid, caller), resets, _RESYNC)
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
        return max(self._wait(level, now), of_account)

    def wait_of_all(self, tally: Tally, cost: int, now: float) -> float:
        """The seconds that every key without a mark waits at least."""
        return ACCOUNT.wait(tally.level, cost, now) if self.enabled else 0.0

    def may_refuse(self, tally: Tally, cost: int, now: float) -> bool:
        """False if the last failure is too old to make any key wait."""
        if not tally.level.units:
            return False
        highest = max([cost, *(mark.level.cost for mark in tally.all_marks())])
        return now - tally.level.at < highest * DAY / KEY_DRAIN

    def known(self, tally: Tally, now: float) -> list[Known]:
        """The keys with a mark, the latest success first."""
        marks = sorted(tally.all_marks(), key=lambda mark: mark.succeeded, reverse=True)
        return [
            Known(mark.digest, mark.succeeded, self._wait(mark.level, now))
            for mark in marks
            if mark.is_known(now)
        ]

    def fail(self, key: Key, tally: Tally, cost: int, now: float) -> tuple[Tally, Slots]:
        """Count a failure; returns the account's new tally, and changed slots of the table."""
        counted = tally.with_level(ACCOUNT.add(tally.level, cost, now))
        mark = tally.mark(key.digest)
        if mark.is_known(now):
            return counted.with_mark(mark._replace(level=_one_more(mark.level, cost, now))), {}
        return counted, self._put(key.slot, _one_more(self._level(key), cost, now))

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

    def _wait(self, level: Level, now: float) -> float:
        """Seconds that a key waits for its own failures, if its bucket has this level."""
        if not self.enabled:
            return 0.0
        pause = level.at + _pause(level.failures) - now
        return max(pause, _of_key(level.cost).wait(level, level.cost, now))

    def _put(self, slot: int, level: Level) -> Slots:
        self._slots[slot] = level
        return {slot: level}


@functools.cache
def _of_key(cost: int) -> Limit:
    """The bucket of a key whose failures have this cost."""
    return Limit(KEY_FAILURES * cost, KEY_DRAIN)


def _one_more(level: Level, cost: int, now: float) -> Level:
    """A key's level after one more failure. All in it have the highest cost since it was empty."""
    units = _of_key(level.cost).units(level, now)
    highest = max(cost, level.cost) if units else cost
    units = units * (highest / level.cost) + highest
    return Level(min(units, _of_key(highest).capacity), now, highest)


def _place(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "big")


def _pause(failures: float) -> float:
    """Seconds to wait after this many failures, beyond the wait for the bucket."""
    return 0.0 if failures <= FREE_FAILURES else FIRST_WAIT * 2 ** (failures - FREE_FAILURES - 1)

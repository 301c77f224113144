"""New seeds that wait in memory for their first code, by account and label."""

from typing import NamedTuple

from pki2fad.errors import Unavailable
from pki2fad.rules import otp
from pki2fad.rules.account import MOST, Account

LIFETIME = 600.0  # seconds: enough to find the phone and install an authenticator

# Enrolments that wait at once, in less than a megabyte.
LIMIT = 1024

# Of one peer: an eighth, so that one that makes no end of them keeps no others out.
PEER_LIMIT = 128


class Waiting(NamedTuple):
    """A seed that waits."""

    new: Account  # with the one authenticator that is to come
    uid: int  # of the peer that asked for it
    until: float  # the CLOCK_BOOTTIME at which it expires


class Enrolments:
    """The seeds that wait: at most `LIMIT`, `PEER_LIMIT` for a peer, and `MOST` for an account."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Waiting] = {}

    def require_room(self, name: str, label: str, uid: int, now: float) -> None:
        """Raise `Unavailable` if no more may wait, or the peer has as many as it may."""
        for expired in [key for key, one in self._waiting.items() if one.until <= now]:
            del self._waiting[expired]
        others = [one for key, one in self._waiting.items() if key != (name, label)]
        theirs = [one for one in others if one.uid == uid]
        same = [one for one in others if one.new.name == name]
        if len(same) >= MOST:
            _refuse(f"{name!r} has {MOST} other enrolments that wait for their first code", same, now)
        if len(theirs) >= PEER_LIMIT:
            _refuse(f"uid {uid} has too many enrolments that wait for their first code", theirs, now)
        if len(others) >= LIMIT:
            _refuse("too many enrolments are waiting; try again", others, now)

    def add(self, new: Account, uid: int, now: float) -> None:
        """Let a seed wait. It takes the place of one with the same label."""
        self._waiting[new.name, new.label] = Waiting(new, uid, now + LIFETIME)

    def find(self, name: str, label: str, now: float) -> Account | None:
        """The account with the one authenticator that waits, unless it has expired."""
        found = self._waiting.get((name, label))
        return None if found is None or found.until <= now else found.new

    def labels(self, name: str) -> list[str]:
        """What waits for this name."""
        return [label for account, label in self._waiting if account == name]

    def follow(self, name: str, before: Account | None, after: Account | None) -> None:
        """Let go of what the change of an account leaves no ground for.

        What waits was asked for by somebody who proved to have an authenticator of the account, or when there
        was none. So it goes when the account comes, and when an authenticator goes.
        """
        if not self._waiting:
            return
        if before is None or after is None or not _goes_on(before, after):
            self.drop(name)
        else:
            for one in after.authenticators:
                self.drop(name, one.label)

    def drop(self, name: str, label: str | None = None) -> bool:
        """Let go of what waits for this name, or of one label; False if nothing does."""
        labels = self.labels(name) if label is None else [label]
        found = [key for key in ((name, one) for one in labels) if key in self._waiting]
        for key in found:
            del self._waiting[key]
        return bool(found)

    def clear(self) -> None:
        """Let go of all."""
        self._waiting.clear()


def _goes_on(before: Account, after: Account) -> bool:
    """True if each authenticator stays, or is followed by its successor."""
    known = {seed.fixed for seed in before.seeds}
    stay = [after.authenticator(one.label) for one in before.authenticators]
    return all(one is not None and one.fixed in known for one in stay)


def _refuse(why: str, waiting: list[Waiting], now: float) -> None:
    raise Unavailable(why, otp.seconds_until(now, min(one.until for one in waiting)))

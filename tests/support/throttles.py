"""The throttle alone, and an account's row beside it, as the agent and the store keep it."""

from collections.abc import Iterable

from pki2fad.rules.clock import Reading
from pki2fad.rules.tally import NO_TALLY
from pki2fad.rules.throttle import Slots, Throttle

STARTED = Reading(wall=1_700_000_000.0, boot=5_000.0)
NOW = STARTED.wall
HOUR = 3_600.0
DAY = 86_400.0
WINDOW = 3  # candidate steps that a code is usually compared with
SUCCESSOR = 6  # while another seed is tried too


def make_throttle(
    slots: Slots | None = None, started: Reading = STARTED, secret: bytes = b"secret"
) -> Throttle:
    return Throttle(secret, (slots or {}).items(), started)


class Account:
    """An account's row, which the throttle's answers move, and what is in the table on disk."""

    def __init__(self, throttle: Throttle, name: str = "default") -> None:
        self.throttle = throttle
        self.name = name
        self.caller = name.encode()  # as for an account of version 0.1.0
        self.tally = NO_TALLY
        self.slots: Slots = {}

    def wait(self, now: float, uid: int = 1, origin: str = "", cost: int = WINDOW) -> float:
        return self.throttle.wait(self.throttle.key(uid, origin, self.caller), self.tally, cost, now)

    def fail(self, now: float, uid: int = 1, origin: str = "", cost: int = WINDOW) -> None:
        key = self.throttle.key(uid, origin, self.caller)
        self.tally, slots = self.throttle.fail(key, self.tally, cost, now)
        self.slots |= slots

    def succeed(self, now: float, uid: int = 1, origin: str = "") -> None:
        self.tally = self.throttle.succeed(self.throttle.key(uid, origin, self.caller), self.tally, now)

    def fill(self, now: float, uids: Iterable[int] = range(1000, 1100)) -> None:
        """Let strangers fail until the account's bucket is full."""
        for uid in uids:
            self.fail(now, uid)

    def tire(self, now: float, uid: int = 1, origin: str = "", cost: int = WINDOW) -> None:
        """Let somebody fail until their own bucket is full."""
        for _ in range(6):
            self.fail(now, uid, origin, cost)


def is_known(account: Account, now: float, uid: int) -> bool:
    account.fill(now)
    return account.wait(now, uid) == 0

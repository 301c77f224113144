"""What comes before a code is compared, and what a wrong one costs: the same for every kind of code."""

import math
from typing import NamedTuple

from pki2fad.errors import Throttled
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import fixed_facts
from pki2fad.rules.changes import REJECTED, WRONG, Answer, Failure
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.refusals import Attempt, Refusals
from pki2fad.rules.tally import NO_TALLY, Tally, caller_of_name
from pki2fad.rules.throttle import NOBODY, Key, Throttle
from pki2fad.times import moment

# Stands for a missing account, if the peer must not notice that it is missing.
NO_ACCOUNT = Account("", Parameters(), b"", fixed_facts(bytes(16), bytes(16), bytes(16), 0, b""))


class Caller(NamedTuple):
    """Who tries a code, and of which account."""

    name: str
    payer: int  # the uid whose budget pays for a failure
    origin: str
    veiled: bool  # it may not know whether the account exists


class Attempts:
    """Lets callers try codes, counts their failures, and remembers whom it refused."""

    def __init__(self, keyring: Keyring, throttle: Throttle) -> None:
        self.refusals = Refusals()
        self._keyring = keyring
        self._throttle = throttle

    def account(self, caller: Caller) -> Account | None:
        """The account; None only if the caller is veiled, otherwise raises `NoSuchAccount`.

        Raises `Unavailable` if it is about to change.
        """
        self._keyring.holds.require_free(caller.name)
        if caller.veiled:
            return self._keyring.accounts.get(caller.name)
        return self._keyring.account(caller.name)

    def begin(
        self, caller: Caller, account: Account | None, cost: int, reading: Reading
    ) -> tuple[Tally, Key, float]:
        """Let the caller try a code that costs so many units if it is wrong. Raises `Throttled`.

        Returns the account's tally, the caller's key, and the time as `Throttle` counts it. A missing account
        is as much work as one that exists: a veiled caller must not notice it.
        """
        name, payer, origin, veiled = caller
        standing = NO_ACCOUNT if account is None else account
        tally = standing.tally
        throttle = self._throttle
        if not throttle.enabled:
            return tally, NOBODY, 0.0
        unknown = throttle.tally_of_unknown(name) if veiled else NO_TALLY
        tally = unknown if account is None else tally
        named, known = caller_of_name(name), standing.caller
        key = throttle.key(payer, origin, named if account is None else known, tally.resets)
        now = self.require(key, tally, cost, reading, Attempt("verify", payer, origin, name))
        return tally, key, now

    def require(self, key: Key, tally: Tally, cost: int, reading: Reading, attempt: Attempt) -> float:
        """Raise `Throttled` if a failure of this cost does not fit into the budget.

        Returns the time as `Throttle` counts it.
        """
        now = self._throttle.now(reading)
        wait = self._throttle.wait(key, tally, cost, now)
        if wait > 0:
            until = math.ceil(reading.wall + wait)
            self.refusals.add(attempt, int(reading.wall), until)
            raise Throttled(f"there were too many wrong codes; try again at {moment(until)}", math.ceil(wait))
        return now

    def fail(self, account: Account | None, name: str, key: Key, cost: int, now: float) -> Answer:
        """The answer to a wrong code, which is counted."""
        if not self._throttle.enabled:
            return Answer(REJECTED, reason=WRONG)
        if account is None:
            slots = self._throttle.fail_unknown(key, name, cost, now)
            return Answer(REJECTED, change=Failure(name, None, slots), reason=WRONG)
        tally, slots = self._throttle.fail(key, account.tally, cost, now)
        account.count(tally)
        return Answer(REJECTED, change=Failure(name, tally, slots), reason=WRONG)

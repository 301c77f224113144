"""Is a code good? As RFC 6238 section 5.2 and RFC 4226 section 7 want it answered."""

import math
from dataclasses import replace

from pki2fad.errors import Refusal
from pki2fad.rules import otp
from pki2fad.rules.account import Account
from pki2fad.rules.attempts import NO_ACCOUNT, Attempts, Caller
from pki2fad.rules.authenticator import Authenticator
from pki2fad.rules.changes import PROMOTED, REJECTED, REPLAYED, WRONG, Answer, Edit, Spend
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.refusals import Attempt
from pki2fad.rules.tally import NO_TALLY, Tally, caller_of_name
from pki2fad.rules.throttle import Throttle, cost_of_failure
from pki2fad.rules.window import Window, accepted, candidates
from pki2fad.wire.forms import MAIN

# The log tells codes of this many steps outside the window from wrong ones.
_NEAR_STEPS = 10
_NEAR = [sign * (otp.WINDOW + steps) for steps in range(1, _NEAR_STEPS + 1) for sign in (-1, 1)]

# The reason that `explain` gives for a code that is not valid.
_EXPLAINED = {REPLAYED: "used", WRONG: "old"}


class Verifier:
    """Compares codes, spends those that are good, and counts the others."""

    def __init__(
        self, keyring: Keyring, throttle: Throttle, watch: Watch, window: Window, attempts: Attempts
    ) -> None:
        self._keyring = keyring
        self._codes = keyring.codes
        self._window = window
        self._throttle = throttle
        self._watch = watch
        self._attempts = attempts

    def verify(self, caller: Caller, code: str, reading: Reading) -> Answer:
        """Answer whether a code is good.

        To a veiled caller a name without an account gives the same answers at the same cost. Otherwise raises
        `NoSuchAccount`. Raises `Throttled` and `Unavailable`.
        """
        account = self._attempts.account(caller)
        active = (NO_ACCOUNT if account is None else account).in_force(reading.wall)
        cost = cost_of_failure(active)
        tally, key, now = self._attempts.begin(caller, account, cost, reading)
        if account is None or not active:  # all that it has is inactive
            self._window.require_clock(NO_ACCOUNT, reading)
            decoy = self._codes.veiled(caller.name, None)
            self._window.match(decoy, decoy, code, candidates(NO_ACCOUNT, reading))
            return self._attempts.fail(account, caller.name, key, cost, now)
        found, refusal = self._matches(account, active, code, reading, veiled=caller.veiled)
        if not found:
            answer = self._attempts.fail(account, account.name, key, cost, now)
            return answer if refusal is None else replace(answer, result=None, reason=None, refusal=refusal)
        if [one for one, step in found.items() if step <= self._keyring.watermark(one)]:
            return Answer(REJECTED, reason=REPLAYED)  # no guess, so it costs nothing
        new = self._throttle.succeed(key, tally, now)
        if [one for one in found if one not in account.authenticators]:
            return self._promote(account, found, new, reading)
        return self._spend(account, found, new, reading)

    def _matches(
        self,
        account: Account,
        active: tuple[Authenticator, ...],
        code: str,
        reading: Reading,
        *,
        veiled: bool,
    ) -> tuple[dict[Authenticator, int], Refusal | None]:
        """The step or counter that the code is of, by authenticator, and why some could not be compared.

        Raises that reason if none could.
        """
        found: dict[Authenticator, int] = {}
        refusal: Refusal | None = None
        refused = 0
        for one in active:
            steps = candidates(one, reading)
            try:
                self._window.require_clock(one, reading)
                if not veiled:
                    self._window.require_past(one, steps, reading)
            except Refusal as error:
                refusal, refused = error, refused + 1
                continue
            kept = self._codes.veiled(account.name, one) if veiled else one
            step = self._window.match(one, kept, code, steps)
            if step is not None:
                found[one] = step
        if refusal is not None and refused == len(active):
            raise refusal
        return found, refusal

    def confirm(self, new: Authenticator, code: str, payer: int, reading: Reading) -> Answer:
        """Answer whether a code is that of an enrolment. A right one is spent, and adds the authenticator.

        A wrong one counts like one for a name without an account. The caller was shown the seed, and is not
        refused for what others did to the budget of the name. Raises `Throttled` and `Unavailable`.
        """
        self._keyring.require_identity(new)
        account = self._keyring.accounts.get(new.name)
        throttle, now = self._throttle, self._throttle.now(reading)
        key = throttle.key(payer, "", caller_of_name(new.name))
        attempt = Attempt("enroll_confirm", payer, "", new.name)
        cost = cost_of_failure((new,))
        self._attempts.require(key, NO_TALLY, cost, reading, attempt)
        self._window.require_clock(new, reading)
        step = self._window.match(new, new, code, candidates(new, reading))
        if step is None:
            return self._attempts.fail(None, new.name, key, cost, now)
        if step <= self._keyring.watermark(new):
            return Answer(REJECTED, reason=REPLAYED)
        self._watch.saw(reading)
        spent = _spent(new, step, reading)
        if account is None:
            put = Account.of([spent])
            put.count(throttle.succeed(throttle.key(payer, "", put.caller), NO_TALLY, now))
        else:
            put = account.with_authenticator(spent)
        edit = Edit(put.name, self._watch.believed(reading.wall), put)
        return Answer({"valid": True}, change=edit, audit="added")

    def explained(self, answer: Answer, name: str, code: str, reading: Reading) -> Answer:
        """The answer with the reason why this code is not valid, unless its step is still to come."""
        if answer.reason not in _EXPLAINED:
            return answer
        for one in self._keyring.account(name).in_force(reading.wall):
            if any(otp.equal(code, old) for old in self._codes.of_steps(one, _until_now(one, reading))):
                # A counter that is gone by is spent, also where its code was skipped.
                reason = _EXPLAINED[REPLAYED if one.is_hotp else answer.reason]
                return replace(answer, result={**REJECTED, "reason": reason})
        return answer

    def unavailable_until(self, reading: Reading) -> int | None:
        """The Unix time until which some account cannot verify, None if all can."""
        until = self._window.unavailable_until(reading)
        return None if until is None else math.ceil(until)

    def steps_off(self, name: str, code: str, reading: Reading) -> int | None:
        """How many steps a code is ahead of now, if its step is near the window, on either side.

        A missing account is as much work. While the keys are locked nothing is looked up.
        """
        if self._keyring.locked:
            return None
        account = self._keyring.accounts.get(name)
        active = (account or self._codes.veiled(name, None)).in_force(reading.wall)
        near = [  # all of them, whichever matches: the caller may measure what comes after the answer
            (otp.equal(code, self._codes.of_step(one, middle + steps)), one.offset + steps)
            for one in active
            if not one.is_hotp
            for middle in (candidates(one, reading).start + otp.WINDOW,)
            for steps in _NEAR
        ]
        found = [steps for is_equal, steps in near if is_equal]
        return found[0] if found and account is not None else None

    def _spend(
        self, account: Account, found: dict[Authenticator, int], tally: Tally, reading: Reading
    ) -> Answer:
        """The answer to a code of authenticators that do not wait. It is spent for all of them."""
        self._watch.saw(reading)
        changed = tally if tally is not account.tally else None
        account.count(tally)
        spends: list[Spend] = []
        for one, step in found.items():
            drift, used = accepted(one, step, reading)
            self._keyring.spend(one, step, drift, used)
            label = None if one is account else one.label
            period, offset = one.parameters.period, one.offset
            spends.append(Spend(account.name, step, period, reading.wall, offset, drift, changed, label))
            changed = None  # once is enough
        change = spends[0] if len(spends) == 1 else spends[0]._replace(also=tuple(spends[1:]))
        return Answer({"valid": True}, change=change, matched=_named(account, found))

    def _promote(
        self, account: Account, found: dict[Authenticator, int], tally: Tally, reading: Reading
    ) -> Answer:
        """The answer to a code of a successor, which takes the place of the one that it follows.

        If the code is also one of others, it is spent for them.
        """
        self._watch.saw(reading)
        after = {one: _spent(one, step, reading) for one, step in found.items()}
        spent = [after.get(one, one) for one in account.authenticators]
        before = Account.of(spent, tally, account.recovery)
        put = before
        for one in before.authenticators:
            if one.successor is not None and one.successor.authenticator in after:
                put = put.with_authenticator(after[one.successor.authenticator])
        gone = self._keyring.ended(before, put)
        edit = Edit(account.name, self._watch.believed(reading.wall), put, gone)
        return Answer({"valid": True}, change=edit, audit=PROMOTED, matched=_named(account, found))


def _spent(one: Authenticator, step: int, reading: Reading) -> Authenticator:
    """A copy after the code of this step or counter was accepted."""
    drift, used = accepted(one, step, reading)
    return one.changed(last_step=step, drift=drift, used=used)


def _named(account: Account, found: dict[Authenticator, int]) -> str | None:
    """The labels of those that a code was of, for the log; None where nobody would ask."""
    if not account.others and account.label == MAIN:
        return None
    return " ".join([one.label for one in found])


def _until_now(one: Authenticator, reading: Reading) -> range:
    """The steps or counters whose codes may be known to a caller that asks why a code is not valid."""
    steps = candidates(one, reading)
    if one.is_hotp:
        return range(max(0, steps.start - _NEAR_STEPS), steps.start)
    until = min(steps.stop, otp.step_at(reading.wall, one.parameters.period) + 1)
    return range(steps.start - _NEAR_STEPS, until)

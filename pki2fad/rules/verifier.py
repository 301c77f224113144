"""Is a code good? As RFC 6238 section 5.2 and RFC 4226 section 7 want it answered."""

import math
from dataclasses import replace

from pki2fad.errors import BadRequest, Throttled, Unavailable
from pki2fad.rules import otp
from pki2fad.rules.account import Account, reach
from pki2fad.rules.changes import PROMOTED, REJECTED, REPLAYED, WRONG, Answer, Edit, Failure, Spend
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.refusals import Attempt, Refusals
from pki2fad.rules.tally import NO_TALLY, Tally
from pki2fad.rules.throttle import NOBODY, Key, Throttle, cost_of_failure
from pki2fad.times import moment

# The log tells codes of this many steps outside the window from wrong ones.
_NEAR_STEPS = 10
_NEAR = [sign * (otp.WINDOW + steps) for steps in range(1, _NEAR_STEPS + 1) for sign in (-1, 1)]

# The reason that `explain` gives for a code that is not valid.
_EXPLAINED = {REPLAYED: "used", WRONG: "old"}

# Stands for a missing account, if the peer must not notice that it is missing.
_NO_ACCOUNT = Account("", Parameters(), b"", b"", -1)

# Seconds by which codes may be spent ahead of the clock before `status` says so: every window has some.
_STATUS_SLACK = 2 * (otp.WINDOW + 1) * otp.LONGEST_PERIOD

_SET_BACK = "codes were used while the clock was ahead; if it is right now: pki2factl clock accept"


class Verifier:
    """Compares codes, spends those that are good, and counts the others."""

    def __init__(self, keyring: Keyring, throttle: Throttle, watch: Watch) -> None:
        self._keyring = keyring
        self._codes = keyring.codes
        self._throttle = throttle
        self._watch = watch
        self.refusals = Refusals()

    def verify(
        self, name: str, code: str, payer: int, origin: str, reading: Reading, *, veiled: bool
    ) -> Answer:
        """Answer whether a code is good. `payer` is the uid whose budget pays for a failure.

        With `veiled` the peer may not know whether the account exists: a name without one gets the same
        answers at the same cost. Otherwise raises `NoSuchAccount`. Raises `Throttled` and `Unavailable`.
        """
        self._keyring.require_not_held(name)
        account = self._keyring.accounts.get(name) if veiled else self._keyring.account(name)
        # Up to a refusal a missing account is as much work as one that exists: a peer must not notice it.
        standing = _NO_ACCOUNT if account is None else account
        seeds, tally = standing.in_force(reading.wall), standing.tally
        cost = cost_of_failure(seeds)
        throttle, key, now = self._throttle, NOBODY, 0.0
        if throttle.enabled:
            unknown = throttle.tally_of_unknown(name) if veiled else NO_TALLY
            tally = unknown if account is None else tally
            key, now = throttle.key(payer, origin, name, tally.resets), throttle.now(reading)
            self._require_budget(key, tally, cost, reading, Attempt("verify", payer, origin, name))
        steps = {}
        for seed in seeds if account is not None else (self._codes.veiled(name, None),):
            middle = _middle(seed, reading)
            self._require_clock(seed, reading)
            if not veiled:
                self._require_past(seed, middle, reading)
            kept = self._codes.veiled(name, seed) if veiled and account is not None else seed
            step = self._match(seed, kept, code, middle)
            if step is not None:
                steps[seed] = step
        if account is None or not steps:
            return self._fail(account, name, key, cost, now)
        if any(step <= self._keyring.watermark(seed) for seed, step in steps.items()):
            return Answer(REJECTED, reason=REPLAYED)  # no guess, so it costs nothing
        new = throttle.succeed(key, tally, now)
        if any(seed is not account for seed in steps):
            return self._promote(account, steps, new, reading)
        return self._spend(account, steps[account], new, reading)

    def confirm(self, new: Account, code: str, payer: int, reading: Reading) -> Answer:
        """Answer whether a code is that of an enrolment. A right one is spent, and makes the account.

        A wrong one counts like one for a name without an account. The caller was shown the seed, and is not
        refused for what others did to the budget of the name. Raises `Throttled` and `Unavailable`.
        """
        key, now = self._throttle.key(payer, "", new.name), self._throttle.now(reading)
        attempt = Attempt("enroll_confirm", payer, "", new.name)
        cost = cost_of_failure((new,))
        self._require_budget(key, NO_TALLY, cost, reading, attempt)
        self._require_clock(new, reading)
        step = self._match(new, new, code, _middle(new, reading))
        if step is None:
            return self._fail(None, new.name, key, cost, now)
        if step <= self._keyring.watermark(new):
            return Answer(REJECTED, reason=REPLAYED)
        self._watch.saw(reading)
        tally = self._throttle.succeed(key, NO_TALLY, now)
        put = new.copy(last_step=step, drift=_drift(new, step, reading), tally=tally)
        edit = Edit(put.name, self._watch.believed(reading.wall), put, gone=None)
        return Answer({"valid": True}, change=edit, audit="added")

    def explained(self, answer: Answer, name: str, code: str, reading: Reading) -> Answer:
        """The answer with the reason why this code is not valid, unless its step is still to come."""
        if answer.reason not in _EXPLAINED:
            return answer
        for seed in self._keyring.account(name).in_force(reading.wall):
            middle, now = _middle(seed, reading), otp.step_at(reading.wall, seed.parameters.period)
            for step in range(middle - otp.WINDOW - _NEAR_STEPS, min(middle + otp.WINDOW, now) + 1):
                if otp.equal(code, self._codes.of_step(seed, step)):
                    return replace(answer, result={**REJECTED, "reason": _EXPLAINED[answer.reason]})
        return answer

    def resync(self, name: str, first: str, second: str, payer: int, reading: Reading) -> Answer:
        """Follow a prover that showed these two codes, the second just now (RFC 6238 section 6).

        Right codes clear the account's failures: a caller that has them guesses nothing. Wrong ones have a
        budget of their own here. Raises `NoSuchAccount`, `Throttled` and `Unavailable`.
        """
        current = self._keyring.account(name)
        account = current.settled(reading.wall)
        key = self._throttle.key_to_resync(payer, name, account.tally.resets)
        cost = cost_of_failure(account.seeds)
        self._require_budget(key, NO_TALLY, cost, reading, Attempt("resync", payer, "", name))
        self._require_clock(account, reading)
        found = self._offset(account, first, second, reading)
        if found is None:
            refusal = BadRequest(
                "the two codes must follow each other, be within"
                f" {otp.MAX_OFFSET} steps of now, and be unused"
            )
            change = None
            if self._throttle.enabled:
                _, slots = self._throttle.fail(key, NO_TALLY, cost, self._throttle.now(reading))
                change = Failure(name, None, slots)
            return Answer(refusal=refusal, change=change, audit="refused")
        offset, last_step = found
        put = account.copy(last_step=last_step, offset=offset, tally=account.tally.reset())
        gone = None if account is current else self._keyring.leaving(current)
        edit = Edit(name, self._watch.believed(reading.wall), put, gone)
        details = {"offset": offset}
        return Answer({"account": name, **details}, change=edit, audit="resynchronised", details=details)

    def _offset(self, account: Account, first: str, second: str, reading: Reading) -> tuple[int, int] | None:
        """The offset of a prover that shows these codes, and the step of the second.

        None unless the two steps follow each other, both are unspent, and the second is at most
        `otp.MAX_OFFSET` steps away.
        """
        current = otp.step_at(reading.wall, account.parameters.period)
        steps = range(current - otp.MAX_OFFSET - 1, current + otp.MAX_OFFSET + 1)
        codes = [self._codes.of_step(account, step) for step in steps]
        matching = [
            step
            for step, one, other in zip(steps, codes, codes[1:], strict=False)
            if otp.equal(first, one) & otp.equal(second, other) and step > self._keyring.watermark(account)
        ]
        if not matching:
            return None
        last = min((step + 1 for step in matching), key=lambda step: abs(step - current))
        return last - current, last

    def unavailable_until(self, reading: Reading) -> int | None:
        """The Unix time until which some account cannot verify, None if all can."""
        kinds = self._keyring.kinds() or {(Parameters().period, 0)}
        waits = [wait for period, offset in kinds for wait in self._waits(period, offset, reading.wall)]
        latest = self._keyring.latest(reading.wall + _STATUS_SLACK)
        if latest:
            waits.append((latest, _SET_BACK))
        return math.ceil(max(waits)[0]) if waits else None

    def _require_budget(self, key: Key, tally: Tally, cost: int, reading: Reading, attempt: Attempt) -> None:
        """Raise `Throttled` if a failure of this cost does not fit into the budget."""
        wait = self._throttle.wait(key, tally, cost, self._throttle.now(reading))
        if wait > 0:
            until = math.ceil(reading.wall + wait)
            self.refusals.add(attempt, int(reading.wall), until)
            raise Throttled(f"there were too many wrong codes; try again at {moment(until)}", math.ceil(wait))

    def _require_clock(self, account: Account, reading: Reading) -> None:
        """Raise `Unavailable` if codes may have been accepted that are not on record."""
        wall, period = reading.wall, account.parameters.period
        watch, floors = self._watch, self._keyring.floors
        if wall >= watch.mark and not watch.spent and (not floors or wall >= floors.get(period, 0)):
            return  # as nearly always
        waits = self._waits(period, abs(account.offset), wall)
        if waits:
            until, why = max(waits)
            raise Unavailable(why, otp.seconds_until(reading.wall, until))

    def _require_past(self, account: Account, middle: int, reading: Reading) -> None:
        """Raise `Unavailable` if every code of the window is spent, because the clock was set back."""
        if account.last_step <= middle + 2 * otp.WINDOW:
            return  # the prover may have been further ahead before, and never less
        last = otp.step_at(reading.wall, account.parameters.period) + reach(account.offset, account.drift)
        if account.last_step > last + 2 * otp.WINDOW:  # small slews pass
            until = (account.last_step + 1 - otp.WINDOW - account.offset) * account.parameters.period
            raise Unavailable(_SET_BACK, otp.seconds_until(reading.wall, until))

    def _waits(self, period: int, offset: int, wall: float) -> list[tuple[float, str]]:
        """Until when codes of this period and offset cannot be verified (Unix times), and why."""
        waits: list[tuple[float, str]] = []
        behind = self._watch.behind(wall)
        if behind > otp.WINDOW * period:
            why = f"the clock is {behind:.0f} s behind what it was; if it is right: pki2factl clock accept"
            waits.append((self._watch.mark, why))
        floor = self._keyring.floors.get(period, 0)
        if wall < floor:
            waits.append((floor, "codes may have been used that are not on record"))
        spent_until = self._watch.spent_until(wall, (otp.WINDOW + 1 + offset) * period)
        if spent_until is not None:
            waits.append((spent_until, "codes of this time may have been used, while the clock was ahead"))
        return waits

    def steps_off(self, name: str, code: str, reading: Reading) -> int | None:
        """How many steps a code is ahead of now, if its step is near the window, on either side.

        A missing account is as much work. While the keys are locked nothing is looked up.
        """
        if self._keyring.locked:
            return None
        account = self._keyring.accounts.get(name)
        seeds = (account or self._codes.veiled(name, None)).in_force(reading.wall)
        near = [  # all of them, whichever matches: the caller may measure what comes after the answer
            (
                otp.equal(code, self._codes.of_step(seed, _middle(seed, reading) + steps)),
                seed.offset + steps,
            )
            for seed in seeds
            for steps in _NEAR
        ]
        found = [steps for is_equal, steps in near if is_equal]
        return found[0] if found and account is not None else None

    def _spend(self, account: Account, step: int, tally: Tally, reading: Reading) -> Answer:
        """The answer to a code of the account's own seed."""
        self._watch.saw(reading)
        period, drift = account.parameters.period, _drift(account, step, reading)
        self._keyring.spend(account, step, drift)
        changed = tally if tally is not account.tally else None
        account.count(tally)
        spend = Spend(account.name, step, period, reading.wall, account.offset, drift, changed)
        return Answer({"valid": True}, change=spend)

    def _promote(self, account: Account, steps: dict[Account, int], tally: Tally, reading: Reading) -> Answer:
        """The answer to a code of the successor, which is the account from now on.

        If the code is also one of the old seed, it is spent for both.
        """
        self._watch.saw(reading)
        ((successor, step),) = ((seed, step) for seed, step in steps.items() if seed is not account)
        drift = _drift(successor, step, reading)
        put = account.promoted().copy(last_step=step, drift=drift, tally=tally)
        last_step = max(account.last_step, steps.get(account, -1))
        gone = self._keyring.leaving(account.copy(last_step=last_step))
        edit = Edit(account.name, self._watch.believed(reading.wall), put, gone)
        return Answer({"valid": True}, change=edit, audit=PROMOTED)

    def _fail(self, account: Account | None, name: str, key: Key, cost: int, now: float) -> Answer:
        if not self._throttle.enabled:
            return Answer(REJECTED, reason=WRONG)
        if account is None:
            slots = self._throttle.fail_unknown(key, name, cost, now)
            return Answer(REJECTED, change=Failure(name, None, slots), reason=WRONG)
        tally, slots = self._throttle.fail(key, account.tally, cost, now)
        account.count(tally)
        return Answer(REJECTED, change=Failure(name, tally, slots), reason=WRONG)

    def _match(self, account: Account, kept: Account, code: str, middle: int) -> int | None:
        """The last of the steps that have this code, or None. The window's codes are kept with `kept`.

        Every step of the window is compared, in constant time. Adjacent steps can share a code: it spends
        all of them, also one that the window reaches only later.
        """
        matched = None
        for step, candidate in enumerate(self._codes.around(kept, middle), middle - otp.WINDOW):
            if otp.equal(code, candidate):
                matched = step
        if matched == middle + otp.WINDOW:
            while otp.equal(code, self._codes.of_step(account, matched + 1)):
                matched += 1
        return matched


def _drift(account: Account, step: int, reading: Reading) -> bytes:
    """The account's drift after the code of this step is accepted."""
    return account.drifted(step - otp.step_at(reading.wall, account.parameters.period))


def _middle(account: Account, reading: Reading) -> int:
    """The step in the middle of the window."""
    return otp.step_at(reading.wall, account.parameters.period) + account.offset

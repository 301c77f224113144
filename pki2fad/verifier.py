"""Is a code good? RFC 6238 section 5.2, and what RFC 4226 section 7 asks of who answers that."""

import math

from pki2fad import otp
from pki2fad.changes import INVALID, PROMOTED, REPLAYED, WRONG, Answer, Edit, Failure, Spend
from pki2fad.clock import Reading, Watch
from pki2fad.errors import BadRequest, Throttled, Unavailable
from pki2fad.keyring import Account, Keyring
from pki2fad.throttle import Key, Tally, Throttle

# Codes of so many steps outside the window are told from wrong ones in the log.
_NEAR_STEPS = 10

_USUAL_WINDOW = 30.0  # seconds, for what `status` says of all accounts together


class Verifier:
    """Compares codes, spends those that are good, and counts the others."""

    def __init__(self, keyring: Keyring, throttle: Throttle, watch: Watch) -> None:
        self._keyring = keyring
        self._throttle = throttle
        self._watch = watch

    def verify(self, name: str, code: str, payer: int, origin: str, reading: Reading) -> Answer:
        """Answer whether a code is good. A name that is no account is answered, and costs, as one is.

        `payer` is the uid whose budget pays for a failure. Raises `Throttled` and `Unavailable`.
        """
        account = self._keyring.accounts.get(name)
        key = self._throttle.key(payer, origin, name)
        now = self._throttle.now(reading)
        tally = self._throttle.tally_of_unknown(name) if account is None else account.tally
        seeds = () if account is None else account.in_force(reading.wall)
        cost = otp.WINDOW_STEPS * max(1, len(seeds))
        wait = self._throttle.wait(key, tally, cost, now)
        if wait > 0:
            raise Throttled("there were too many wrong codes", max(1, math.ceil(wait)))
        candidates = seeds or (self._keyring.decoy(name),)
        for seed in candidates:
            self._require_clock(seed, reading)
        matched = [(seed, self._match(seed, code, reading)) for seed in candidates]
        steps = {seed: step for seed, step in matched if step is not None}
        if account is None or not steps:
            return self._fail(account, name, key, cost, now)
        if any(step <= self._keyring.watermark(seed) for seed, step in steps.items()):
            return Answer(INVALID, reason=REPLAYED)  # no guess, so it costs nothing
        new = self._throttle.succeed(key, tally, now)
        if set(steps) != {account}:
            return self._promote(account, steps, new, reading)
        step, period = steps[account], account.parameters.period
        account.last_step = step
        account.drift = account.drifted(step - otp.step_at(reading.wall, period))
        changed, account.tally = new is not tally, new
        spend = Spend(
            name, step, period, reading.wall, account.offset, account.drift, new if changed else None
        )
        return Answer({"valid": True}, change=spend)

    def resync(self, account: Account, first: str, second: str, reading: Reading) -> tuple[int, int]:
        """The offset of a prover that showed these two codes, the second just now, and the last step.

        RFC 6238 section 6. Raises `BadRequest` unless they are codes of two steps that follow each other,
        both not spent, and the second at most `otp.MAX_OFFSET` steps away, and `Unavailable`.
        """
        self._require_clock(account, reading)
        current = otp.step_at(reading.wall, account.parameters.period)
        steps = range(current - otp.MAX_OFFSET - 1, current + otp.MAX_OFFSET + 1)
        codes = [self._keyring.code(account, step) for step in steps]
        matching = [
            step
            for step, one, other in zip(steps, codes, codes[1:], strict=False)
            if otp.equal(first, one) & otp.equal(second, other) and step > self._keyring.watermark(account)
        ]
        if not matching:
            raise BadRequest(
                "these are not two codes that follow each other, within"
                f" {otp.MAX_OFFSET} steps of now and neither used before"
            )
        last = min((step + 1 for step in matching), key=lambda step: abs(step - current))
        return last - current, last

    def unavailable_until(self, reading: Reading) -> int | None:
        """The Unix time until which some account cannot verify, None if all can."""
        floor = max(self._keyring.floors.values(), default=0)
        mark = self._watch.mark if self._watch.behind(reading.wall) > _USUAL_WINDOW else 0
        margin = (otp.WINDOW + 1) * _USUAL_WINDOW
        until = max(floor, mark, self._watch.spent_until(reading.wall, margin) or 0)
        return math.ceil(until) if until > reading.wall else None

    def _require_clock(self, account: Account, reading: Reading) -> None:
        """Raise `Unavailable` where codes may have been accepted of which nothing is known."""
        wall, period = reading.wall, account.parameters.period
        waits = []  # until when, and why
        behind = self._watch.behind(wall)
        if behind > otp.WINDOW * period:
            why = f"the clock is {behind:.0f} s behind what it was; if it is right: pki2factl clock accept"
            waits.append((self._watch.mark, why))
        floor = self._keyring.floors.get(period, 0)
        if wall < floor:
            why = "codes may have been used that are not on record, before the machine or the state was new"
            waits.append((floor, why))
        spent_until = self._watch.spent_until(wall, (otp.WINDOW + 1 + abs(account.offset)) * period)
        if spent_until is not None:
            waits.append((spent_until, "codes of this time may have been used, when the clock was ahead"))
        if waits:
            _, why = waits[0]
            raise Unavailable(why, otp.seconds_until(wall, max(until for until, _ in waits)))

    def is_stale(self, name: str, code: str, reading: Reading) -> bool:
        """True if the code is of a step near the window, on either side.

        For a name that is no account it is as much work. While the keys are locked nothing is looked up.
        """
        if self._keyring.locked:
            return False
        account = self._keyring.accounts.get(name)
        near = any(
            otp.equal(code, self._keyring.code(seed, _middle(seed, reading) + sign * (otp.WINDOW + distance)))
            for seed in (account or self._keyring.decoy(name)).in_force(reading.wall)
            for distance in range(1, _NEAR_STEPS + 1)
            for sign in (-1, 1)
        )
        return near and account is not None

    def _promote(self, account: Account, steps: dict[Account, int], tally: Tally, reading: Reading) -> Answer:
        """The answer to a code of the successor, which is the account from now on.

        Where the code is one of the old seed too, it is spent for both.
        """
        put = account.promoted()
        (put.last_step,) = (step for seed, step in steps.items() if seed is not account)
        put.drift = put.drifted(put.last_step - otp.step_at(reading.wall, put.parameters.period))
        put.tally = tally
        gone = account.moved(account.offset, steps.get(account, -1))
        edit = Edit(account.name, self._watch.believed(reading.wall), put, gone)
        return Answer({"valid": True}, change=edit, reason=PROMOTED)

    def _fail(self, account: Account | None, name: str, key: Key, cost: int, now: float) -> Answer:
        if not self._throttle.enabled:
            return Answer(INVALID, reason=WRONG)
        if account is None:
            slots = self._throttle.fail_unknown(key, name, cost, now)
            return Answer(INVALID, change=Failure(name, None, slots), reason=WRONG)
        account.tally, slots = self._throttle.fail(key, account.tally, cost, now)
        return Answer(INVALID, change=Failure(name, account.tally, slots), reason=WRONG)

    def _match(self, account: Account, code: str, reading: Reading) -> int | None:
        """The last of the steps that this code stands for, or None.

        Every step of the window is compared, in constant time. Adjacent steps can share a code: all of
        them are spent with it, also one that the window reaches only later.
        """
        step, matched = _middle(account, reading), None
        for offset, candidate in enumerate(self._keyring.codes(account, step), -otp.WINDOW):
            if otp.equal(code, candidate):
                matched = step + offset
        if matched == step + otp.WINDOW:
            while otp.equal(code, self._keyring.code(account, matched + 1)):
                matched += 1
        return matched


def _middle(account: Account, reading: Reading) -> int:
    """The step in the middle of the window."""
    return otp.step_at(reading.wall, account.parameters.period) + account.offset

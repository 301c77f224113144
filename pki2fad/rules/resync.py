"""Follows a prover whose clock is off or whose counter is ahead: RFC 6238 section 6, RFC 4226 section 7.4."""

from dataclasses import dataclass

from pki2fad.errors import BadRequest
from pki2fad.rules import otp
from pki2fad.rules.attempts import Attempts
from pki2fad.rules.authenticator import Authenticator
from pki2fad.rules.changes import Answer, Edit, Failure
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.refusals import Attempt
from pki2fad.rules.tally import NO_TALLY
from pki2fad.rules.throttle import Throttle, cost_of_failure
from pki2fad.rules.window import Window
from pki2fad.wire.forms import MAIN


@dataclass(frozen=True, slots=True)
class TwoCodes:
    """Two codes that an authenticator showed, one after the other."""

    account: str
    label: str
    first: str
    second: str

    def __repr__(self) -> str:
        return f"TwoCodes({self.account!r}, {self.label!r})"


class Resync:
    """Finds where a prover is, from two codes."""

    def __init__(
        self, keyring: Keyring, throttle: Throttle, watch: Watch, window: Window, attempts: Attempts
    ) -> None:
        self._keyring = keyring
        self._codes = keyring.codes
        self._throttle = throttle
        self._watch = watch
        self._window = window
        self._attempts = attempts

    def follow(self, shown: TwoCodes, payer: int, reading: Reading) -> Answer:
        """Follow a prover that showed these two codes, the second just now (RFC 6238 section 6).

        For HOTP both are within the next counters (RFC 4226 section 7.4). Right codes clear the account's
        failures: a caller that has them guesses nothing. Wrong ones have a budget of their own here. Raises
        `NoSuchAccount`, `Throttled` and `Unavailable`.
        """
        name = shown.account
        current = self._keyring.account(name)
        account = current.settled(reading.wall)
        one = self._keyring.authenticator(account, shown.label)
        key = self._throttle.key_to_resync(payer, account.caller, account.tally.resets)
        cost = cost_of_failure(account.seeds)
        self._attempts.require(key, NO_TALLY, cost, reading, Attempt("resync", payer, "", name))
        self._window.require_clock(one, reading)
        last_step = self._last_of_two(one, shown, reading)
        if last_step is None:
            change = None
            if self._throttle.enabled:
                _, slots = self._throttle.fail(key, NO_TALLY, cost, self._throttle.now(reading))
                change = Failure(name, None, slots)
            return Answer(refusal=BadRequest(_not_in_a_row(one)), change=change, audit="refused")
        if one.is_hotp:
            offset, told = 0, {"counter": last_step + 1}
        else:
            offset = last_step - otp.step_at(reading.wall, one.parameters.period)
            told = {"offset": offset}
        drift = b"" if one.is_hotp else one.drift  # a lost counter is found
        put = account.replaced(one, one.changed(last_step=last_step, offset=offset, drift=drift))
        put.count(account.tally.reset())
        gone = self._keyring.ended(current, put)
        edit = Edit(name, self._watch.believed(reading.wall), put, gone)
        details = told if one.label == MAIN else {**told, "authenticator": one.label}
        return Answer({"account": name, **told}, change=edit, audit="resynchronised", details=details)

    def _last_of_two(self, one: Authenticator, shown: TwoCodes, reading: Reading) -> int | None:
        """The step or counter of the second of these codes, if they follow each other and are unspent.

        None if there is none within `otp.MAX_OFFSET` steps of now, or the next `otp.RESYNC_COUNTERS`.
        """
        if one.is_hotp:
            current = one.last_step + 1
            steps = range(current, current + otp.RESYNC_COUNTERS)
        else:
            current = otp.step_at(reading.wall, one.parameters.period)
            steps = range(current - otp.MAX_OFFSET - 1, current + otp.MAX_OFFSET + 1)
        codes = self._codes.of_steps(one, steps)
        matching = [
            step + 1
            for step, code, after in zip(steps, codes, codes[1:], strict=False)
            if otp.equal(shown.first, code) & otp.equal(shown.second, after)
            and step > self._keyring.watermark(one)
        ]
        return min(matching, key=lambda step: abs(step - current), default=None)


def _not_in_a_row(one: Authenticator) -> str:
    within = f"the next {otp.RESYNC_COUNTERS} counters" if one.is_hotp else f"{otp.MAX_OFFSET} steps of now"
    return f"the two codes must follow each other, be within {within}, and be unused"

"""Which steps or counters a code is compared with, and whether it can be said now that a code is good."""

from pki2fad.errors import Unavailable
from pki2fad.rules import otp
from pki2fad.rules.authenticator import Authenticator, reach
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters

# Seconds by which codes may be spent ahead of the clock before `status` says so: every window has some.
_STATUS_SLACK = 2 * (otp.WINDOW + 1) * otp.LONGEST_PERIOD

_SET_BACK = "codes were used while the clock was ahead; if it is right now: pki2factl clock accept"


def candidates(one: Authenticator, reading: Reading) -> range:
    """The steps, or the counters of HOTP, with which a code is compared now."""
    if one.is_hotp:
        return range(one.last_step + 1, one.last_step + 1 + otp.COUNTERS)
    return otp.window(otp.step_at(reading.wall, one.parameters.period) + one.offset)


def accepted(one: Authenticator, step: int, reading: Reading) -> tuple[bytes, int | None]:
    """The authenticator's drift and `used` after the code of this step or counter is accepted."""
    if one.is_hotp:
        return b"", int(reading.wall)
    return one.drifted(step - otp.step_at(reading.wall, one.parameters.period)), None


class Window:
    """Compares codes, and knows when the clock or a crash of the machine forbids it."""

    def __init__(self, keyring: Keyring, watch: Watch) -> None:
        self._keyring = keyring
        self._codes = keyring.codes
        self._watch = watch

    def match(self, one: Authenticator, kept: Authenticator, code: str, steps: range) -> int | None:
        """The last of the steps that have this code, or None. The codes are kept with `kept`.

        Every step is compared, in constant time. Adjacent steps can share a code: it spends all of them, also
        one that the window reaches only later. A code of two counters spends what is between them: otherwise
        it would be good twice. The last counter comes first: a caller that sends its code again guesses
        nothing, also if one of the next counters has the same code.
        """
        if one.is_hotp and one.last_step >= 0 and otp.equal(code, self._codes.of_step(one, one.last_step)):
            return one.last_step
        matched = None
        for step, candidate in enumerate(self._codes.of(kept, steps), steps.start):
            if otp.equal(code, candidate):
                matched = step
        if matched == steps[-1]:
            while otp.equal(code, self._codes.of_step(one, matched + 1)):
                matched += 1
        return matched

    def require_clock(self, one: Authenticator, reading: Reading) -> None:
        """Raise `Unavailable` if codes may have been accepted that are not on record. A counter always is."""
        if one.is_hotp:
            return
        wall, period = reading.wall, one.parameters.period
        watch, floors = self._watch, self._keyring.floors
        if wall >= watch.mark and not watch.spent and (not floors or wall >= floors.get(period, 0)):
            return  # as nearly always
        waits = self._waits(period, abs(one.offset), wall)
        if waits:
            until, why = max(waits)
            raise Unavailable(why, otp.seconds_until(reading.wall, until))

    def require_past(self, one: Authenticator, steps: range, reading: Reading) -> None:
        """Raise `Unavailable` if every code of the window is spent, because the clock was set back."""
        middle = steps.start + otp.WINDOW
        if one.is_hotp or one.last_step <= middle + 2 * otp.WINDOW:
            return  # the prover may have been further ahead before, and never less
        last = otp.step_at(reading.wall, one.parameters.period) + reach(one.offset, one.drift)
        if one.last_step > last + 2 * otp.WINDOW:  # small slews pass
            until = (one.last_step + 1 - otp.WINDOW - one.offset) * one.parameters.period
            raise Unavailable(_SET_BACK, otp.seconds_until(reading.wall, until))

    def unavailable_until(self, reading: Reading) -> float | None:
        """The Unix time until which some account cannot verify, None if all can."""
        kinds = self._keyring.kinds() or {(Parameters().period, 0)}
        waits = [wait for period, offset in kinds for wait in self._waits(period, offset, reading.wall)]
        latest = self._keyring.latest(reading.wall + _STATUS_SLACK)
        if latest:
            waits.append((latest, _SET_BACK))
        return max(waits)[0] if waits else None

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

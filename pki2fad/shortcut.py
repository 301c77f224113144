"""The short way to the answers asked for most: where nothing but an account's codes has to be looked at.

These are codes that are generated, and wrong ones where failures are not counted. Whatever else there is to
think of, `Agent` and `Verifier` do; here it is only known when there is nothing.
"""

from pki2fad import otp, plain
from pki2fad.access import Rights
from pki2fad.account import Account
from pki2fad.clock import Watch
from pki2fad.errors import Refusal
from pki2fad.keyring import Keyring
from pki2fad.plain import INVALID, START, Plain

_BEFORE, _MIDDLE, _AFTER = range(otp.WINDOW_STEPS)


class Shortcut:
    """Answers plain requests, or leaves them to who can say more."""

    def __init__(self, keyring: Keyring, watch: Watch) -> None:
        self._keyring = keyring
        self._watch = watch
        self._wall = 0.0  # the latest that it was: codes that are kept are those of then, or are made anew
        self._open_until = 0.0  # for wrong codes, CLOCK_BOOTTIME
        self._steps: dict[int, tuple[int, float]] = {}  # by period: the current one, and when it ends

    def open(self, wall: float, until: float) -> None:
        """Answer wrong codes too, until CLOCK_BOOTTIME is so late: one was found to be no more than that."""
        if not self._watch.spent and all(floor <= wall for floor in self._keyring.floors.values()):
            self._open_until = until

    def close(self) -> None:
        """Let the next wrong code be looked at in every way again: other things are to be asked now."""
        self._open_until = 0.0

    def clock_accepted(self) -> None:
        """Go back in time too: nothing that was kept is left."""
        self.close()
        self._wall = 0.0
        self._steps.clear()

    def answer(  # noqa: PLR0911 - there are many reasons to leave it to others
        self, rights: Rights, request: Plain, wall: float, boot: float
    ) -> str | None:
        """The response to a request, or None where it is left to others; the times are those of a reading."""
        msgid, name, code = request
        if not (rights.generate if code is None else rights.verify and boot < self._open_until):
            return None
        account = (self._keyring.veils if rights.veiled else self._keyring.accounts).get(name)
        if account is None or wall < self._wall or wall < self._watch.mark:
            return None
        self._wall = wall
        if wall >= account.until and not self._freshen(account, wall):
            return None
        codes = account.codes
        if code is None:
            if account.offset:
                return None
            valid_for = otp.valid_for(wall, account.parameters.period)
            return plain.code(msgid, codes[_MIDDLE], valid_for, account.step)
        equal = otp.equal
        if equal(code, codes[_BEFORE]) | equal(code, codes[_MIDDLE]) | equal(code, codes[_AFTER]):
            return None
        return f"{START}{msgid}{INVALID}"

    def _freshen(self, account: Account, wall: float) -> bool:
        """Make the codes of now, unless more has to be asked about the account."""
        if account.successor is not None:
            return False
        period = account.parameters.period
        step, end = self._steps.get(period, (0, 0.0))
        if wall >= end:
            step = otp.step_at(wall, period)
            end = float((step + 1) * period)
            self._steps[period] = step, end
        middle = step + account.offset
        if account.last_step > middle + 2 * otp.WINDOW:  # `Verifier` looks at it
            return False
        try:
            self._keyring.codes(account, middle)
        except Refusal:  # locked, say
            return False
        account.until = end
        return True

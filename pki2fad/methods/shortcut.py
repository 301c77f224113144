"""The short way to the answers asked for most: where nothing but an account's codes has to be looked at.

These are codes that are generated, and wrong ones where failures are not counted. Whatever else there is to
think of, `Agent` and `Verifier` do; here it is only known when there is nothing.
"""

from collections.abc import Iterable

from pki2fad.errors import Refusal
from pki2fad.rules import otp
from pki2fad.rules.access import Rights
from pki2fad.rules.account import NO_WINDOW, Account, Window
from pki2fad.rules.clock import Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.wire import plain
from pki2fad.wire.plain import END_OF_INVALID, START, Plain

_BEFORE, _MIDDLE, _AFTER = range(otp.WINDOW_STEPS)


class Shortcut:
    """Answers plain requests, or leaves them to who can say more."""

    def __init__(self, keyring: Keyring, watch: Watch) -> None:
        self._keyring = keyring
        self._watch = watch
        # The latest that it was: codes that are kept are those of then. After the clock was set back nothing
        # is answered until it is there again, or was accepted.
        self._wall = 0.0
        self._open_until = 0.0  # for wrong codes, CLOCK_BOOTTIME
        self._windows: dict[int, Window] = {}  # by period, around the current step: until its end

    def open(self, wall: float, until: float) -> None:
        """Answer wrong codes too, until CLOCK_BOOTTIME is so late: one was found to be no more than that."""
        if not self._watch.spent and all(floor <= wall for floor in self._keyring.floors.values()):
            self._open_until = until
            self._wall = max(self._wall, wall)

    def close(self) -> None:
        """Let the next wrong code be looked at in every way again: other things are to be asked now."""
        self._open_until = 0.0

    def clock_accepted(self) -> None:
        """Go back in time too: nothing that was kept is left."""
        self.close()
        self._wall = 0.0
        self._windows.clear()

    def answers(self, rights: Rights, requests: Iterable[Plain], wall: float, boot: float) -> list[str]:
        """The responses to requests before one that is left to others; the times are those of a reading."""
        answers: list[str] = []
        if wall < self._wall or wall < self._watch.mark:
            return answers
        self._wall = wall
        accounts = self._keyring.veils if rights.veiled else self._keyring.accounts
        verifies = rights.verify and boot < self._open_until
        equal = otp.equal
        for msgid, name, code in requests:
            if not (rights.generate if code is None else verifies):
                break
            account = accounts.get(name)
            if account is None or (wall >= account.window[1] and not self._freshen(account, wall)):
                break
            codes = account.codes
            if code is None:
                if account.offset:
                    break
                valid_for = otp.valid_for(wall, account.parameters.period)
                answers.append(plain.code(msgid, codes[_MIDDLE], valid_for, account.window[0]))
            elif equal(code, codes[_BEFORE]) | equal(code, codes[_MIDDLE]) | equal(code, codes[_AFTER]):
                break
            else:
                answers.append(f"{START}{msgid}{END_OF_INVALID}")
        return answers

    def _freshen(self, account: Account, wall: float) -> bool:
        """Make the codes of now, unless more has to be asked about the account."""
        if account.successor is not None:
            return False
        period = account.parameters.period
        window = self._windows.get(period, NO_WINDOW)
        if wall >= window[1]:
            step = otp.step_at(wall, period)
            window = self._windows[period] = step, float((step + 1) * period)
        middle = window[0] + account.offset
        if account.last_step > middle + 2 * otp.WINDOW:  # as `Verifier` says, which knows until when
            return False
        try:
            self._keyring.codes(account, middle)
        except Refusal:  # locked, say
            return False
        account.window = (middle, window[1]) if account.offset else window
        return True

"""The codes of the current steps: made once, kept for their step, and made ahead for accounts in use."""

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pki2fad.errors import Refusal
from pki2fad.rules import otp
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import Authenticator, fixed_facts
from pki2fad.rules.otp import Parameters

if TYPE_CHECKING:
    # The keyring passes one in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

# Names whose codes are kept for callers that may not know if there is such an account: 8 MB at most.
_VEILED = 16_384

# Authenticators in use that get a code ahead: a list of 1 MiB at most.
_AHEAD = 131_072

# Stands for a name that is no account.
_DECOY = Authenticator("", Parameters(), b"", fixed_facts(bytes(16), bytes(15) + b"\1", bytes(16), 0, b""))


class Codes:
    """Makes codes and keeps them.

    `accounts` are those of the keyring. `master` gives the master key, and raises `Locked` without one.
    """

    def __init__(self, accounts: Mapping[str, Account], master: "Callable[[], MasterKey]") -> None:
        self._accounts = accounts
        self._master = master
        self._first = -1  # the last one from which codes were kept
        self._due: deque[Authenticator] = deque()  # in use: `look_ahead` finds those that still lack a code
        # What stands for an authenticator, by its `fixed`, and by the name of the account.
        self._veils: dict[str, dict[bytes, Authenticator]] = {}
        self._forgotten: Callable[[], object] = lambda: None
        self._decoy_sealed: bytes | None = None  # the seed of all names that are no account

    def of(self, one: Authenticator, candidates: range) -> tuple[str, ...]:
        """The codes of the steps or counters that a code is compared with, in order.

        A step later one new code is made, unless it was made ahead.
        """
        first, count = candidates.start, len(candidates)
        if first != one.first or not one.codes:
            kept = one.codes[first - one.first :] if 0 < first - one.first < count else ()
            new = range(first + len(kept), candidates.stop)
            codes = kept + (self._make(one, new) if new else ())
            if first != self._first:
                self._first = first
            one.keep_codes(codes, self._first)  # accounts share it: these are not a million numbers
            if not one.is_hotp and len(self._due) < _AHEAD and self._is_current(one):
                self._due.append(one)
        return one.codes[:count]

    def current(self, one: Authenticator, step: int) -> str:
        """The code of the current step. It is kept, except where the window is around another step."""
        if not one.offset:
            return self.of(one, otp.window(step))[otp.WINDOW]
        return self.of_step(one, step)

    def use(self, forgotten: Callable[[], object]) -> None:
        """Call this whenever any account or the master key changes: what was made of codes is void."""
        self._forgotten = forgotten

    def of_step(self, one: Authenticator, step: int) -> str:
        """The code of one step or counter, which is not kept."""
        return self._make(one, range(step, step + 1))[0]

    def of_steps(self, one: Authenticator, steps: range) -> tuple[str, ...]:
        """The codes of many steps or counters, which are not kept."""
        return self._make(one, steps)

    def look_ahead(self, count: int) -> bool:
        """Make the code of the next step for at most `count` authenticators in use; True if more wait.

        Otherwise all of them would need it at the moment that the step begins. No code is made ahead for a
        veil: it would tell a veiled account from a name that has none.
        """
        for _ in range(min(count, len(self._due))):
            one = self._due.popleft()
            if self._is_current(one) and len(one.codes) == otp.WINDOW_STEPS:
                after = one.first + otp.WINDOW_STEPS
                with contextlib.suppress(Refusal):  # the next caller gets it
                    one.keep_codes(one.codes + self._make(one, range(after, after + 1)), one.first)
        return bool(self._due)

    def veiled(self, name: str, one: Authenticator | None) -> Authenticator:
        """What to compare with for callers that may not know if the name has an account.

        Its codes are kept apart from the authenticator's own, which others may have asked for. So the time of
        an answer tells which names were asked about in this step, and not which of them have an account.
        """
        veils = self._veils.get(name)
        if veils is None:
            if len(self._veils) >= _VEILED:
                del self._veils[next(iter(self._veils))]
            veils = self._veils[name] = {}
        fixed = b"" if one is None else one.fixed
        veiled = veils.get(fixed)
        if veiled is None:
            # Nobody reads its watermark, and a decoy has no other.
            veiled = veils[fixed] = self._decoy() if one is None else one.changed(last_step=-1)
        return veiled

    def _decoy(self) -> Authenticator:
        if self._decoy_sealed is None:
            self._decoy_sealed = self._master().seal(bytearray(32), _DECOY.associated)
        return Authenticator("", _DECOY.parameters, self._decoy_sealed, _DECOY.fixed)

    def unveil(self, name: str) -> None:
        """Drop the veil of a name whose account comes, goes or changes, and what was made of codes."""
        self._forgotten()
        self._veils.pop(name, None)

    def unveil_all(self) -> None:
        """Drop the veils of all names, and what was made of codes."""
        self._forgotten()
        self._veils.clear()

    def forget(self) -> None:
        """Keep nothing that depends on the master key; the authenticators' own codes stay."""
        self._forgotten()
        self._veils.clear()
        self._due.clear()
        self._decoy_sealed = None

    def _is_current(self, one: Authenticator) -> bool:
        account = self._accounts.get(one.name)
        return account is one or (account is not None and one in account.others)

    def _make(self, one: Authenticator, steps: range) -> tuple[str, ...]:
        with self._master().opened(one.sealed, one.associated) as seed:
            return tuple([otp.make_code(seed, one.parameters, step) for step in steps])

"""The codes of the current steps: made once, kept for their step, and made ahead for accounts in use."""

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pki2fad.errors import Refusal
from pki2fad.rules import otp
from pki2fad.rules.account import Account, associated
from pki2fad.rules.otp import Parameters

if TYPE_CHECKING:
    # The keyring passes one in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

# Names whose codes are kept for callers that may not know if there is such an account: 8 MB at most.
_VEILED = 16_384

# Accounts in use that get a code ahead: a list of 1 MiB at most.
_AHEAD = 131_072

_OF_SUCCESSOR = "\0"  # behind the name; no name has it


class Codes:
    """Makes codes and keeps them.

    `accounts` are those of the keyring. `master` gives the master key, and raises `Locked` without one.
    """

    def __init__(self, accounts: Mapping[str, Account], master: "Callable[[], MasterKey]") -> None:
        self._accounts = accounts
        self._master = master
        self._middle = -1  # the last one around which codes were kept
        self._due: deque[Account] = deque()  # in use: `look_ahead` finds those that still lack a code
        self._veils: dict[str, Account] = {}  # by name; a successor's with _OF_SUCCESSOR
        self._forgotten: Callable[[], object] = lambda: None
        self._decoy_sealed: bytes | None = None  # the seed of all names that are no account

    def around(self, account: Account, step: int) -> tuple[str, ...]:
        """The codes of all steps of the window around `step`, in order.

        A step later one new code is made, unless it was made ahead.
        """
        if step != account.middle or not account.codes:
            first, last = step - otp.WINDOW, step + otp.WINDOW
            kept = account.codes[1:] if step == account.middle + 1 else ()
            new = range(first + len(kept), last + 1)
            codes = kept + (self._make(account, new) if new else ())
            if step != self._middle:
                self._middle = step
            account.keep_codes(codes, self._middle)  # accounts share it: these are not a million numbers
            if len(self._due) < _AHEAD and self._accounts.get(account.name) is account:
                self._due.append(account)
        return account.codes[: otp.WINDOW_STEPS]

    def current(self, account: Account, step: int) -> str:
        """The code of the current step. It is kept, except where the window is around another step."""
        if not account.offset:
            return self.around(account, step)[otp.WINDOW]
        return self.of_step(account, step)

    def use(self, forgotten: Callable[[], object]) -> None:
        """Call this whenever any account or the master key changes: what was made of codes is void."""
        self._forgotten = forgotten

    def of_step(self, account: Account, step: int) -> str:
        """The code of one step, which is not kept."""
        return self._make(account, range(step, step + 1))[0]

    def look_ahead(self, count: int) -> bool:
        """Make the code of the next step for at most `count` accounts in use; True if more wait.

        Otherwise all of them would need it at the moment that the step begins. No code is made ahead for a
        veil: it would tell a veiled account from a name that has none.
        """
        for _ in range(min(count, len(self._due))):
            account = self._due.popleft()
            if self._accounts.get(account.name) is account and len(account.codes) == otp.WINDOW_STEPS:
                after = account.middle + otp.WINDOW + 1
                with contextlib.suppress(Refusal):  # the next caller gets it
                    codes = account.codes + self._make(account, range(after, after + 1))
                    account.keep_codes(codes, account.middle)
        return bool(self._due)

    def veiled(self, name: str, account: Account | None) -> Account:
        """The account to compare with for callers that may not know if the name has an account.

        Its codes are kept apart from the account's own, which others may have asked for. So the time of an
        answer tells which names were asked about in this step, and not which of them have an account.
        """
        is_successor = account is not None and account is not self._accounts[name]
        key = name + _OF_SUCCESSOR if is_successor else name
        veiled = self._veils.get(key)
        if veiled is None:
            # Nobody reads its watermark, and a decoy has no other.
            veiled = self._decoy() if account is None else account.copy(last_step=-1)
            if len(self._veils) >= _VEILED:
                del self._veils[next(iter(self._veils))]
            self._veils[key] = veiled
        return veiled

    def _decoy(self) -> Account:
        parameters = Parameters()
        if self._decoy_sealed is None:
            self._decoy_sealed = self._master().seal(bytearray(32), associated("", parameters))
        return Account("", parameters, self._decoy_sealed, b"", -1)

    def unveil(self, name: str) -> None:
        """Drop the veil of a name whose account comes, goes or changes, and what was made of codes."""
        self._forgotten()
        if self._veils:
            self._veils.pop(name, None)
            self._veils.pop(name + _OF_SUCCESSOR, None)

    def unveil_all(self) -> None:
        """Drop the veils of all names, and what was made of codes."""
        self._forgotten()
        self._veils.clear()

    def forget(self) -> None:
        """Keep nothing that depends on the master key; the accounts' own codes stay."""
        self._forgotten()
        self._veils.clear()
        self._due.clear()
        self._decoy_sealed = None

    def _make(self, account: Account, steps: range) -> tuple[str, ...]:
        with self._master().opened(account.sealed, associated(account.name, account.parameters)) as seed:
            return tuple([otp.make_code(seed, account.parameters, step) for step in steps])

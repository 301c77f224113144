"""Accounts in memory: parameters, sealed seeds, live watermarks, the codes of the current steps."""

from typing import TYPE_CHECKING

from pki2fad import otp
from pki2fad.memory import wipe
from pki2fad.otp import Parameters

if TYPE_CHECKING:  # the service passes one in: nothing here depends on cryptography
    from pki2fad.envelope import MasterKey


class Account:
    """One account; only its watermark and the codes kept for a step ever change."""

    __slots__ = ("codes", "digest", "last_step", "name", "parameters", "sealed", "step")

    def __init__(
        self, name: str, parameters: Parameters, sealed: bytes, digest: bytes, last_step: int
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.sealed = sealed  # under the master key
        self.digest = digest  # the same for all accounts whose codes are made by the same HMACs
        self.last_step = last_step  # the watermark: the last accepted step, -1 for none
        self.step = -1  # the step in the middle of the codes that are kept
        self.codes: tuple[str, ...] = ()

    def is_like(self, other: "Account") -> bool:
        """True if both have the same seed and parameters."""
        return self.digest == other.digest and self.parameters == other.parameters

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.parameters!r}, last_step={self.last_step})"


class Keyring:
    """All accounts, and the digests with the watermarks of seeds that are gone.

    `floors` maps periods to Unix times: after a crash of the machine no code that began before is
    good (design: durability). The service fills it from the store.
    """

    def __init__(self, master: "MasterKey") -> None:
        self._master = master
        self.accounts: dict[str, Account] = {}
        self.gone: dict[bytes, int] = {}
        self.floors: dict[int, int] = {}

    def seal(self, name: str, seed: bytearray, parameters: Parameters) -> Account:
        """An account for this seed, not yet in the keyring, that takes up the seed's watermark."""
        digest = self._digest(seed, parameters)
        current = self.accounts.get(name)
        live = current.last_step if current is not None and current.digest == digest else -1
        last_step = max(live, self.gone.get(digest, -1))
        sealed = self._master.seal(seed, _associated(name, parameters))
        return Account(name, parameters, sealed, digest, last_step)

    def remember(self, account: Account) -> None:
        """Keep the watermark of a seed that is taken away, for when it comes back."""
        self.gone[account.digest] = max(account.last_step, self.gone.get(account.digest, -1))

    def check(self, account: Account) -> None:
        """Raise `BadSeal` unless the account's seed opens."""
        with self._master.opened(account.sealed, _associated(account.name, account.parameters)):
            pass

    def watermark(self, account: Account) -> int:
        """The highest step that is spent: the account's own, or the floor's after a crash."""
        period = account.parameters.period
        floor = self.floors.get(period)
        return account.last_step if floor is None else max(account.last_step, floor // period - 1)

    def codes(self, account: Account, step: int) -> tuple[str, ...]:
        """The codes of all steps of the window around `step`, in order.

        They are kept: when time goes on by one step, one new code is made.
        """
        if step != account.step or not account.codes:
            first, last = step - otp.WINDOW, step + otp.WINDOW
            kept = account.codes[1:] if step == account.step + 1 else ()
            new = range(first + len(kept), last + 1)
            account.codes = kept + self._make(account, new)
            account.step = step
        return account.codes

    def code(self, account: Account, step: int) -> str:
        """The code of one step, not kept."""
        return self._make(account, range(step, step + 1))[0]

    def _digest(self, seed: bytearray, parameters: Parameters) -> bytes:
        """What the seed's steps are known by.

        Codes of other digits are made by the same HMACs, and HMAC itself fills a seed up with zeros.
        """
        significant = seed.rstrip(b"\0")
        try:
            return self._master.digest(significant, f"{parameters.algorithm}\0{parameters.period}".encode())
        finally:
            wipe(significant)

    def _make(self, account: Account, steps: range) -> tuple[str, ...]:
        with self._master.opened(account.sealed, _associated(account.name, account.parameters)) as seed:
            return tuple(otp.make_code(seed, account.parameters, step) for step in steps)


def _associated(name: str, of: Parameters) -> bytes:
    """What a sealed seed is bound to; no field can contain the separator."""
    return f"pki2fad account 1\0{name}\0{of.algorithm}\0{of.digits}\0{of.period}".encode()

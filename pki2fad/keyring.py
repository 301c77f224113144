"""All accounts in memory: sealed seeds and the master key, what is spent, the codes of the current steps."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pki2fad import otp
from pki2fad.account import NO_WINDOW, UNKNOWN, Account, Window, associated, kept, reach, spent_until
from pki2fad.clock import REMEMBERED
from pki2fad.errors import BadSeal, Locked, NoSuchAccount, Refusal
from pki2fad.memory import wipe
from pki2fad.otp import Parameters

if TYPE_CHECKING:
    # The service passes one in: nothing here depends on cryptography
    from pki2fad.envelope import MasterKey


_GONE_AT_LEAST = 1024  # watermarks of seeds that are gone, before it is seen which are too old

# Names of which codes are kept for peers that may not know whether there is such an account: 8 MB at most.
_VEILED = 16_384

# Accounts in use for which codes are made ahead: a list of 1 MiB at most.
_AHEAD = 131_072

_OF_SUCCESSOR = "\0"  # behind the name; no name has it


Sealed = dict[str, bytes]  # seeds under a master key, by the account's name
Gone = tuple[int, int]  # the watermark and the period of a seed that is gone
NEVER: Gone = (-1, 0)


def is_forgotten(last_step: int, period: int, wall: float) -> bool:
    """True for the watermark of a seed that is gone when no code of it can come any more.

    That is a day after the last moment at which one could have been accepted, should the clock be set
    back meanwhile. In SQL too.
    """
    return (last_step + 1 + otp.WINDOW) * period < wall - REMEMBERED


class Keyring:
    """All accounts, and the digests with the watermarks of seeds that are gone.

    `floors` maps periods to Unix times: after a crash of the machine no code that began before is
    good (design: durability). The service fills it from the store.
    """

    def __init__(self, master: "MasterKey | None" = None) -> None:
        self._unlocked = master
        self.accounts: dict[str, Account] = {}
        self.gone: dict[bytes, Gone] = {}
        self.floors: dict[int, int] = {}
        # Not accounts yet, by name: each with the CLOCK_BOOTTIME until which it waits for its first code.
        self.enrolments: dict[str, tuple[Account, float]] = {}
        self._kinds: set[tuple[int, int]] | None = None
        self._forget_above = _GONE_AT_LEAST
        self._latest: int | None = None
        self._last_window = NO_WINDOW
        self._due: deque[Account] = deque()  # in use: `look_ahead` sees which still lack a code
        self.veils: dict[str, Account] = {}  # what `veiled` gave, by name; a successor's with _OF_SUCCESSOR
        self._decoy_sealed: bytes | None = None  # of all names that are no account

    @property
    def locked(self) -> bool:
        """True while there is no master key, and so no code can be made."""
        return self._unlocked is None

    def unlock(self, master: "MasterKey") -> None:
        """Use this master key. Raises `BadSeal`, with the name of the account whose seed does not open."""
        self.lock()
        self._unlocked = master
        self.check(self.seeds())

    def all_resealed(self, master: "MasterKey") -> "tuple[Sealed, Sealed]":
        """Every seed sealed under another master key: of accounts, and of their successors."""
        accounts = list(self.accounts.values())
        successors = [account.successor.account for account in accounts if account.successor is not None]
        return (
            {account.name: self.resealed(account, master) for account in accounts},
            {account.name: self.resealed(account, master) for account in successors},
        )

    def rotate(self, master: "MasterKey", accounts: "Sealed", successors: "Sealed") -> None:
        """Use this master key from now on, with what `all_resealed` gave for it."""
        for name, sealed in accounts.items():
            self.accounts[name].sealed = sealed
        for name, sealed in successors.items():
            successor = self.accounts[name].successor
            assert successor is not None
            successor.account.sealed = sealed
        self.master.close()
        self._unlocked = master
        self._forget_what_is_not_kept()

    def lock(self) -> None:
        """Wipe the master key, and let go of all codes."""
        if self._unlocked is not None:
            self._unlocked.close()
            self._unlocked = None
        for account in self.seeds():
            account.forget_codes()
        self._forget_what_is_not_kept()

    @property
    def master(self) -> "MasterKey":
        """The master key. Raises `Locked`."""
        if self._unlocked is None:
            raise Locked("the daemon is locked; unlock it with: pki2factl unlock")
        return self._unlocked

    def account(self, name: str) -> Account:
        """The account of that name. Raises `NoSuchAccount`."""
        account = self.accounts.get(name)
        if account is None:
            raise NoSuchAccount(f"there is no account {name!r}")
        return account

    def seal(self, name: str, seed: bytearray, parameters: Parameters) -> Account:
        """An account for this seed, not yet in the keyring, that takes up the seed's watermark."""
        digest = self._digest(seed, parameters)
        current = self.accounts.get(name)
        known = () if current is None else current.seeds
        live = next((one for one in known if one.digest == digest), None)
        last_step = max(live.last_step if live else -1, self.gone.get(digest, NEVER)[0])
        sealed = self.master.seal(seed, associated(name, parameters))
        drift = (live.drift if live else b"") + (UNKNOWN if digest in self.gone else b"")
        offset = live.offset if live else 0
        return Account(name, parameters, sealed, digest, last_step, offset=offset, drift=kept(drift))

    def resealed(self, account: Account, master: "MasterKey") -> bytes:
        """The account's seed, sealed under another master key, for `sealed_elsewhere`."""
        bound = associated(account.name, account.parameters)
        with self.master.opened(account.sealed, bound) as seed:
            return master.seal(seed, bound)

    def sealed_elsewhere(
        self, name: str, sealed: bytes, parameters: Parameters, master: "MasterKey"
    ) -> Account:
        """What `seal` makes of a seed that is sealed under another master key. Raises `BadSeal`."""
        try:
            opened = master.opened(sealed, associated(name, parameters))
        except BadSeal:
            raise BadSeal(f"the seed of account {name!r} is damaged") from None
        with opened as seed:
            return self.seal(name, seed, parameters)

    def leaving(self, account: Account) -> Account:
        """An account as it is remembered: with all that is spent, also where a floor alone says so.

        Whoever comes back with the same seed may have another offset, and the floor reaches less far.
        """
        return account.moved(account.offset, self.watermark(account))

    def remember(self, account: Account, wall: float) -> None:
        """Keep the watermarks of seeds that are taken away, for when they come back."""
        for seed in account.seeds:
            known, _ = self.gone.get(seed.digest, NEVER)
            self.gone[seed.digest] = max(seed.last_step, known), seed.parameters.period
        if len(self.gone) > self._forget_above:
            self.gone = {digest: gone for digest, gone in self.gone.items() if not is_forgotten(*gone, wall)}
            self._forget_above = 2 * len(self.gone) + _GONE_AT_LEAST

    def veiled(self, name: str, account: Account | None) -> Account:
        """What stands for an account, or for a name that is none, where that must not be told apart.

        Its codes are kept apart from the account's own, which others may have asked for: how long an answer
        takes then says who was asked about before in this step, and not whether there is an account.
        """
        is_successor = account is not None and account is not self.accounts[name]
        key = name + _OF_SUCCESSOR if is_successor else name
        veiled = self.veils.get(key)
        if veiled is None:
            veiled = self._decoy() if account is None else account.moved(account.offset, -1)
            veiled.last_step = -1  # nobody asks for it, and a name that is none has no other
            if len(self.veils) >= _VEILED:
                del self.veils[next(iter(self.veils))]
            self.veils[key] = veiled
        return veiled

    def _unveil(self, name: str) -> None:
        """Let nothing stand for an account, or a name that was none, that is not the same any more."""
        if self.veils:
            self.veils.pop(name, None)
            self.veils.pop(name + _OF_SUCCESSOR, None)

    def _decoy(self) -> Account:
        parameters = Parameters()
        if self._decoy_sealed is None:
            self._decoy_sealed = self.master.seal(bytearray(32), associated("", parameters))
        return Account("", parameters, self._decoy_sealed, b"", -1)

    def _forget_what_is_not_kept(self) -> None:
        self.enrolments.clear()
        self.veils.clear()
        self._due.clear()
        self._decoy_sealed = None

    def check(self, accounts: Iterable[Account]) -> None:
        """Raise `BadSeal`, with the name of the account, unless all their seeds open."""
        with self.master.checking() as check:
            for account in accounts:
                try:
                    check(account.sealed, associated(account.name, account.parameters))
                except BadSeal as error:
                    raise BadSeal(f"account {account.name!r}: {error}") from None

    def watermark(self, account: Account) -> int:
        """The highest step that is spent: the account's own, or the floor's after a crash."""
        period = account.parameters.period
        floor = self.floors.get(period)
        if floor is None:
            return account.last_step
        return max(account.last_step, floor // period - 1 + account.offset)

    def put(self, account: Account) -> None:
        """Add an account, or replace the one of its name."""
        self.accounts[account.name] = account
        self._unveil(account.name)
        self._kinds = self._latest = None

    def drop(self, name: str) -> None:
        """Take an account away."""
        del self.accounts[name]
        self._unveil(name)
        self._kinds = self._latest = None

    def spend(self, account: Account, step: int) -> None:
        """Let no code up to this step be good any more."""
        account.last_step = step
        account.window = self._window(account.window[0])  # `Shortcut` looks at the watermark again
        if self._latest is not None:
            self._latest = max(self._latest, spent_until(account))

    def latest(self) -> int:
        """The Unix time until which codes are spent, of the account that is furthest ahead; 0 for none."""
        if self._latest is None:  # whoever asks again need not wait for all accounts
            self._latest = max(map(spent_until, self.seeds()), default=0)
        return self._latest

    def kinds(self) -> set[tuple[int, int]]:
        """The periods of all seeds, each with the offsets there are, whichever way."""
        if self._kinds is None:
            self._kinds = {(seed.parameters.period, abs(seed.offset)) for seed in self.seeds()}
        return self._kinds

    def raise_floors(self, floors: Mapping[int, int]) -> None:
        """Let no code be good that began before these Unix times, by period."""
        for period, floor in floors.items():
            self.floors[period] = max(self.floors.get(period, 0), floor)

    def lower(self, wall: float) -> None:
        """Let every watermark and floor come down to the end of the window around this time."""
        for account in self.seeds():
            end = otp.step_at(wall, account.parameters.period) + otp.WINDOW
            end += reach(account.offset, account.drift)
            account.last_step = min(account.last_step, end)
            account.forget_codes()
        self.veils.clear()
        self._latest = None
        for digest, (step, period) in self.gone.items():
            end = otp.step_at(wall, period) + otp.WINDOW + otp.MAX_OFFSET
            self.gone[digest] = min(step, end), period
        for period, floor in self.floors.items():
            self.floors[period] = min(floor, otp.window_end(wall, period))

    def codes(self, account: Account, step: int) -> tuple[str, ...]:
        """The codes of all steps of the window around `step`, in order.

        They are kept: when time goes on by one step, one new code is made, if it was not made ahead.
        """
        middle = account.window[0]
        if step != middle or not account.codes:
            first, last = step - otp.WINDOW, step + otp.WINDOW
            kept = account.codes[1:] if step == middle + 1 else ()
            new = range(first + len(kept), last + 1)
            account.codes = kept + (self._make(account, new) if new else ())
            account.window = self._window(step)
            if len(self._due) < _AHEAD and self.accounts.get(account.name) is account:
                self._due.append(account)
        return account.codes[: otp.WINDOW_STEPS]

    def look_ahead(self, count: int) -> bool:
        """Make the code that the next step brings, for at most so many accounts in use; True if more wait.

        Else all that are in use would have theirs made when the step begins. What stands for accounts where
        they are veiled has none made: it could be told from what stands for a name that is none.
        """
        for _ in range(min(count, len(self._due))):
            account = self._due.popleft()
            if self.accounts.get(account.name) is account and len(account.codes) == otp.WINDOW_STEPS:
                after = account.window[0] + otp.WINDOW + 1
                with contextlib.suppress(Refusal):  # whoever asks for it is told
                    account.codes += self._make(account, range(after, after + 1))
        return bool(self._due)

    def _window(self, step: int) -> Window:
        """That around a step, of which `Shortcut` has not said until when it is good."""
        if step != self._last_window[0]:
            self._last_window = step, 0.0
        return self._last_window

    def current_code(self, account: Account, step: int) -> str:
        """The code of one step. It is kept if the window is around it, as that of most accounts is."""
        if not account.offset:
            return self.codes(account, step)[otp.WINDOW]
        return self.code(account, step)

    def code(self, account: Account, step: int) -> str:
        """The code of one step, not kept."""
        return self._make(account, range(step, step + 1))[0]

    def seeds(self) -> Iterator[Account]:
        """Those of all accounts and their successors."""
        for account in self.accounts.values():
            yield account
            if account.successor is not None:
                yield account.successor.account

    def _digest(self, seed: bytearray, parameters: Parameters) -> bytes:
        """What the seed's steps are known by.

        Codes of other digits are made by the same HMACs, and HMAC itself fills a seed up with zeros.
        """
        significant = seed.rstrip(b"\0")
        try:
            return self.master.digest(significant, f"{parameters.algorithm}\0{parameters.period}".encode())
        finally:
            wipe(significant)

    def _make(self, account: Account, steps: range) -> tuple[str, ...]:
        with self.master.opened(account.sealed, associated(account.name, account.parameters)) as seed:
            return tuple([otp.make_code(seed, account.parameters, step) for step in steps])

"""All accounts in memory: sealed seeds, the master key that opens them, and how far codes are spent."""

import contextlib
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pki2fad.crypto.memory import wipe
from pki2fad.errors import BadSeal, Locked, NoSuchAccount, Unavailable
from pki2fad.rules import otp
from pki2fad.rules.account import UNKNOWN, Account, associated, kept, reach, spent_until
from pki2fad.rules.codes import Codes
from pki2fad.rules.gone import Gone
from pki2fad.rules.otp import Parameters
from pki2fad.rules.pieces import Pieces, in_pieces

if TYPE_CHECKING:
    # The service passes one in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey


def check(accounts: Iterable[Account], master: "MasterKey") -> None:
    """Raise `BadSeal`, which names the account, unless all seeds open under this master key."""
    with master.checking() as opens:
        for account in accounts:
            try:
                opens(account.sealed, associated(account.name, account.parameters))
            except BadSeal as error:
                raise BadSeal(f"account {account.name!r}: {error}") from None


class Keyring:
    """All accounts, and the watermarks of seeds that are gone.

    `floors` maps periods to Unix times: no code that began before them is good. A crash of the machine
    may have taken back the record of codes that were accepted up to then.
    """

    def __init__(self, master: "MasterKey | None" = None) -> None:
        self._unlocked = master
        self.accounts: dict[str, Account] = {}
        self.gone = Gone()
        self.floors: dict[int, int] = {}
        # Accounts that wait for their first code, by name: each with the CLOCK_BOOTTIME at which it expires.
        self.enrolments: dict[str, tuple[Account, float]] = {}
        self.codes = Codes(self.accounts, lambda: self.master)
        self.version = 0  # rises whenever an account or the master key changes or goes
        self._held: Container[str] = ()
        self._edited: set[str] = set()  # whose edit is on its way to the store
        self._kinds: Counter[tuple[int, int]] = Counter()
        self._with_successor: dict[str, None] = {}
        self._latest = 0
        self._latest_left = False  # the account that was furthest ahead is gone

    @property
    def locked(self) -> bool:
        """True while there is no master key, and so no code can be made."""
        return self._unlocked is None

    def unlock(self, master: "MasterKey") -> None:
        """Use this master key, which opens all seeds (see `checked`)."""
        self.lock()
        self._unlocked = master

    def checked(self, master: "MasterKey") -> Pieces[None]:
        """Check that a master key opens all seeds. Raises `BadSeal`, which names the account at fault."""
        for some in in_pieces(list(self.seeds())):
            check(some, master)
            yield

    def all_resealed(
        self, accounts: Iterable[Account], master: "MasterKey"
    ) -> Pieces[list[tuple[Account, bytes]]]:
        """Accounts or successors, each with its seed sealed under another master key."""
        resealed: list[tuple[Account, bytes]] = []
        for some in in_pieces(accounts):
            resealed += [(account, self.resealed(account, master)) for account in some]
            yield
        return resealed

    def rotate(self, master: "MasterKey", resealed: Iterable[tuple[Account, bytes]]) -> None:
        """Use this master key from now on, with the seeds from `all_resealed`.

        If the keys were locked meanwhile, they stay locked.
        """
        for account, sealed in resealed:
            account.reseal(sealed)
        if self._unlocked is None:
            master.close()
        else:
            self._unlocked.close()
            self._unlocked = master
        self.version += 1
        self._forget_what_is_not_kept()

    def lock(self) -> None:
        """Wipe the master key, and drop all codes."""
        if self._unlocked is not None:
            self._unlocked.close()
            self._unlocked = None
        for account in self.seeds():
            account.forget_codes()
        self.version += 1
        self._forget_what_is_not_kept()

    @contextlib.contextmanager
    def held(self, names: Container[str]) -> Iterator[None]:
        """Verify nothing for these accounts in the block: their watermarks stay as they are."""
        self._held = names
        try:
            yield
        finally:
            self._held = ()

    def require_not_held(self, name: str) -> None:
        """Raise `Unavailable` if the account is about to change."""
        if name in self._held or name in self._edited:
            raise Unavailable("the account is being changed; try again", 1)

    def hold(self, name: str) -> None:
        """Let nothing else change an account until `let_go`. Raises `Unavailable` if something does."""
        self.require_not_held(name)
        self._edited.add(name)

    def let_go(self, name: str) -> None:
        """Its edit is over."""
        self._edited.discard(name)

    @property
    def master(self) -> "MasterKey":
        """The master key. Raises `Locked`."""
        if self._unlocked is None:
            raise Locked("the daemon is locked; unlock it with: pki2factl unlock")
        return self._unlocked

    def require_unlocked(self) -> None:
        """Raise `Locked` without a master key."""
        _ = self.master

    def account(self, name: str) -> Account:
        """The account of that name. Raises `NoSuchAccount`."""
        account = self.accounts.get(name)
        if account is None:
            raise NoSuchAccount(f"there is no account {name!r}")
        return account

    def seal(self, name: str, seed: bytearray, parameters: Parameters) -> Account:
        """Make an account for this seed, with the seed's watermark. It is not in the keyring yet."""
        sealed = self.master.seal(seed, associated(name, parameters))
        account = Account(name, parameters, sealed, self._digest(seed, parameters), -1)
        self.take_up(account)
        return account

    def take_up(self, account: Account) -> None:
        """Give an account that is not in the keyring yet the watermark, drift and offset of its seed."""
        digest, current = account.digest, self.accounts.get(account.name)
        known = () if current is None else current.seeds
        live = next((one for one in known if one.digest == digest), None)
        account.take_up(
            max(live.last_step if live else -1, self.gone.last_step(digest)),
            kept((live.drift if live else b"") + (UNKNOWN if digest in self.gone else b"")),
            live.offset if live else 0,
        )

    def resealed(self, account: Account, master: "MasterKey") -> bytes:
        """The account's seed, sealed under another master key, for `sealed_elsewhere`."""
        bound = associated(account.name, account.parameters)
        with self.master.opened(account.sealed, bound) as seed:
            return master.seal(seed, bound)

    def sealed_elsewhere(
        self, name: str, sealed: bytes, parameters: Parameters, master: "MasterKey"
    ) -> Account:
        """Do what `seal` does, for a seed that is sealed under another master key. Raises `BadSeal`."""
        try:
            opened = master.opened(sealed, associated(name, parameters))
        except BadSeal:
            raise BadSeal(f"the seed of account {name!r} is damaged") from None
        with opened as seed:
            return self.seal(name, seed, parameters)

    def leaving(self, account: Account) -> Account:
        """A copy whose watermark includes the floor, for remembering a removed seed.

        The seed may come back with another offset, and the floor would not reach as far then.
        """
        return account.copy(last_step=self.watermark(account))

    def _forget_what_is_not_kept(self) -> None:
        self.enrolments.clear()
        self.codes.forget()

    def watermark(self, account: Account) -> int:
        """The highest step that is spent: the account's own, or the floor's after a crash."""
        period = account.parameters.period
        floor = self.floors.get(period)
        if floor is None:
            return account.last_step
        return max(account.last_step, floor // period - 1 + account.offset)

    def put(self, account: Account) -> None:
        """Add an account, or replace the one of its name."""
        if account.name in self.accounts:
            self.drop(account.name)
        self.accounts[account.name] = account
        if account.successor is not None:
            self._with_successor[account.name] = None
        for seed in account.seeds:
            self._kinds[_kind(seed)] += 1
            self._latest = max(self._latest, spent_until(seed))
        self.codes.unveil(account.name)
        self.version += 1

    def drop(self, name: str) -> None:
        """Remove an account."""
        account = self.accounts.pop(name)
        self._with_successor.pop(name, None)
        for seed in account.seeds:
            kind = _kind(seed)
            self._kinds[kind] -= 1
            if not self._kinds[kind]:
                del self._kinds[kind]
            self._latest_left |= spent_until(seed) >= self._latest
        self.codes.unveil(name)
        self.version += 1

    def with_successor(self) -> list[Account]:
        """The accounts that have a successor."""
        return [self.accounts[name] for name in self._with_successor]

    def spend(self, account: Account, step: int, drift: bytes) -> None:
        """Spend all codes up to this step. `drift` is the account's new one."""
        account.spend(step, drift)
        self._latest = max(self._latest, spent_until(account))

    def latest(self, beyond: float) -> int:
        """The Unix time until which codes are spent, for the account that is furthest ahead.

        0 if that is not beyond the given time, as nearly always: then there is no need to look at all.
        """
        if self._latest > beyond and self._latest_left:
            self._latest = max(map(spent_until, self.seeds()), default=0)
            self._latest_left = False
        return self._latest if self._latest > beyond else 0

    def kinds(self) -> Collection[tuple[int, int]]:
        """The pairs of period and offset (without its sign) of all seeds."""
        return self._kinds.keys()

    def raise_floors(self, floors: Mapping[int, int]) -> None:
        """Refuse codes that began before these Unix times, by period."""
        for period, floor in floors.items():
            self.floors[period] = max(self.floors.get(period, 0), floor)

    def lower(self, wall: float) -> Pieces[None]:
        """Lower every watermark and floor to the end of the window around this time."""
        latest = 0
        for some in in_pieces(list(self.seeds())):
            for account in some:
                end = otp.step_at(wall, account.parameters.period) + otp.WINDOW
                end += reach(account.offset, account.drift)
                account.lower(end)
                latest = max(latest, spent_until(account))
            yield
        self._latest, self._latest_left = latest, False
        self.codes.unveil_all()
        yield from self.gone.lower(wall)
        for period, floor in self.floors.items():
            self.floors[period] = min(floor, otp.window_end(wall, period))
        self.version += 1

    def seeds(self) -> Iterator[Account]:
        """All accounts and their successors."""
        for account in self.accounts.values():
            yield account
            if account.successor is not None:
                yield account.successor.account

    def _digest(self, seed: bytearray, parameters: Parameters) -> bytes:
        """The digest of a seed, by which its watermark is found.

        It leaves the digits out, which use the same HMACs, and zeros at the end, which HMAC adds itself.
        """
        significant = seed.rstrip(b"\0")
        try:
            return self.master.digest(significant, f"{parameters.algorithm}\0{parameters.period}".encode())
        finally:
            wipe(significant)


def _kind(seed: Account) -> tuple[int, int]:
    return seed.parameters.period, abs(seed.offset)

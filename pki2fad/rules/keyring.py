"""All accounts in memory: sealed seeds, the master key that opens them, and how far codes are spent."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pki2fad.crypto.memory import wipe
from pki2fad.errors import Locked, NoSuchAccount, Unavailable
from pki2fad.rules import otp, seals
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import (
    ID_BYTES,
    UNKNOWN,
    Authenticator,
    fixed_facts,
    kept,
    reach,
    spent_until,
)
from pki2fad.rules.codes import Codes
from pki2fad.rules.enrolments import Enrolments
from pki2fad.rules.gone import Gone
from pki2fad.rules.holds import Holds
from pki2fad.rules.otp import HOTP, Parameters
from pki2fad.rules.pieces import Pieces, in_pieces
from pki2fad.rules.seals import Sealed
from pki2fad.rules.spent import Spent
from pki2fad.wire.forms import MAIN

if TYPE_CHECKING:
    # The service passes one in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey


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
        self.ids: dict[str, bytes] = {}  # of accounts that were removed, by name, as `identity` gives them
        self.enrolments = Enrolments()
        self.codes = Codes(self.accounts, lambda: self.master)
        self.version = 0  # rises whenever an account or the master key changes or goes
        self.holds = Holds()
        self._spent = Spent()
        self._with_successor: dict[str, None] = {}

    @property
    def locked(self) -> bool:
        """True while there is no master key, and so no code can be made."""
        return self._unlocked is None

    def unlock(self, master: "MasterKey") -> None:
        """Use this master key, which opens all that is sealed (see `checked`)."""
        self.lock()
        self._unlocked = master

    def checked(self, master: "MasterKey") -> Pieces[None]:
        """Check that a master key opens all that is sealed. Raises `BadSeal`, which names the account."""
        for some in in_pieces([*seals.of(self.accounts.values())]):
            seals.check(some, master)
            yield

    def all_resealed(self, master: "MasterKey") -> Pieces[list[tuple[Sealed, bytes]]]:
        """All that is sealed, each as another master key seals it."""
        resealed: list[tuple[Sealed, bytes]] = []
        for some in in_pieces([*seals.of(self.accounts.values())]):
            resealed += [(one, self.resealed(one, master, one.associated)) for one in some]
            yield
        return resealed

    def rotate(self, master: "MasterKey", resealed: Iterable[tuple[Sealed, bytes]]) -> None:
        """Use this master key from now on, with what comes from `all_resealed`.

        If the keys were locked meanwhile, they stay locked.
        """
        for one, sealed in resealed:
            one.reseal(sealed)
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
        for seed in self.seeds():
            seed.forget_codes()
        self.version += 1
        self._forget_what_is_not_kept()

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

    def authenticator(self, account: Account, label: str) -> Authenticator:
        """The account's authenticator with this label. Raises `NoSuchAccount`."""
        found = account.authenticator(label)
        if found is None:
            raise NoSuchAccount(f"account {account.name!r} has no authenticator {label!r}")
        return found

    def identity(self, name: str) -> bytes:
        """The id of the account of that name, and behind it the name by which version 0.1.0 knew it.

        It outlives the account. A name that never had one gets a new id.
        """
        account = self.accounts.get(name)
        if account is not None:
            return account.identity
        return self.ids.get(name) or os.urandom(ID_BYTES)

    def seal(
        self,
        name: str,
        seed: bytearray,
        parameters: Parameters,
        *,
        label: str = MAIN,
        made: int = 0,
        beside: Authenticator | None = None,
    ) -> Account:
        """Make an account with one authenticator for this seed, which gets the seed's watermark.

        It is not in the keyring yet. It has the id of the account of that name, or of another authenticator
        of it that is not in the keyring yet either. `made` is the Unix time.
        """
        identity = self.identity(name) if beside is None else beside.identity
        own = os.urandom(ID_BYTES)
        digest = self._digest(seed, parameters)
        fixed = fixed_facts(identity[:ID_BYTES], own, digest, made, identity[ID_BYTES:])
        sealed = self.master.seal(seed, Authenticator(name, parameters, b"", fixed).associated)
        account = Account(name, parameters, sealed, fixed, label=label)
        self.take_up(account)
        return account

    def require_identity(self, one: Authenticator) -> None:
        """Raise `Unavailable` if the account of its name got another id since it was sealed."""
        account = self.accounts.get(one.name)
        known = self.ids.get(one.name, one.account_id) if account is None else account.account_id
        if not known.startswith(one.account_id):
            raise Unavailable("another change came between; try again", 1)

    def take_up(self, one: Authenticator) -> None:
        """Give one that is not in the keyring yet the watermark, drift and offset of its seed.

        Raises `Unavailable` as `require_identity` does.
        """
        self.require_identity(one)
        digest, current = one.digest, self.accounts.get(one.name)
        known = () if current is None else current.seeds
        live = next((other for other in known if other.digest == digest), None)
        is_unknown = digest in self.gone and not one.is_hotp
        one.take_up(
            max(one.last_step, live.last_step if live else -1, self.gone.last_step(digest)),
            kept((live.drift if live else b"") + (UNKNOWN if is_unknown else b"")),
            live.offset if live else 0,
        )

    def resealed(self, one: Sealed, master: "MasterKey", bound: bytes) -> bytes:
        """What it has sealed, under another master key and bound to this."""
        with self.master.opened(one.sealed, one.associated) as secret:
            return master.seal(secret, bound)

    def ended(self, account: Account | None, put: Account | None) -> list[Authenticator]:
        """Copies of the seeds that an account has no more when `put` replaces it, to be remembered.

        Their watermarks include the floors: a seed may come back with another offset, and the floor would not
        reach as far then.
        """
        stay = set() if put is None else {one.fixed for one in put.seeds}
        seeds = () if account is None else account.seeds
        return [one.changed(last_step=self.watermark(one)) for one in seeds if one.fixed not in stay]

    def _forget_what_is_not_kept(self) -> None:
        self.enrolments.clear()
        self.codes.forget()

    def watermark(self, one: Authenticator) -> int:
        """The highest step that is spent: the authenticator's own, or the floor's after a crash."""
        period = one.parameters.period
        floor = self.floors.get(period)
        if floor is None:
            return one.last_step
        return max(one.last_step, floor // period - 1 + one.offset)

    def put(self, account: Account) -> None:
        """Add an account, or replace the one of its name."""
        if account.name in self.accounts:
            self.drop(account.name)
        self.accounts[account.name] = account
        self.ids.pop(account.name, None)
        self._spent.add(account)
        if not account.has_one_seed:
            for seed in account.seeds[1:]:
                self._spent.add(seed)
            if any(one.successor is not None for one in account.authenticators):
                self._with_successor[account.name] = None
        self.codes.unveil(account.name)
        self.version += 1

    def drop(self, name: str) -> None:
        """Remove an account. Its id is remembered."""
        account = self.accounts.pop(name)
        self.ids[name] = account.identity
        self._with_successor.pop(name, None)
        for seed in account.seeds:
            self._spent.discard(seed)
        self.codes.unveil(name)
        self.version += 1

    def with_successor(self) -> list[Account]:
        """The accounts that have a successor."""
        return [self.accounts[name] for name in self._with_successor]

    def spend(self, one: Authenticator, step: int, drift: bytes, used: int | None) -> None:
        """Spend all codes up to this step. `drift` and `used` are the authenticator's new ones."""
        one.spend(step, drift, used)
        self._spent.move(one)

    def latest(self, beyond: float) -> int:
        """The Unix time until which codes are spent, for the account that is furthest ahead.

        0 if that is not beyond the given time, as nearly always: then there is no need to look at all.
        """
        return self._spent.latest(beyond, self.seeds)

    def kinds(self) -> Collection[tuple[int, int]]:
        """The pairs of period and offset (without its sign) of all seeds, but those of HOTP."""
        return self._spent.kinds

    def raise_floors(self, floors: Mapping[int, int]) -> None:
        """Refuse codes that began before these Unix times, by period."""
        for period, floor in floors.items():
            self.floors[period] = max(self.floors.get(period, 0), floor)

    def lower(self, wall: float) -> Pieces[None]:
        """Lower every watermark and floor to the end of the window around this time."""
        latest = 0
        for some in in_pieces(list(self.seeds())):
            for one in some:
                if one.is_hotp:
                    continue
                end = otp.step_at(wall, one.parameters.period) + otp.WINDOW + reach(one.offset, one.drift)
                one.lower(end)
                latest = max(latest, spent_until(one))
            yield
        self._spent.lower(latest)
        self.codes.unveil_all()
        yield from self.gone.lower(wall)
        for period, floor in self.floors.items():
            self.floors[period] = min(floor, otp.window_end(wall, period))
        self.version += 1

    def seeds(self) -> Iterator[Authenticator]:
        """All authenticators, also those that wait."""
        for account in self.accounts.values():
            if account.has_one_seed:
                yield account
            else:
                yield from account.seeds

    def _digest(self, seed: bytearray, parameters: Parameters) -> bytes:
        """The digest of a seed, by which its watermark is found.

        It leaves the digits out, which use the same HMACs, and zeros at the end, which HMAC adds itself. It
        has no ids: a seed that moves to another account is spent there too.
        """
        significant = seed.rstrip(b"\0")
        made_by = "hotp" if parameters.kind == HOTP else f"{parameters.period}"
        try:
            return self.master.digest(significant, f"{parameters.algorithm}\0{made_by}".encode())
        finally:
            wipe(significant)

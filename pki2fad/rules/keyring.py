"""All accounts in memory: sealed seeds and the master key, what is spent, the codes of the current steps."""

import contextlib
import math
from collections import Counter, deque
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pki2fad.crypto.memory import wipe
from pki2fad.errors import BadSeal, Locked, NoSuchAccount, Refusal, Unavailable
from pki2fad.rules import otp
from pki2fad.rules.account import UNKNOWN, Account, associated, kept, reach, spent_until
from pki2fad.rules.clock import REMEMBERED
from pki2fad.rules.otp import Parameters
from pki2fad.rules.pieces import Pieces, in_pieces

if TYPE_CHECKING:
    # The service passes one in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey


_GONE_AT_LEAST = 1024  # watermarks of seeds that are gone, before it is seen which are too old
_FORGOTTEN_AT_ONCE = 4  # of which that is seen when one more comes

# Names of which codes are kept for peers that may not know whether there is such an account: 8 MB at most.
_VEILED = 16_384

# Accounts in use for which codes are made ahead: a list of 1 MiB at most.
_AHEAD = 131_072

_OF_SUCCESSOR = "\0"  # behind the name; no name has it


Gone = tuple[int, int]  # the watermark and the period of a seed that is gone
NEVER: Gone = (-1, 0)


def check(accounts: Iterable[Account], master: "MasterKey") -> None:
    """Raise `BadSeal`, with the name of the account, unless all their seeds open under this master key."""
    with master.checking() as opens:
        for account in accounts:
            try:
                opens(account.sealed, associated(account.name, account.parameters))
            except BadSeal as error:
                raise BadSeal(f"account {account.name!r}: {error}") from None


def first_remembered(period: int, wall: float) -> int:
    """The least watermark of a seed that is gone that must still be known at this time.

    A lower one is forgotten: its last code could have been accepted more than a day ago, should the clock be
    set back meanwhile.
    """
    return math.ceil((wall - REMEMBERED) / period) - 1 - otp.WINDOW


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
        self.version = 0  # rises whenever an account or the master key changes or goes
        self._held: Container[str] = ()
        self._kinds: Counter[tuple[int, int]] = Counter()
        self._with_successor: dict[str, None] = {}
        self._forget_above = _GONE_AT_LEAST
        self._looked_through: list[bytes] = []  # of what is gone, what may be too old still
        self._latest = 0
        self._latest_left = False  # the account that was so far ahead is there no more
        self._middle = -1  # the last one around which codes were kept
        self._due: deque[Account] = deque()  # in use: `look_ahead` sees which still lack a code
        self._veils: dict[str, Account] = {}  # what `veiled` gave, by name; a successor's with _OF_SUCCESSOR
        self._decoy_sealed: bytes | None = None  # of all names that are no account

    @property
    def locked(self) -> bool:
        """True while there is no master key, and so no code can be made."""
        return self._unlocked is None

    def unlock(self, master: "MasterKey") -> None:
        """Use this master key, which opens all seeds (see `checked`)."""
        self.lock()
        self._unlocked = master

    def checked(self, master: "MasterKey") -> Pieces[None]:
        """See whether a master key opens all seeds.

        Raises `BadSeal`, with the name of the account whose seed does not open.
        """
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
        """Use this master key from now on, with what `all_resealed` gave for it.

        Where the keys were locked meanwhile they stay so.
        """
        for account, sealed in resealed:
            account.sealed = sealed
        if self._unlocked is None:
            master.close()
        else:
            self._unlocked.close()
            self._unlocked = master
        self.version += 1
        self._forget_what_is_not_kept()

    def lock(self) -> None:
        """Wipe the master key, and let go of all codes."""
        if self._unlocked is not None:
            self._unlocked.close()
            self._unlocked = None
        for account in self.seeds():
            account.forget_codes()
        self.version += 1
        self._forget_what_is_not_kept()

    @contextlib.contextmanager
    def held(self, names: Container[str]) -> Iterator[None]:
        """Let nothing be verified of these accounts in the block: their watermarks stay as they are."""
        self._held = names
        try:
            yield
        finally:
            self._held = ()

    def require_not_held(self, name: str) -> None:
        """Raise `Unavailable` where an account is about to change."""
        if name in self._held:
            raise Unavailable("the account is being changed; try again", 1)

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
        sealed = self.master.seal(seed, associated(name, parameters))
        account = Account(name, parameters, sealed, self._digest(seed, parameters), -1)
        self.take_up(account)
        return account

    def take_up(self, account: Account) -> None:
        """Give an account that is not yet in the keyring what is known of its seed by now."""
        digest, current = account.digest, self.accounts.get(account.name)
        known = () if current is None else current.seeds
        live = next((one for one in known if one.digest == digest), None)
        account.last_step = max(live.last_step if live else -1, self.gone.get(digest, NEVER)[0])
        account.drift = kept((live.drift if live else b"") + (UNKNOWN if digest in self.gone else b""))
        account.offset = live.offset if live else 0

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
        self._forget_some(wall)

    def _forget_some(self, wall: float) -> None:
        """Forget watermarks that are too old, a few at a time: all of them would take long."""
        if not self._looked_through:
            if len(self.gone) <= self._forget_above:
                return
            self._looked_through = [*self.gone]
        for digest in self._looked_through[-_FORGOTTEN_AT_ONCE:]:
            last_step, period = self.gone[digest]
            if last_step < first_remembered(period, wall):
                del self.gone[digest]
        del self._looked_through[-_FORGOTTEN_AT_ONCE:]
        if not self._looked_through:
            self._forget_above = 2 * len(self.gone) + _GONE_AT_LEAST

    def veiled(self, name: str, account: Account | None) -> Account:
        """What stands for an account, or for a name that is none, where that must not be told apart.

        Its codes are kept apart from the account's own, which others may have asked for: how long an answer
        takes then says who was asked about before in this step, and not whether there is an account.
        """
        is_successor = account is not None and account is not self.accounts[name]
        key = name + _OF_SUCCESSOR if is_successor else name
        veiled = self._veils.get(key)
        if veiled is None:
            veiled = self._decoy() if account is None else account.moved(account.offset, -1)
            veiled.last_step = -1  # nobody asks for it, and a name that is none has no other
            if len(self._veils) >= _VEILED:
                del self._veils[next(iter(self._veils))]
            self._veils[key] = veiled
        return veiled

    def _unveil(self, name: str) -> None:
        """Let nothing stand for an account, or a name that was none, that is not the same any more."""
        if self._veils:
            self._veils.pop(name, None)
            self._veils.pop(name + _OF_SUCCESSOR, None)

    def _decoy(self) -> Account:
        parameters = Parameters()
        if self._decoy_sealed is None:
            self._decoy_sealed = self.master.seal(bytearray(32), associated("", parameters))
        return Account("", parameters, self._decoy_sealed, b"", -1)

    def _forget_what_is_not_kept(self) -> None:
        self.enrolments.clear()
        self._veils.clear()
        self._due.clear()
        self._decoy_sealed = None

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
        self._unveil(account.name)
        self.version += 1

    def drop(self, name: str) -> None:
        """Take an account away."""
        account = self.accounts.pop(name)
        self._with_successor.pop(name, None)
        for seed in account.seeds:
            kind = _kind(seed)
            self._kinds[kind] -= 1
            if not self._kinds[kind]:
                del self._kinds[kind]
            self._latest_left |= spent_until(seed) >= self._latest
        self._unveil(name)
        self.version += 1

    def with_successor(self) -> list[Account]:
        """The accounts that have one."""
        return [self.accounts[name] for name in self._with_successor]

    def spend(self, account: Account, step: int) -> None:
        """Let no code up to this step be good any more."""
        account.last_step = step
        self._latest = max(self._latest, spent_until(account))

    def latest(self, beyond: float) -> int:
        """The Unix time until which codes are spent, of the account that is furthest ahead.

        0 if that is not beyond a time, as nearly always: then nobody has to look at all accounts.
        """
        if self._latest > beyond and self._latest_left:
            self._latest = max(map(spent_until, self.seeds()), default=0)
            self._latest_left = False
        return self._latest if self._latest > beyond else 0

    def kinds(self) -> Collection[tuple[int, int]]:
        """The periods of all seeds, each with the offsets there are, whichever way."""
        return self._kinds.keys()

    def raise_floors(self, floors: Mapping[int, int]) -> None:
        """Let no code be good that began before these Unix times, by period."""
        for period, floor in floors.items():
            self.floors[period] = max(self.floors.get(period, 0), floor)

    def lower(self, wall: float) -> Pieces[None]:
        """Let every watermark and floor come down to the end of the window around this time."""
        latest = 0
        for some in in_pieces(list(self.seeds())):
            for account in some:
                end = otp.step_at(wall, account.parameters.period) + otp.WINDOW
                end += reach(account.offset, account.drift)
                account.last_step = min(account.last_step, end)
                account.forget_codes()
                latest = max(latest, spent_until(account))
            yield
        self._latest, self._latest_left = latest, False
        self._veils.clear()
        for gone in in_pieces(list(self.gone.items())):
            for digest, (step, period) in gone:
                end = otp.step_at(wall, period) + otp.WINDOW + otp.MAX_OFFSET
                self.gone[digest] = min(step, end), period
            yield
        for period, floor in self.floors.items():
            self.floors[period] = min(floor, otp.window_end(wall, period))
        self.version += 1

    def codes(self, account: Account, step: int) -> tuple[str, ...]:
        """The codes of all steps of the window around `step`, in order.

        They are kept: when time goes on by one step, one new code is made, if it was not made ahead.
        """
        if step != account.middle or not account.codes:
            first, last = step - otp.WINDOW, step + otp.WINDOW
            kept = account.codes[1:] if step == account.middle + 1 else ()
            new = range(first + len(kept), last + 1)
            account.codes = kept + (self._make(account, new) if new else ())
            if step != self._middle:
                self._middle = step
            account.middle = self._middle  # accounts share it: these are not a million numbers
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
                after = account.middle + otp.WINDOW + 1
                with contextlib.suppress(Refusal):  # whoever asks for it is told
                    account.codes += self._make(account, range(after, after + 1))
        return bool(self._due)

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


def _kind(seed: Account) -> tuple[int, int]:
    return seed.parameters.period, abs(seed.offset)

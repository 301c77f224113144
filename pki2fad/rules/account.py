"""One account: its authenticators, the failures counted for it, and its recovery codes."""

from collections.abc import Sequence

from pki2fad.errors import BadRequest
from pki2fad.rules.authenticator import Authenticator, Successor
from pki2fad.rules.otp import Parameters
from pki2fad.rules.recovery import Recovery
from pki2fad.rules.tally import NO_TALLY, Tally, caller_of_id
from pki2fad.wire.forms import MAIN

MOST = 4  # authenticators of an account, beside those that wait


class Account(Authenticator):
    """One account. It is its first authenticator, and has `others` beside it.

    Nearly all have one: a million accounts are a million objects, and not two million.
    """

    __slots__ = ("others", "recovery", "tally")

    def __init__(  # noqa: PLR0917 - as in `Authenticator`
        self,
        name: str,
        parameters: Parameters,
        sealed: bytes,
        fixed: bytes,
        last_step: int = -1,
        label: str = MAIN,
        offset: int = 0,
        drift: bytes = b"",
        used: int | None = None,
        successor: Successor | None = None,
        others: tuple[Authenticator, ...] = (),
        tally: Tally = NO_TALLY,
        recovery: Recovery | None = None,
    ) -> None:
        super().__init__(
            name,
            parameters,
            sealed,
            fixed,
            last_step,
            label,
            offset,
            drift,
            used,
            successor,
        )
        self.others = others
        self.tally = tally
        self.recovery = recovery

    @classmethod
    def of(
        cls,
        authenticators: Sequence[Authenticator],
        tally: Tally = NO_TALLY,
        recovery: Recovery | None = None,
    ) -> "Account":
        """The account that has these authenticators, at least one."""
        first, *others = authenticators
        return cls(
            first.name,
            first.parameters,
            first.sealed,
            first.fixed,
            first.last_step,
            label=first.label,
            offset=first.offset,
            drift=first.drift,
            used=first.used,
            successor=first.successor,
            others=tuple([one.changed() if isinstance(one, Account) else one for one in others]),
            tally=tally,
            recovery=recovery,
        )

    def count(self, tally: Tally) -> None:
        """Have this tally from now on."""
        self.tally = tally

    @property
    def caller(self) -> bytes:
        """What its callers are hashed with: its id, or the name by which version 0.1.0 knew it."""
        by_id = caller_of_id(self.account_id)  # also if not needed: a refusal is the same work for all
        return self.former or by_id

    @property
    def authenticators(self) -> tuple[Authenticator, ...]:
        """Those that are active, the first of them first."""
        return (self, *self.others)

    def authenticator(self, label: str) -> Authenticator | None:
        """The active one with this label."""
        return next((one for one in self.authenticators if one.label == label), None)

    def require_room(self) -> None:
        """Raise `BadRequest` if it has as many authenticators as it may."""
        if len(self.authenticators) >= MOST:
            raise BadRequest(f"account {self.name!r} has {MOST} authenticators; remove one first")

    @property
    def has_one_seed(self) -> bool:
        """True for nearly all accounts: there is no other authenticator, and none that waits."""
        return self.successor is None and not self.others

    @property
    def seeds(self) -> tuple[Authenticator, ...]:
        """All authenticators, and those that wait."""
        return (*self.own_seeds, *[seed for one in self.others for seed in one.own_seeds])

    def in_force(self, wall: float) -> tuple[Authenticator, ...]:
        """Those whose codes are good at this time; codes are generated from the first that is no HOTP."""
        if not self.others:
            return super().in_force(wall)
        return tuple([one for each in self.authenticators for one in Authenticator.in_force(each, wall)])

    def settled(self, wall: float) -> "Account":
        """The account once the deadlines of successors have been applied; itself before all of them."""
        if all(one.is_settled(wall) for one in self.authenticators):
            return self
        return self._with([Authenticator.settled(one, wall) for one in self.authenticators])

    def replaced(self, old: Authenticator, new: Authenticator) -> "Account":
        """A copy with one of its authenticators replaced."""
        return self._with([new if one is old else one for one in self.authenticators])

    def with_authenticator(self, new: Authenticator) -> "Account":
        """A copy with one more, or another one of the same label."""
        old = self.authenticator(new.label)
        if old is not None:
            return self.replaced(old, new)
        return self._with([*self.authenticators, new])

    def without(self, label: str) -> "Account | None":
        """A copy without one of its authenticators; None if it has no other."""
        rest = [one for one in self.authenticators if one.label != label]
        return self._with(rest) if rest else None

    def with_tally(self, tally: Tally) -> "Account":
        """A copy with this tally."""
        return Account.of(self.authenticators, tally, self.recovery)

    def with_recovery(self, recovery: Recovery) -> "Account":
        """A copy with these recovery codes, and no others."""
        return Account.of(self.authenticators, self.tally, recovery)

    def _with(self, authenticators: Sequence[Authenticator]) -> "Account":
        """A copy with other authenticators."""
        return Account.of(authenticators, self.tally, self.recovery)

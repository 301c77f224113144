"""One account: its parameters and sealed seed, how far its codes are spent, and its successor."""

from dataclasses import dataclass
from types import EllipsisType

from pki2fad.rules import otp
from pki2fad.rules.otp import Parameters
from pki2fad.rules.tally import NO_TALLY, Tally

DRIFTS = 8  # the drift of this many acceptances is remembered

# The drift of a seed that came back: how far ahead its codes were before is unknown.
UNKNOWN = b"\x7f"


class Account:
    """One account, or a successor: the seed that is to replace the account's own.

    Only its watermark, tally, drift and the codes kept for a step ever change.
    """

    __slots__ = (
        "codes",
        "digest",
        "drift",
        "last_step",
        "middle",
        "name",
        "offset",
        "parameters",
        "sealed",
        "successor",
        "tally",
    )

    def __init__(
        self,
        name: str,
        parameters: Parameters,
        sealed: bytes,
        digest: bytes,
        last_step: int,
        *,
        tally: Tally = NO_TALLY,
        offset: int = 0,
        drift: bytes = b"",
        successor: "Successor | None" = None,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.sealed = sealed  # under the master key
        self.digest = digest  # the same for all accounts whose codes are made by the same HMACs
        self.last_step = last_step  # the watermark: the last accepted step, -1 for none
        self.tally = tally
        self.offset = offset  # steps by which the prover is ahead: the middle of its window
        self.drift = drift  # a signed byte for each of the last acceptances: steps from now
        self.codes: tuple[str, ...] = ()  # from the window's first step on; one more where it was made ahead
        self.middle = -1  # the step in the middle of their window
        self.successor = successor

    def keep_codes(self, codes: tuple[str, ...], middle: int) -> None:
        """Keep the codes of the window around the step `middle`."""
        self.codes, self.middle = codes, middle

    def forget_codes(self) -> None:
        """Drop the codes that are kept."""
        self.codes, self.middle = (), -1

    def spend(self, step: int, drift: bytes) -> None:
        """Move the watermark to this step, with the drift that its acceptance leaves."""
        self.last_step, self.drift = step, drift

    def take_up(self, last_step: int, drift: bytes, offset: int) -> None:
        """Take over what is known of its seed, before the account is in the keyring."""
        self.last_step, self.drift, self.offset = last_step, drift, offset

    def raise_to(self, step: int) -> None:
        """Let the watermark be at this step at least."""
        self.last_step = max(self.last_step, step)

    def lower(self, step: int) -> None:
        """Let the watermark come down to this step."""
        self.last_step = min(self.last_step, step)
        self.forget_codes()

    def count(self, tally: Tally) -> None:
        """Have this tally from now on."""
        self.tally = tally

    def reseal(self, sealed: bytes) -> None:
        """Hold the seed as another master key seals it."""
        self.sealed = sealed

    @property
    def seeds(self) -> "tuple[Account, ...]":
        """The account's own seed, and its successor's if there is one."""
        return (self,) if self.successor is None else (self, self.successor.account)

    def in_force(self, wall: float) -> "tuple[Account, ...]":
        """The seeds whose codes are good at this time; codes are generated from the first."""
        if self.successor is None or not self.successor.is_due(wall):
            return self.seeds
        return self.seeds[1:] if self.successor.cutover else self.seeds[:1]

    def settled(self, wall: float) -> "Account":
        """The account after its successor's deadline has been applied; itself before the deadline."""
        if self.successor is None or not self.successor.is_due(wall):
            return self
        return self.promoted() if self.successor.cutover else self.with_successor(None)

    def promoted(self) -> "Account":
        """The account that its successor becomes. It keeps the tally: a guesser gets no new budget."""
        assert self.successor is not None
        return self.successor.account.copy(tally=self.tally, successor=None)

    def with_successor(self, successor: "Successor | None") -> "Account":
        """A copy with another successor, or none."""
        return self.copy(successor=successor)

    def is_like(self, other: "Account") -> bool:
        """True if both have the same seed and parameters."""
        return self.digest == other.digest and self.parameters == other.parameters

    def copy(
        self,
        *,
        last_step: int | None = None,
        tally: Tally | None = None,
        offset: int | None = None,
        drift: bytes | None = None,
        successor: "Successor | EllipsisType | None" = ...,
    ) -> "Account":
        """A copy without the kept codes, with the given fields replaced."""
        return Account(
            self.name,
            self.parameters,
            self.sealed,
            self.digest,
            self.last_step if last_step is None else last_step,
            tally=self.tally if tally is None else tally,
            offset=self.offset if offset is None else offset,
            drift=self.drift if drift is None else drift,
            successor=self.successor if successor is ... else successor,
        )

    @property
    def last_used(self) -> int | None:
        """The Unix time at which the last accepted step began; None if none was."""
        return None if self.last_step < 0 else self.last_step * self.parameters.period

    @property
    def drifts(self) -> list[int]:
        """How many steps the prover was ahead at its last acceptances, the latest last."""
        return _drifts(self.drift.replace(UNKNOWN, b""))

    def drifted(self, steps: int) -> bytes:
        """The drift with one more acceptance, of a code that is `steps` ahead."""
        return kept(self.drift + _one(steps))

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.parameters!r}, last_step={self.last_step})"


@dataclass(frozen=True, slots=True)
class Successor:
    """The seed that replaces an account's own when its first code is accepted, or at the deadline."""

    account: Account  # of the same name
    deadline: int | None  # Unix time: then it is dropped, or with `cutover` the account's own seed is
    cutover: bool

    def is_due(self, wall: float) -> bool:
        """True from the deadline on."""
        return self.deadline is not None and wall >= self.deadline

    def is_like(self, other: "Successor") -> bool:
        """True if both have the same seed, parameters, deadline and cutover."""
        ends = (self.deadline, self.cutover) == (other.deadline, other.cutover)
        return ends and self.account.is_like(other.account)


def kept(drift: bytes) -> bytes:
    """The drift to remember: the last acceptances, and the one that was furthest ahead of all.

    That one counts however old it is: the clock may be set back to just after it.
    """
    last = drift[-DRIFTS:]
    furthest = max(_drifts(drift), default=0)
    return last if furthest in _drifts(last) or not drift else _one(furthest) + last[1:]


def reach(offset: int, drift: bytes) -> int:
    """How many steps the middle of the window was ahead at most, also with earlier offsets."""
    if not drift:
        return offset
    if UNKNOWN in drift:
        return otp.MAX_OFFSET
    return max(offset, max(_drifts(drift)) - otp.WINDOW)


def spent_until(account: Account) -> int:
    """The Unix time of the next unspent code, for a prover that is as far ahead as it ever was."""
    reached = account.last_step + 1 - otp.WINDOW - reach(account.offset, account.drift)
    return reached * account.parameters.period


def _drifts(drift: bytes) -> list[int]:
    return memoryview(drift).cast("b").tolist()


def _one(steps: int) -> bytes:
    return steps.to_bytes(1, signed=True)


def associated(name: str, of: Parameters) -> bytes:
    """What a sealed seed is bound to; no field can contain the separator."""
    return f"pki2fad account 1\0{name}\0{of.algorithm}\0{of.digits}\0{of.period}".encode()

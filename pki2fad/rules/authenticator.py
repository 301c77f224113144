"""One authenticator: its sealed seed and parameters, and how far its codes are spent (NIST SP 800-63B)."""

from dataclasses import dataclass
from types import EllipsisType

from pki2fad.crypto import seedsizes
from pki2fad.rules import otp
from pki2fad.rules.otp import HOTP, Parameters
from pki2fad.wire.forms import MAIN

DRIFTS = 8  # the drift of this many acceptances is remembered

# The drift of a seed that came back: how far ahead its codes were before is unknown. For HOTP it says that
# codes beyond the counter may have been used.
UNKNOWN = b"\x7f"

ID_BYTES = 16  # of an account's id, an authenticator's, and a digest

_KINDS = {kind: kind.encode() for kind in otp.KINDS}
_NO_ID = bytes(ID_BYTES)  # of an authenticator that version 0.1.0 made
_MADE_BYTES = 6
_DIGEST = slice(2 * ID_BYTES, 3 * ID_BYTES)
_MADE = slice(_DIGEST.stop, _DIGEST.stop + _MADE_BYTES)


class Authenticator:
    """One authenticator of an account.

    In the keyring its watermark, drift, `used` and kept codes change, and its seal with the master key.
    """

    __slots__ = (
        "codes",
        "drift",
        "first",
        "fixed",
        "is_hotp",
        "label",
        "last_step",
        "name",
        "offset",
        "parameters",
        "sealed",
        "successor",
        "used",
    )

    def __init__(  # noqa: PLR0917 - a start makes a million, and names take half as long again
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
        successor: "Successor | None" = None,
    ) -> None:
        self.name = name  # the account's
        self.label = label
        self.parameters = parameters
        self.is_hotp = parameters.kind == HOTP  # a counter makes its codes, and not the time
        self.sealed = sealed  # under the master key
        self.fixed = fixed  # what never changes (see `fixed_facts`): one object, since there may be a million
        self.last_step = last_step  # the watermark: the last accepted step, or counter; -1 for none
        self.offset = offset  # steps by which the prover is ahead: the middle of its window
        self.drift = drift  # a signed byte for each of the last acceptances: steps from now
        self.used = used  # the Unix time of the last acceptance; only for HOTP, where no step tells it
        self.codes: tuple[str, ...] = ()  # of the candidates in order; one more where it was made ahead
        self.first = -1  # the first step that they are of
        self.successor = successor

    @property
    def account_id(self) -> bytes:
        """The lasting random id of its account."""
        return self.fixed[:ID_BYTES]

    @property
    def id(self) -> bytes:
        """Its own lasting random id; zeros if version 0.1.0 made it."""
        return self.fixed[ID_BYTES : 2 * ID_BYTES]

    @property
    def digest(self) -> bytes:
        """The same for all authenticators whose codes are made by the same HMACs."""
        return self.fixed[_DIGEST]

    @property
    def made(self) -> int | None:
        """The Unix time at which it was made; None if version 0.1.0 made it."""
        return int.from_bytes(self.fixed[_MADE]) or None

    @property
    def former(self) -> bytes:
        """The name by which version 0.1.0 knew the account, in UTF-8; empty for later accounts."""
        return self.fixed[_MADE.stop :]

    @property
    def identity(self) -> bytes:
        """Its account's id, and behind it `former`. Both outlive the account."""
        return self.account_id + self.former

    @property
    def seed_bytes(self) -> int:
        """How long its seed is."""
        return seedsizes.of_sealed(self.sealed)

    @property
    def is_lost(self) -> bool:
        """True for HOTP from a backup: its codes are not good until `resync` finds the counter."""
        return self.drift == UNKNOWN and self.is_hotp

    def keep_codes(self, codes: tuple[str, ...], first: int) -> None:
        """Keep the codes of the steps from `first` on."""
        self.codes, self.first = codes, first

    def forget_codes(self) -> None:
        """Drop the codes that are kept."""
        self.codes, self.first = (), -1

    def spend(self, step: int, drift: bytes, used: int | None) -> None:
        """Move the watermark to this step, with the drift and the time that its acceptance leaves."""
        self.last_step, self.drift, self.used = step, drift, used

    def take_up(self, last_step: int, drift: bytes, offset: int) -> None:
        """Take over what is known of its seed, before it is in the keyring."""
        self.last_step, self.drift, self.offset = last_step, drift, offset

    def raise_to(self, step: int) -> None:
        """Let the watermark be at this step at least."""
        self.last_step = max(self.last_step, step)

    def lower(self, step: int) -> None:
        """Let the watermark come down to this step."""
        self.last_step = min(self.last_step, step)
        self.forget_codes()

    def reseal(self, sealed: bytes) -> None:
        """Hold the seed as another master key seals it."""
        self.sealed = sealed

    @property
    def associated(self) -> bytes:
        """What the sealed seed is bound to. Ids have a fixed length, and nothing else can have a NUL.

        The name is in it: nobody can give an account another name in the state file.
        """
        of, ids, name = self.parameters, self.fixed[: _DIGEST.start], self.name.encode()
        text = otp.text(of.algorithm, of.digits, of.period)
        if ids.endswith(_NO_ID):  # as 0.1.0 sealed it
            return b"pki2fad account 1\0%b\0%b" % (name, text)
        return b"pki2fad authenticator 2\0%b%b\0%b\0%b" % (ids, name, _KINDS[of.kind], text)

    def is_like(self, other: "Authenticator") -> bool:
        """True if both have the same seed and parameters."""
        return self.digest == other.digest and self.parameters == other.parameters

    def is_settled(self, wall: float) -> bool:
        """False if its successor's deadline has passed and was not applied yet."""
        return self.successor is None or not self.successor.is_due(wall)

    def in_force(self, wall: float) -> "tuple[Authenticator, ...]":
        """Itself and its successor, as far as their codes are good at this time."""
        own = () if self.is_lost else (self,)
        if self.successor is None:
            return own
        if not self.successor.is_due(wall):
            return (*own, self.successor.authenticator)
        return (self.successor.authenticator,) if self.successor.cutover else own

    @property
    def own_seeds(self) -> "tuple[Authenticator, ...]":
        """Itself, and its successor if there is one; of an account those of its first authenticator."""
        return (self,) if self.successor is None else (self, self.successor.authenticator)

    def settled(self, wall: float) -> "Authenticator":
        """What it is once its successor's deadline has been applied; itself before the deadline."""
        if self.successor is None or not self.successor.is_due(wall):
            return self
        return self.successor.authenticator if self.successor.cutover else self.changed(successor=None)

    def changed(
        self,
        *,
        last_step: int | None = None,
        offset: int | None = None,
        drift: bytes | None = None,
        used: int | None = None,
        successor: "Successor | EllipsisType | None" = ...,
    ) -> "Authenticator":
        """A copy without the kept codes, with the given fields replaced."""
        return Authenticator(
            self.name,
            self.parameters,
            self.sealed,
            self.fixed,
            self.last_step if last_step is None else last_step,
            label=self.label,
            offset=self.offset if offset is None else offset,
            drift=self.drift if drift is None else drift,
            used=self.used if used is None else used,
            successor=self.successor if successor is ... else successor,
        )

    @property
    def last_used(self) -> int | None:
        """The Unix time at which the last accepted step began or counter was accepted; None if none was."""
        if self.is_hotp or self.last_step < 0:
            return self.used
        return self.last_step * self.parameters.period

    @property
    def drifts(self) -> list[int]:
        """How many steps the prover was ahead at its last acceptances, the latest last."""
        return _drifts(self.drift.replace(UNKNOWN, b""))

    def drifted(self, steps: int) -> bytes:
        """The drift with one more acceptance, of a code that is `steps` ahead."""
        return kept(self.drift + _one(steps))

    def __repr__(self) -> str:
        of = f"{self.name!r}, {self.label!r}, {self.parameters!r}"
        return f"{type(self).__name__}({of}, last_step={self.last_step})"


@dataclass(frozen=True, slots=True)
class Successor:
    """The authenticator that ends the one it follows when its first code is accepted, or at the deadline."""

    authenticator: Authenticator  # of the same account and label
    deadline: int | None  # Unix time: then it is dropped, or with `cutover` the one that it follows is
    cutover: bool

    def is_due(self, wall: float) -> bool:
        """True from the deadline on."""
        return self.deadline is not None and wall >= self.deadline

    def is_like(self, other: "Successor") -> bool:
        """True if both have the same seed, parameters, deadline and cutover."""
        ends = (self.deadline, self.cutover) == (other.deadline, other.cutover)
        return ends and self.authenticator.is_like(other.authenticator)


def fixed_facts(account_id: bytes, own_id: bytes, digest: bytes, made: int, former: bytes) -> bytes:
    """What never changes of an authenticator: ids and digest (16 bytes each), when it was made, a name.

    `made` is a Unix time, 0 if it is unknown. `former` is as in `Authenticator`.
    """
    return account_id + own_id + digest + made.to_bytes(_MADE_BYTES) + former


def is_fixed(fixed: bytes) -> bool:
    """True if these can be the facts of an authenticator."""
    return len(fixed) >= _MADE.stop


def kept(drift: bytes) -> bytes:
    """The drift to remember: the last acceptances, and the one that was furthest ahead of all.

    That one counts however old it is: the clock may be set back to just after it.
    """
    last = drift[-DRIFTS:]
    furthest = max(_drifts(drift), default=0)
    return last if furthest in _drifts(last) or not drift else _one(furthest) + last[1:]


def drift_of_waiting(last_step: int, period: int) -> bytes:
    """The drift of a successor. If its seed was used before, it came back."""
    return UNKNOWN if last_step >= 0 and period else b""


def reach(offset: int, drift: bytes) -> int:
    """How many steps the middle of the window was ahead at most, also with earlier offsets."""
    if not drift:
        return offset
    if UNKNOWN in drift:
        return otp.MAX_OFFSET
    return max(offset, max(_drifts(drift)) - otp.WINDOW)


def spent_until(one: Authenticator) -> int:
    """The Unix time of the next unspent code, for a prover that is as far ahead as it ever was.

    0 for HOTP, whose codes belong to no time.
    """
    reached = one.last_step + 1 - otp.WINDOW - reach(one.offset, one.drift)
    return reached * one.parameters.period


def _drifts(drift: bytes) -> list[int]:
    return memoryview(drift).cast("b").tolist()


def _one(steps: int) -> bytes:
    return steps.to_bytes(1, signed=True)

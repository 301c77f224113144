"""Answers, and the changes that have to be kept by the store before an answer may leave."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pki2fad.errors import AccountExists, Refusal
from pki2fad.rules.account import UNKNOWN, Account, kept
from pki2fad.rules.clock import Interval
from pki2fad.rules.pieces import Pieces, in_pieces
from pki2fad.rules.tally import Tally
from pki2fad.rules.throttle import Slots

if TYPE_CHECKING:  # what seals and opens is passed in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

T = TypeVar("T")

INVALID: dict[str, Any] = {"valid": False}

# Why a code was not valid; only the log says it.
WRONG = "wrong"
REPLAYED = "replayed"  # it was spent already
STALE = "stale"  # it is of a step near the window

# What an account came to by its successor; only the log says it too.
PROMOTED = "promoted"


class Spend(NamedTuple):
    """A code was accepted: the watermark has already moved in memory, and only grows."""

    account: str
    step: int  # the new watermark
    period: int
    wall: float  # when
    offset: int = 0  # the account's
    drift: bytes = b""  # the account's new one
    tally: Tally | None = None  # the account's new one, if the success changed it


class Failure(NamedTuple):
    """A failure was counted, in memory already: like a Spend it is kept with others of its turn."""

    account: str
    tally: Tally | None  # the account's new one; None where there is no such account
    slots: Slots


class Edit(NamedTuple):
    """Accounts change, once this is kept: memory has not moved, `Agent.apply` moves it.

    `put` replaces or adds an account with its successor, None removes both. `gone` is what was there:
    the digests and the watermarks of its seeds are remembered. `file_digest` records the file of
    `seeds.d` that this came from.
    """

    account: str
    wall: float
    put: Account | None
    gone: Account | None
    file_digest: bytes | None = None


class ClockEdit(NamedTuple):
    """The wall clock is right as it is: what is spent beyond its window comes down, once this is kept.

    Codes of the interval `spent` stay so: the clock may have been there.
    """

    wall: float
    spent: Interval | None


class Edits(NamedTuple):
    """Accounts change, all or none, once this is kept.

    Where they come from a backup, `floors` are Unix times by period: no code that began before them is good,
    since it may have been used where the backup is from. `spent` is as in `ClockEdit`, of that clock.
    """

    edits: list[Edit]
    floors: Mapping[int, int] = MappingProxyType({})
    spent: tuple[Interval, ...] = ()


class Rotation(NamedTuple):
    """Another master key seals every seed, once this is kept; watermarks stay as they are."""

    master: "MasterKey"
    slots: Mapping[str, bytes]  # the master key, wrapped for each host key, by the key's fingerprint
    accounts: Sequence[tuple[Account, bytes]]  # all of them, with the seed as the master key seals it
    successors: Sequence[tuple[Account, bytes]]  # the same of these
    digest_key: bytes  # sealed by it too

    def __repr__(self) -> str:
        return f"Rotation(slots={[*self.slots]})"


LargeChange = Edits | ClockEdit | Rotation
Change = Spend | Failure | Edit | LargeChange

# A long request, in pieces that take a few milliseconds each. It yields
# - None after a piece, and is sent the `Reading` of now;
# - a callable, which is run in a thread, and is sent what that returns;
# - a change, and is sent the `Reading` of when the change is kept and memory has moved. Nothing else may have
#   changed accounts since the work began; what could not be kept is raised there.
Steps = Generator["Callable[[], Any] | LargeChange | None", Any, T]
Work = Steps["Answer"]


@dataclass(slots=True)
class Answer:
    """A result or a refusal, and the change that has to be kept before it may leave."""

    result: Any = None
    refusal: Refusal | None = None
    change: Change | None = None
    reason: str | None = None  # why a code is not valid, or what else it did, for the log
    quiet: bool = False  # nothing was decided that belongs into the log
    audit: str | None = None  # what an administrator's method did, in a word, for the log
    details: dict[str, Any] | None = None  # and more of it, nothing secret
    work: Work | None = None  # what gives the answer in place of this one, piece by piece

    def __repr__(self) -> str:
        return f"Answer(refusal={self.refusal!r}, change={self.change!r})"  # results may be codes


def listed(names: Sequence[str], limit: int = 8) -> str:
    """The names, at most so many of them, for one line."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def in_the_way(names: Sequence[str]) -> AccountExists:
    """The refusal of all changes, since these accounts have something else."""
    return AccountExists(f"accounts have another seed or other parameters: {listed(names)}")


def take_up_watermarks(edits: Sequence[Edit]) -> Pieces[None]:
    """Let a seed that goes under one name and comes under another in the same edits keep its watermark."""
    gone: dict[bytes, Account] = {}  # the one that is furthest ahead, where several had the same seed
    for some in in_pieces(edits):
        for account in (edit.gone for edit in some if edit.gone is not None):
            known = gone.get(account.digest)
            if known is None or account.last_step >= known.last_step:
                gone[account.digest] = account
        yield
    for some in in_pieces(edits):
        for edit in some:
            before = edit.put and gone.get(edit.put.digest)
            if edit.put is None or before is None:
                continue
            # As with any seed that comes back, its drift is not known then.
            came = UNKNOWN if before.name != edit.account else b""
            last_step = max(edit.put.last_step, before.last_step)
            edit.put.take_up(last_step, kept(edit.put.drift + came), edit.put.offset)
        yield

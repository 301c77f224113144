"""Answers, and the changes that the store must keep before an answer may leave."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pki2fad.errors import AccountExists, Refusal
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import UNKNOWN, Authenticator, kept
from pki2fad.rules.clock import Interval, Reading
from pki2fad.rules.pieces import Pieces, in_pieces
from pki2fad.rules.seals import Sealed
from pki2fad.rules.tally import Tally
from pki2fad.rules.throttle import Slots

if TYPE_CHECKING:  # master keys are passed in: nothing here depends on cryptography
    from pki2fad.crypto.masterkey import MasterKey

T = TypeVar("T")

REJECTED: dict[str, Any] = {"valid": False}  # the answer to a code that is not good

# Why a code was not valid. Only the log says it.
WRONG = "wrong"
REPLAYED = "replayed"  # it was spent already
NEAR = "stale"  # it is of a step near the window

# A success that put the successor in the place of the one that it follows. Only the log says it too.
PROMOTED = "promoted"


class Spend(NamedTuple):
    """A code was accepted: the watermark has already moved in memory, and only grows.

    A counter (`period` is 0) is synced to the disk: no lease covers it.
    """

    account: str
    step: int  # the new watermark
    period: int
    wall: float  # when
    offset: int = 0  # the authenticator's
    drift: bytes = b""  # the authenticator's new one
    tally: Tally | None = None  # the account's new one, if the success changed it
    label: str | None = None  # of the authenticator; None for the account's first
    also: tuple["Spend", ...] = ()  # for other authenticators of the account that have the same code


class RecoverySpend(NamedTuple):
    """A recovery code was used: that has already moved in memory. No lease covers it, so it is synced."""

    account: str
    bits: int  # a bit for the code, and for each that is the same
    tally: Tally | None = None  # the account's new one, if the success changed it


class Failure(NamedTuple):
    """A failure was counted, in memory already. Like a Spend it is kept with others of its turn."""

    account: str
    tally: Tally | None  # the account's new one; None if there is no such account
    slots: Slots


class Edit(NamedTuple):
    """An account changes, once this is kept. Memory has not moved: `Memory.apply` moves it.

    `put` replaces or adds an account, None removes it. `gone` are the seeds that it has no more: their
    digests and watermarks are remembered. `file_digest` is that of the file of `seeds.d` which asked for the
    change.
    """

    account: str
    wall: float
    put: Account | None
    gone: Sequence[Authenticator] = ()
    file_digest: bytes | None = None


class ClockEdit(NamedTuple):
    """The wall clock is accepted as right: watermarks beyond its window come down, once this is kept.

    Codes of the interval `spent` stay spent: the clock may have been there.
    """

    wall: float
    spent: Interval | None


class Edits(NamedTuple):
    """Accounts change, all or none, once this is kept.

    `floors` come from a backup: Unix times by period. No code that began before them is good, since the
    host of the backup may have accepted it. `spent` is as in `ClockEdit`, for that host's clock.
    """

    edits: list[Edit]
    floors: Mapping[int, int] = MappingProxyType({})
    spent: tuple[Interval, ...] = ()


class Rotation(NamedTuple):
    """Another master key seals all that is sealed, once this is kept. Watermarks stay as they are."""

    master: "MasterKey"
    slots: Mapping[str, bytes]  # the master key, wrapped for each host key, by the key's fingerprint
    resealed: Sequence[tuple[Sealed, bytes]]  # all of them, each as the master key seals it
    digest_key: bytes  # sealed by it too

    def __repr__(self) -> str:
        return f"Rotation(slots={[*self.slots]})"


class KeyEdit(NamedTuple):
    """The host keys of these `slots`, and no others, open the state, once this is kept.

    `floors` are as in `Edits`: for a new state, where codes may have been used before it was made.
    """

    slots: Mapping[str, bytes]  # the master key, wrapped for each host key, by the key's fingerprint
    floors: Mapping[int, int] = MappingProxyType({})


class WatchEdit(NamedTuple):
    """What is known of the wall clock, as `Watch` has it."""

    mark: float
    last: Reading
    stretches: Sequence[Interval]


class FileEdit(NamedTuple):
    """Another digest stands for the file of `seeds.d` that was applied last for an account."""

    account: str
    digest: bytes


class Shred(NamedTuple):
    """What was replaced leaves the files of the state, once this is kept."""


TurnChange = Spend | RecoverySpend | Failure  # kept with the others of its turn
LargeChange = Edits | ClockEdit | Rotation
Change = TurnChange | Edit | KeyEdit | WatchEdit | FileEdit | LargeChange | Shred

# A long request, in pieces of a few milliseconds. It yields
# - None after a piece, and gets the `Reading` of now;
# - a callable, which runs in a thread, and gets its result;
# - a change, and gets the `Reading` of when the change was kept and memory had moved. If the change could not
#   be kept, the reason is raised there. For a `LargeChange` nothing else may have changed accounts since the
#   work began.
Steps = Generator["Callable[[], Any] | Change | None", Any, T]
Work = Steps["Answer"]


@dataclass(slots=True)
class Answer:
    """A result or a refusal, and the change that must be kept before it may leave."""

    result: Any = None
    refusal: Refusal | None = None
    change: Change | None = None
    reason: str | None = None  # for the log: why a code is not valid, or what else it did
    quiet: bool = False  # it is not logged
    audit: str | None = None  # for the log: a word for the change that was made or refused
    details: dict[str, Any] | None = None  # for the log too, nothing secret
    matched: str | None = None  # for the log: the labels of those that had the code
    encoded: bytes | None = None  # the result as it is sent, where that is known
    work: Work | None = None  # long work that gives the answer in place of this one

    def __repr__(self) -> str:
        return f"Answer(refusal={self.refusal!r}, change={self.change!r})"  # results may be codes


def listed(names: Sequence[str], limit: int = 8) -> str:
    """The names for one line, at most `limit` of them."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def in_the_way(names: Sequence[str]) -> AccountExists:
    """The refusal of all changes because these accounts have other seeds."""
    return AccountExists(f"accounts have another seed or other parameters: {listed(names)}")


def take_up_watermarks(edits: Sequence[Edit]) -> Pieces[None]:
    """Keep the watermark of a seed that moves from one name to another within these edits."""
    gone: dict[bytes, Authenticator] = {}  # if several had the same seed, the one that is furthest ahead
    for some in in_pieces(edits):
        for one in (seed for edit in some for seed in edit.gone):
            known = gone.get(one.digest)
            if known is None or one.last_step >= known.last_step:
                gone[one.digest] = one
        yield
    for some in in_pieces(edits):
        for one in (seed for edit in some if edit.put is not None for seed in edit.put.authenticators):
            before = gone.get(one.digest)
            if before is None:
                continue
            # As with any seed that comes back, its drift is not known then.
            came = UNKNOWN if before.name != one.name and not one.is_hotp else b""
            one.take_up(max(one.last_step, before.last_step), kept(one.drift + came), one.offset)
        yield

"""Has the store keep changes, and tells whoever waits what became of each.

The small changes of one turn of the loop are kept together. An Edit is kept at once, behind them, and
memory follows when it is kept. The store may answer before it is asked for the next, or much later.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from pki2fad.errors import Internal, Refusal, Unavailable, UnusableState
from pki2fad.host import log
from pki2fad.methods.memory import Memory
from pki2fad.rules.changes import Change, Edit, TurnChange
from pki2fad.rules.outcomes import KEPT, Keep, NotKept, Outcome, Unknown

Settled = Callable[[Outcome], object]
Unkept = NotKept | Unknown


class Commit:
    """The changes that are not kept yet, and who waits for them.

    Whoever has a change kept gives a callback, which is called once with what became of it: in that call
    or later, always in the loop.
    """

    def __init__(self, keep: Keep, memory: Memory) -> None:
        self._keep = keep
        self._memory = memory
        self._changes: list[Change] = []  # of this turn
        self._waiting: list[Settled] = []  # for these, in the same order
        self._edits = 0  # that are on their way
        self._alone = False  # True while many accounts are being changed, in the store or in memory

    def add(self, change: TurnChange, settled: Settled) -> None:
        """Have a change kept with the others of this turn."""
        self._changes.append(change)
        self._waiting.append(settled)

    def flush(self) -> None:
        """Have the changes of this turn kept."""
        if self._changes:
            changes, self._changes = self._changes, []
            waiting, self._waiting = self._waiting, []
            self._send(changes, _Batch(waiting, log_unkept))

    def keep(self, change: Change, settled: Settled) -> None:
        """Have a change kept by itself, behind those before it."""
        self.flush()
        self._send([change], _Batch([settled]))

    def edit(self, edit: Edit, settled: Settled) -> None:
        """Have an edit kept, and then made: `settled` is called when memory has followed.

        Raises `Unavailable` while its account, or many, are being changed.
        """
        if self._alone:
            raise Unavailable("many accounts are being changed; try again", 1)
        self._memory.hold(edit)
        self._edits += 1

        def follow(outcome: Outcome) -> None:
            self._edits -= 1
            self._memory.let_go(edit)
            if outcome is KEPT:
                try:
                    self._memory.apply(edit)
                except Exception as error:  # it is kept, and memory is not as it says
                    outcome = Unknown(error)
            settled(outcome)

        self.keep(edit, follow)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Take no edit in the block. Raises `Unavailable` if one is on its way."""
        if self._edits or self._alone:
            raise another_change()
        self._alone = True
        try:
            yield
        finally:
            self._alone = False

    def _send(self, changes: Sequence[Change], batch: "_Batch") -> None:
        try:
            self._keep(changes, batch.settle)
        except Exception as error:  # whatever it was, nothing may leave as if it had been kept
            batch.give_up(error)


class _Batch:
    """The changes of one call of the store, by their index, and who waits for each.

    `failed` is called once for each reason, however many changes were not kept for it.
    """

    __slots__ = ("_failed", "_waiting")

    def __init__(
        self, waiting: Sequence[Settled], failed: Callable[[Unkept], object] = lambda _: None
    ) -> None:
        self._waiting = dict(enumerate(waiting))
        self._failed = failed

    def settle(self, outcomes: Sequence[tuple[int, Outcome]]) -> None:
        """Take what the store says."""
        unkept: set[Unkept] = set()
        for index, outcome in outcomes:
            settled = self._waiting.pop(index)
            if outcome is not KEPT and isinstance(outcome, NotKept | Unknown):
                unkept.add(outcome)
            try:
                settled(outcome)
            except Exception as error:  # a mistake of ours keeps no other waiting
                log.failure("failed", error)
        for each in unkept:
            self._failed(each)

    def give_up(self, error: Exception) -> None:
        """Nobody knows what the store did with those that are left."""
        unknown = Unknown(error)
        self.settle([(index, unknown) for index in self._waiting])


def another_change() -> Unavailable:
    """The refusal of what was planned on what is not so any more."""
    return Unavailable("another change came between; try again", 1)


def require_kept(outcome: Outcome) -> None:
    """Raise why a change is not kept, unless it is."""
    if isinstance(outcome, NotKept | Unknown):
        raise outcome.reason
    if outcome is not KEPT:
        raise another_change()


def log_unkept(outcome: Unkept) -> None:
    """Log why a change is not kept, or may not be."""
    if isinstance(outcome.reason, UnusableState):
        log.error("state_failed", reason=outcome.reason)
    else:
        log.failure("failed", outcome.reason)


def refusal_of(outcome: Unkept) -> Refusal:
    """What is answered where a change is not kept, or may not be."""
    if not isinstance(outcome.reason, UnusableState):
        return Internal("the daemon failed; its log says how")
    if isinstance(outcome, Unknown):
        return Unavailable("it is not known whether this was stored: look before you try again")
    return Unavailable("the state cannot be written; the daemon's log says why")

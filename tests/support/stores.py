"""What becomes of changes, for tests of a store that settles before it returns."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from pki2fad.rules.changes import Change, Steps
from pki2fad.rules.clock import Reading
from pki2fad.rules.outcomes import KEPT, NotKept, Outcome, Settle, Unknown
from pki2fad.server.commit import Settled

T = TypeVar("T")


class Keeping(Protocol):
    """A store, as far as it keeps changes."""

    def keep(self, changes: Sequence[Change], settle: Settle) -> None: ...


def keep(store: Keeping, changes: Sequence[Change]) -> list[bool]:
    """Whether each change was kept: false for a Spend whose step was spent. Raises why it was not."""
    outcomes: dict[int, Outcome] = {}
    store.keep(changes, outcomes.update)
    for outcome in outcomes.values():
        if isinstance(outcome, NotKept | Unknown):
            raise outcome.reason
    return [outcomes[index] is KEPT for index in range(len(changes))]


def one_by_one(store: Keeping) -> Callable[[Change, Settled], None]:
    """Has the store keep single changes, as `Commit.keep` does."""
    return lambda change, settled: store.keep([change], lambda outcomes: settled(outcomes[0][1]))


def finish(steps: Steps[T], store: Keeping, reading: Reading) -> T:
    """What steps come to whose changes memory does not follow, where nobody waits and time stands still."""
    given: Any = None
    while True:
        try:
            wanted = steps.send(given)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # it is a T
        given = reading
        if callable(wanted):
            given = wanted()
        elif wanted is not None:
            keep(store, [wanted])

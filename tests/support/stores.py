"""What becomes of changes, for tests of a store that settles before it returns."""

from collections.abc import Sequence
from typing import Protocol

from pki2fad.rules.changes import Change
from pki2fad.rules.outcomes import KEPT, Settle, keep_now


class Keeping(Protocol):
    """A store, as far as it keeps changes."""

    def keep(self, changes: Sequence[Change], settle: Settle) -> None: ...


def keep(store: Keeping, changes: Sequence[Change]) -> list[bool]:
    """Whether each change was kept: false for a Spend whose step was spent. Raises why it was not."""
    return [outcome is KEPT for outcome in keep_now(store.keep, changes)]

"""What became of changes that the store was to keep, and how it says so."""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pki2fad.rules.changes import Change


class Told(enum.Enum):
    """What the store says where it has no reason to give."""

    KEPT = "kept"
    SPENT = "spent"  # this step or a later one was spent already, by another host for example
    STALE = "stale"  # planned on what is not so any more: memory has caught up, and it is handled once more


class NotKept(NamedTuple):
    """It is certainly not stored."""

    reason: Exception


class Unknown(NamedTuple):
    """It may be stored: nothing leaves as valid, and nothing is tried again."""

    reason: Exception


KEPT, SPENT, STALE = Told.KEPT, Told.SPENT, Told.STALE
Outcome = Told | NotKept | Unknown

# Takes outcomes by the index of their changes. It is called in the loop, once or several times, before the
# call of `Keep` returns or later; each index comes exactly once, in any order.
Settle = Callable[[Sequence[tuple[int, Outcome]]], None]

# Has the store keep changes, one at least. Those of one account take effect in the order of the calls.
Keep = Callable[[Sequence[Change], Settle], None]

"""What callers share: each payer has a part of the loop's time, and of the memory for what waits.

A payer is one uid that has a role, or all callers without one together.
"""

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from pki2fad.rules.access import OVERFLOW_ID

if TYPE_CHECKING:
    from pki2fad.server.connection import Connection

# Bytes of half messages, of input that is not handled yet and of answers that are not taken, of all clients:
# a thousand of the longest messages.
POOL = 64 * 1024 * 1024

# Of it, what one payer may have, and what is left for root.
SHARE = POOL // 8


# Seconds of debt that long requests leave at most: their pieces leave others their turns already.
_MOST_DEBT = 0.002


class PayerKey(NamedTuple):
    """Who pays."""

    uid: int  # OVERFLOW_ID: all callers without a role
    verify_only: bool  # root of a container that was shown that socket is not root of the host


ROOT = PayerKey(0, verify_only=False)
STRANGERS = PayerKey(OVERFLOW_ID, verify_only=False)


class Payer:
    """One payer: what it has used up, and what is to be done for it."""

    __slots__ = ("connections", "credit", "held", "is_busy", "key", "ready", "stalled", "waiting")

    def __init__(self, key: PayerKey) -> None:
        self.key = key
        self.connections = 0
        self.credit = 0.0  # seconds of the loop that it may have now; below 0 it has had too many
        self.held = 0  # bytes of the pool
        self.waiting: deque[Connection] = deque()  # connections for which something is to be done
        self.ready = False  # its turn comes
        self.is_busy = False  # it had more to do than its time the last time
        # Connections that wait for their client, to finish a message or to take answers, and since when
        # (CLOCK_BOOTTIME), the oldest first.
        self.stalled: dict[Connection, float] = {}

    def charge(self, seconds: float) -> None:
        """Have it pay for a piece of a long request: it is in debt until others have had as much at most."""
        self.credit = max(self.credit - seconds, min(self.credit, -_MOST_DEBT))


class Pool:
    """The memory for what waits, and who holds it."""

    def __init__(self) -> None:
        self._held = 0  # by all but root
        self._holders: set[Payer] = set()

    def change(self, payer: Payer, size: int) -> None:
        """Count `size` bytes more for the payer, or fewer if it is negative."""
        payer.held += size
        if payer.key != ROOT:
            self._held += size
        if payer.held:
            self._holders.add(payer)
        else:
            self._holders.discard(payer)

    def too_large(self, payer: Payer, more: int = 0) -> Payer | None:
        """The payer that gives something up if this one holds `more` bytes; None if there is room."""
        if payer.held + more > SHARE:
            return payer
        if payer.key != ROOT and self._held + more > POOL - SHARE:
            return max(
                self._holders, key=lambda holder: 0 if holder.key == ROOT else holder.held, default=None
            )
        return None

"""What callers share: each payer has a part of the loop's time, and of the memory for what waits.

A payer is one uid that has a role, or all callers without one together.
"""

from collections import deque
from typing import NamedTuple, Protocol

from pki2fad.rules.access import OVERFLOW_ID, Access
from pki2fad.rules.clock import Reading, boot

# Bytes of half messages, of input that is not handled yet and of answers that are not taken, of all clients:
# a thousand of the longest messages.
POOL = 64 * 1024 * 1024

# Of it, what one payer may have, and what is left for root.
SHARE = POOL // 8

# Seconds that a payer has at a time: somebody who logs in waits for so much of each payer that is busy.
QUANTUM = 0.0005

# Looks whether the uid of a client is known: an ordinary one takes a millisecond.
_LOOKS = 100

# Seconds of debt that long requests leave at most: their pieces leave others their turns already.
_MOST_DEBT = 0.002


class PayerKey(NamedTuple):
    """Who pays."""

    uid: int  # OVERFLOW_ID: all callers without a role
    verify_only: bool  # root of a container that was shown that socket is not root of the host


ROOT = PayerKey(0, verify_only=False)
STRANGERS = PayerKey(OVERFLOW_ID, verify_only=False)


class Client(Protocol):
    """A connection, as far as those know it who share out time and memory."""

    @property
    def descriptor(self) -> int:
        """That of its socket."""

    @property
    def payer(self) -> "Payer":
        """Who pays for it."""

    @property
    def is_gone(self) -> bool:
        """True if nobody takes its answers."""

    def has_happened(self, events: int) -> bool:
        """Note what the kernel says; true if something is to be done."""

    def serve(self, reading: Reading, end: float) -> bool:
        """Do a little for it, until CLOCK_BOOTTIME is `end`; true if there is more to do now."""

    def expire(self) -> None:
        """Its deadline is over."""

    def give_up(self, reason: object) -> None:
        """End it now, and log the reason."""

    def close(self) -> None:
        """End it now."""


class Payer:
    """One payer: what it has used up, and what is to be done for it."""

    __slots__ = ("connections", "credit", "held", "is_busy", "key", "ready", "stalled", "waiting")

    def __init__(self, key: PayerKey) -> None:
        self.key = key
        self.connections = 0
        self.credit = 0.0  # seconds of the loop that it may have now; below 0 it has had too many
        self.held = 0  # bytes of the pool
        self.waiting: deque[Client] = deque()  # connections for which something is to be done
        self.ready = False  # its turn comes
        self.is_busy = False  # it had more to do than its time the last time
        # Connections that wait for their client, to finish a message or to take answers, and since when
        # (CLOCK_BOOTTIME), the oldest first.
        self.stalled: dict[Client, float] = {}

    def join(self, count: int) -> None:
        """So many connections more are its own, or fewer if that is negative."""
        self.connections += count

    def hold(self, size: int) -> None:
        """It holds `size` bytes of the pool more, or fewer if that is negative."""
        self.held += size

    def queue(self, client: Client) -> bool:
        """Have something done for a connection in its turn; true if that was not to come."""
        self.waiting.append(client)
        was_ready, self.ready = self.ready, True
        return not was_ready

    def begin_turn(self) -> float:
        """Its turn is there; returns how many seconds it has."""
        self.credit = min(self.credit + QUANTUM, QUANTUM)
        return self.credit

    def pay(self, seconds: float) -> None:
        """It had so much of the loop's time."""
        self.credit -= seconds

    def end_turn(self) -> None:
        """Its turn is over; another one comes if there is more to do for it."""
        self.ready = self.is_busy = bool(self.waiting)
        if not self.ready:
            self.credit = min(self.credit, 0.0)  # time that was not needed is not saved

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
        payer.hold(size)
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


class Holding:
    """Who pays for one connection, by which rules, and what it holds of the pool."""

    __slots__ = ("_looks", "_pool", "_stalled_by", "access", "payer", "size")

    def __init__(self, pool: Pool, payer: Payer) -> None:
        self.payer = payer
        self.access: Access | None = None  # the rules by which it is the payer
        self._pool = pool
        self._looks = 0  # how often it was looked whether the uid of its client is known
        self.size = 0  # bytes
        self._stalled_by: object = None  # what is waited for from its client, None if nothing is

    def count(self, client: Client, size: int, stalled_by: object) -> None:
        """Count `size` bytes in the pool, and set a deadline for what is waited for."""
        if size != self.size:
            self._pool.change(self.payer, size - self.size)
            self.size = size
        if stalled_by != self._stalled_by:
            self._stalled_by = stalled_by
            self.payer.stalled.pop(client, None)
            if stalled_by is not None:
                self.payer.stalled[client] = boot()

    def may_look(self) -> bool:
        """True if it may wait for another look whether the uid of its client is known."""
        self._looks += 1
        return self._looks <= _LOOKS

    def learn(self, access: Access | None) -> None:
        """Note the rules by which its payer is; None if that has to be looked at again."""
        self.access = access

    def move(self, client: Client, payer: Payer) -> None:
        """Let another payer pay for it from now on."""
        size, stalled_by = self.size, self._stalled_by
        self.count(client, 0, None)
        self.payer = payer
        self.count(client, size, stalled_by)

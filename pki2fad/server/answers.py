"""The answers of one connection, in order: each leaves behind those before it, once it may."""

# Answers that a connection has behind one that waits, with that one: then no more of it is handled.
MOST_HELD = 64

# Bytes that an answer takes that waits, with its request and what is to be kept.
_WAITING_SIZE = 1024


class Answers:
    """Those that may leave, and places for those that wait for the store or for long work."""

    __slots__ = ("_taken", "pending", "waiting")

    def __init__(self) -> None:
        self.pending: list[bytes | None] = []  # that have not left, in order; None for one that waits
        self._taken = 0  # that have left
        self.waiting = 0  # places that are not settled

    @property
    def is_full(self) -> bool:
        """True if so many are held that no more should come."""
        return self.waiting > 0 and len(self.pending) >= MOST_HELD

    @property
    def may_leave(self) -> bool:
        """True if the first one may."""
        return bool(self.pending) and self.pending[0] is not None

    @property
    def size(self) -> int:
        """Bytes of memory that they take."""
        return self.waiting * _WAITING_SIZE + sum(map(len, filter(None, self.pending)))

    def hold(self) -> int:
        """A place behind the others for an answer that comes later, for `settle`."""
        self.pending.append(None)
        self.waiting += 1
        return self._taken + len(self.pending) - 1

    def is_last(self, place: int) -> bool:
        """True if nothing stands behind this place."""
        return place == self._taken + len(self.pending) - 1

    def settle(self, place: int, *answer: bytes) -> None:
        """Put the answer into its place; it may be in parts if that is the last place."""
        index = place - self._taken
        if len(answer) == 1:
            self.pending[index] = answer[0]
        else:
            self.pending[index : index + 1] = answer
        self.waiting -= 1

    def take(self, size: int) -> bytes:
        """Take those that may leave: all up to the first that waits, but hardly more than `size` bytes."""
        if len(self.pending) == 1 and not self.waiting:  # as nearly always
            self._taken += 1
            return self.pending.pop() or b""
        count = taken = 0
        for answer in self.pending:
            if answer is None or taken >= size:
                break
            taken += len(answer)
            count += 1
        data = b"".join(self.pending[:count])  # type: ignore[arg-type]  # none of them waits
        del self.pending[:count]
        self._taken += count
        return data

"""The answers of one connection, in order: each leaves behind those before it, once it may."""

# Answers that a connection has behind one that waits, with that one: then no more of it is handled.
MOST_HELD = 64

# Bytes that an answer takes that waits, with its request and what is to be kept.
_WAITING_SIZE = 1024


class Answers:
    """Those that may leave, and places for those that wait for the store or for long work."""

    __slots__ = ("_answers", "_taken", "waiting")

    def __init__(self) -> None:
        self._answers: list[bytes | None] = []  # that have not left; None for one that waits
        self._taken = 0  # that have left
        self.waiting = 0  # places that are not settled

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def is_full(self) -> bool:
        """True if so many are held that no more should come."""
        return self.waiting > 0 and len(self._answers) >= MOST_HELD

    @property
    def may_leave(self) -> bool:
        """True if the first one may."""
        return bool(self._answers) and self._answers[0] is not None

    @property
    def size(self) -> int:
        """Bytes of memory that they take."""
        return self.waiting * _WAITING_SIZE + sum(map(len, filter(None, self._answers)))

    def add(self, answer: bytes) -> None:
        """Put an answer behind the others."""
        self._answers.append(answer)

    def hold(self) -> int:
        """A place behind the others for an answer that comes later, for `settle`."""
        self._answers.append(None)
        self.waiting += 1
        return self._taken + len(self._answers) - 1

    def is_last(self, place: int) -> bool:
        """True if nothing stands behind this place."""
        return place == self._taken + len(self._answers) - 1

    def settle(self, place: int, *answer: bytes) -> None:
        """Put the answer into its place; it may be in parts if that is the last place."""
        index = place - self._taken
        self._answers[index : index + 1] = answer
        self.waiting -= 1

    def take(self, size: int) -> bytes:
        """Take those that may leave: all up to the first that waits, but hardly more than `size` bytes."""
        if len(self._answers) == 1 and not self.waiting:  # as nearly always
            self._taken += 1
            return self._answers.pop() or b""
        count = taken = 0
        for answer in self._answers:
            if answer is None or taken >= size:
                break
            taken += len(answer)
            count += 1
        data = b"".join(self._answers[:count])  # type: ignore[arg-type]  # none of them waits
        del self._answers[:count]
        self._taken += count
        return data

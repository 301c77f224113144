"""Answers that are the same for a whole second: `generate` is asked for again and again."""

from collections.abc import Callable

from pki2fad.methods.table import Method
from pki2fad.rules.access import Peer, Rights
from pki2fad.rules.changes import Answer
from pki2fad.rules.clock import Reading
from pki2fad.wire.messages import Request

# Answers that are kept for a second: 8 MB at most.
_MOST = 16_384


class Steady:
    """The answers of one second, by the caller's rights and what was asked, as it came.

    `make` makes one, or raises; its method has to be `steady`. Whoever changes an account or the master key
    has to call `clear`.
    """

    def __init__(self, make: Callable[[Method, Request, Peer, Reading], Answer]) -> None:
        self._make = make
        self._second = -1.0  # Unix time
        self._answers: dict[tuple[object, ...], tuple[Answer, str | None]] = {}  # and the account of each

    def answer(
        self, method: Method, request: Request, peer: Peer, rights: Rights, reading: Reading
    ) -> Answer:
        """The answer to a request of which the arguments could be read. Raises what `make` raises."""
        if reading.wall // 1 != self._second:
            self._second = reading.wall // 1
            self._answers.clear()
        assert request.args is not None
        # Values that are equal and of different types, as 1 and True, would be one: such methods take none.
        asked = (rights, method.name, *request.args.items())
        known = self._answers.get(asked)
        if known is None:
            answer = self._make(method, request, peer, reading)
            if len(self._answers) >= _MOST:
                self._answers.clear()
            self._answers[asked] = answer, request.account
            return answer
        request.concern(known[1])
        return known[0]

    def clear(self) -> None:
        """Keep none."""
        self._answers.clear()

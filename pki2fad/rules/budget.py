"""Refuses callers that gave too many wrong codes, and remembers whom it refused."""

import math

from pki2fad.errors import Throttled
from pki2fad.rules.clock import Reading
from pki2fad.rules.refusals import Attempt, Refusals
from pki2fad.rules.tally import Tally
from pki2fad.rules.throttle import Key, Throttle
from pki2fad.times import moment


class Budget:
    """What callers have left."""

    def __init__(self, throttle: Throttle) -> None:
        self.refusals = Refusals()
        self._throttle = throttle

    def require(self, key: Key, tally: Tally, cost: int, reading: Reading, attempt: Attempt) -> None:
        """Raise `Throttled` if a failure of this cost does not fit into the budget."""
        wait = self._throttle.wait(key, tally, cost, self._throttle.now(reading))
        if wait > 0:
            until = math.ceil(reading.wall + wait)
            self.refusals.add(attempt, int(reading.wall), until)
            raise Throttled(f"there were too many wrong codes; try again at {moment(until)}", math.ceil(wait))

"""The watermarks of seeds that are gone, for when one comes back."""

import math
from typing import NamedTuple

from pki2fad.rules import otp
from pki2fad.rules.account import Account
from pki2fad.rules.clock import REMEMBERED
from pki2fad.rules.pieces import Pieces, in_pieces

_AT_LEAST = 1024  # that are kept before any is looked at: it may be too old
_FORGOTTEN_AT_ONCE = 4  # of those, when one more comes


class Watermark(NamedTuple):
    """How far the codes of a seed are spent."""

    step: int  # the last that was accepted
    period: int  # seconds


class Gone(dict[bytes, Watermark]):
    """The watermarks by the digests of their seeds."""

    def __init__(self) -> None:
        super().__init__()
        self._forget_above = _AT_LEAST
        self._looked_through: list[bytes] = []  # those that may still be too old

    def last_step(self, digest: bytes) -> int:
        """The watermark of a seed, -1 if it is not known."""
        watermark = self.get(digest)
        return -1 if watermark is None else watermark.step

    def remember(self, account: Account, wall: float) -> None:
        """Keep the watermarks of an account and its successor."""
        for seed in account.seeds:
            last_step = max(seed.last_step, self.last_step(seed.digest))
            self[seed.digest] = Watermark(last_step, seed.parameters.period)
        self._forget_some(wall)

    def _forget_some(self, wall: float) -> None:
        """Forget watermarks that are too old, a few at a time: all of them would take long."""
        if not self._looked_through:
            if len(self) <= self._forget_above:
                return
            self._looked_through = [*self]
        for digest in self._looked_through[-_FORGOTTEN_AT_ONCE:]:
            step, period = self[digest]
            if step < first_remembered(period, wall):
                del self[digest]
        del self._looked_through[-_FORGOTTEN_AT_ONCE:]
        if not self._looked_through:
            self._forget_above = 2 * len(self) + _AT_LEAST

    def lower(self, wall: float) -> Pieces[None]:
        """Lower every watermark to the end of the widest window around this time."""
        for some in in_pieces(list(self.items())):
            for digest, (step, period) in some:
                end = otp.step_at(wall, period) + otp.WINDOW + otp.MAX_OFFSET
                self[digest] = Watermark(min(step, end), period)
            yield


def first_remembered(period: int, wall: float) -> int:
    """The lowest watermark of a removed seed that must still be known at this time.

    A lower one is more than a day old: only a clock that is set back further could accept its codes.
    """
    return math.ceil((wall - REMEMBERED) / period) - 1 - otp.WINDOW

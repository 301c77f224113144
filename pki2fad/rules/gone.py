"""The watermarks of seeds that are gone, for when one comes back."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from pki2fad.rules import otp
from pki2fad.rules.authenticator import Authenticator
from pki2fad.rules.clock import REMEMBERED
from pki2fad.rules.pieces import Pieces, in_pieces

_AT_LEAST = 1024  # that are kept before any is looked at: it may be too old
_FORGOTTEN_AT_ONCE = 4  # of those, when one more comes


class Watermark(NamedTuple):
    """How far the codes of a seed are spent."""

    step: int  # the last that was accepted, or counter
    period: int  # seconds; 0 for HOTP


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

    def remember(self, seeds: Iterable[Authenticator], wall: float) -> None:
        """Keep the watermarks of seeds."""
        for seed in seeds:
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
            if is_forgotten(step, period, wall):
                del self[digest]
        del self._looked_through[-_FORGOTTEN_AT_ONCE:]
        if not self._looked_through:
            self._forget_above = 2 * len(self) + _AT_LEAST

    def lower(self, wall: float) -> Pieces[None]:
        """Lower every watermark to the end of the widest window around this time."""
        for some in in_pieces(list(self.items())):
            for digest, (step, period) in some:
                if not period:
                    continue
                end = otp.step_at(wall, period) + otp.WINDOW + otp.MAX_OFFSET
                self[digest] = Watermark(min(step, end), period)
            yield


def is_forgotten(step: int, period: int, wall: float) -> bool:
    """True for a watermark that is not needed any more. A counter is remembered for ever."""
    return period > 0 and step < first_remembered(period, wall)


def first_remembered(period: int, wall: float) -> int:
    """The lowest watermark of a removed seed that must still be known at this time.

    A lower one is more than a day old: only a clock that is set back further could accept its codes.
    """
    return math.ceil((wall - REMEMBERED) / period) - 1 - otp.WINDOW

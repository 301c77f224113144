"""What the log says of decisions: who asked for what, and how it was answered.

Those of peers that have a role are all logged. What anybody can cause is bounded.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pki2fad import log
from pki2fad.access import Peer
from pki2fad.changes import PROMOTED, REPLAYED, STALE, WRONG, Answer
from pki2fad.clock import Reading
from pki2fad.wire import Request

# Log lines in one second about what one uid did wrong. Others would be hidden among more, and a disk
# that is full of them keeps no watermark.
NOISE_PER_SECOND = 20

# Wrong codes in one second of which the steps near the window are looked up.
STALE_LOOKUPS_PER_SECOND = 5

_METHOD_LOGGED = 32  # characters of what a client calls a method; those that exist are shorter


class DecisionLog:
    """Writes decisions to the log; `is_stale` says of an account, a code and a time what `Agent` does."""

    def __init__(self, is_stale: Callable[[str, str, Reading], bool]) -> None:
        self._is_stale = is_stale
        self._noise = _Noise()
        self._lookups = _Lookups()

    def add(self, request: Request, peer: Peer, answer: Answer, reading: Reading) -> None:
        """Log the answer to a request, which has left or is about to."""
        fields: dict[str, Any] = {"pid": peer.pid}
        if answer.account:
            fields["account"] = answer.account
        refusal = answer.refusal
        if refusal is not None:
            method = request.method[:_METHOD_LOGGED]
            self.warning(peer.uid, "refused", method=method, **fields, code=refusal.code, reason=refusal)
        elif request.method in ("verify", "enroll_confirm"):
            self._add_verdict(request, peer, answer, reading, fields)
        elif request.method != "status" and not answer.quiet:
            log.info(request.method, uid=peer.uid, **fields)

    def warning(self, uid: int, event: str, **fields: object) -> None:
        """Log what a uid did wrong, a bounded number of times in each second."""
        self._noise.warning(uid, event, **fields)

    def _add_verdict(
        self, request: Request, peer: Peer, answer: Answer, reading: Reading, fields: dict[str, Any]
    ) -> None:
        assert request.args is not None
        if request.args.get("origin"):
            fields["origin"] = request.args["origin"]
        fields["valid"] = answer.result["valid"]
        if answer.reason == REPLAYED:  # somebody may be in the middle
            self.warning(peer.uid, request.method, **fields, reason=REPLAYED)
        elif answer.reason == WRONG:  # the answer leaves first
            # Whatever fails there, a request does not show its code.
            asyncio.get_running_loop().call_soon(self._add_wrong, peer.uid, fields, request, reading)
        elif answer.reason == PROMOTED:
            log.info(request.method, uid=peer.uid, **fields, reason=PROMOTED)
        else:
            log.info(request.method, uid=peer.uid, **fields)

    def _add_wrong(self, uid: int, fields: dict[str, Any], request: Request, reading: Reading) -> None:
        assert request.args is not None
        name, code = fields["account"], request.args["code"]
        stale = self._lookups.allow() and self._is_stale(name, code, reading)
        log.info(request.method, uid=uid, **fields, reason=STALE if stale else WRONG)


class _Noise:
    """Warnings about single uids, a bounded number in each second."""

    def __init__(self) -> None:
        self._second = 0
        self._written: Counter[int] = Counter()  # in this second, by uid

    def warning(self, uid: int, event: str, **fields: object) -> None:
        second = int(time.monotonic())
        if second != self._second:
            for silenced, written in self._written.items():
                if written > NOISE_PER_SECOND:
                    log.warning("not_logged", uid=silenced, warnings=written - NOISE_PER_SECOND)
            self._second = second
            self._written.clear()
        self._written[uid] += 1
        if self._written[uid] <= NOISE_PER_SECOND:
            log.warning(event, uid=uid, **fields)


class _Lookups:
    """A bounded number in each second."""

    def __init__(self) -> None:
        self._second = 0
        self._done = 0

    def allow(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._done = second, 0
        self._done += 1
        return self._done <= STALE_LOOKUPS_PER_SECOND

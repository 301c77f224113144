"""Logs and counts requests: who asked for what, and what the answer was.

Those of peers that have a role are all logged. What anybody can cause is bounded. What changed accounts,
keys or settings, or was to, has a field `audit`.
"""

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pki2fad.host import log
from pki2fad.host.logline import line
from pki2fad.methods.metrics import Metrics
from pki2fad.methods.table import INVALID, METHODS, OK, UNKNOWN
from pki2fad.rules.access import Peer
from pki2fad.rules.changes import NEAR, REPLAYED, WRONG, Answer
from pki2fad.rules.clock import Reading
from pki2fad.server.payer import STRANGERS, PayerKey
from pki2fad.wire.messages import Request

# Log lines in one second about what one payer did wrong: a uid with a role, or all callers without one. More
# would hide the lines about others, and a disk that is full of them keeps no watermark.
NOISE_PER_SECOND = 20

# Seconds for which lines about ordinary verdicts may wait for others: a write for each would take as long as
# the verdict. Whatever is worth a warning is written at once, and they before it.
WITHIN = 0.002

# Wrong codes in one second of which the steps near the window are looked up.
NEAR_LOOKUPS_PER_SECOND = 5

_METHOD_LOGGED = 32  # characters of what a client calls a method; those that exist are shorter


class RequestLog:
    """Logs and counts requests with their answers.

    `steps_off` says of an account, a code and a time what `Agent` does; `payer_of` says who pays for a peer.
    """

    def __init__(
        self,
        steps_off: Callable[[str, str, Reading], int | None],
        metrics: Metrics,
        payer_of: Callable[[Peer], PayerKey],
    ) -> None:
        self._steps_off = steps_off
        self._payer_of = payer_of
        self._metrics = metrics
        self._noise = _Noise()
        self._lookups = _Lookups()
        self._waiting = False  # some lines are

    def add(self, request: Request, peer: Peer, answer: Answer, reading: Reading, ready: float) -> None:
        """Log and count the answer to a request, which has left or is about to.

        `reading` is of when the request was taken up, `ready` what `clock.boot` said when it was answered.
        """
        method, refusal = request.method, answer.refusal
        of = METHODS.get(method, UNKNOWN)
        if refusal is None and not answer.audit and not of.verdict:
            self._metrics.add(method, OK, ready - reading.boot)
            if not of.look and not answer.quiet:
                self._later(_usual(method, peer.uid, peer.pid, request.account))
            return
        if refusal is not None:
            outcome = refusal.code
        elif of.verdict:
            outcome = OK if answer.result["valid"] else INVALID
        else:
            outcome = OK
        self._metrics.add(method, outcome, ready - reading.boot)
        if refusal is not None and not self._noise.allows(self._payer_of(peer)):
            return
        fields: dict[str, Any] = {"pid": peer.pid}
        if request.account:
            fields["account"] = request.account
        if answer.audit:
            fields["audit"] = answer.audit
        if refusal is not None:
            method = method[:_METHOD_LOGGED]
            log.warning("refused", uid=peer.uid, method=method, **fields, code=refusal.code, reason=refusal)
        elif of.verdict:
            self._add_verdict(request, peer, answer, reading, fields)
        else:
            log.audit(method, uid=peer.uid, **fields, **(answer.details or {}))

    def _later(self, text: str) -> None:
        """Have a line written in a moment, with those of others."""
        log.later(text)
        if not self._waiting:
            self._write_soon()

    def _write_soon(self) -> None:
        self._waiting = True
        asyncio.get_running_loop().call_later(WITHIN, self._write)

    def _write(self) -> None:
        self._waiting = False
        log.flush()

    def warning(self, peer: Peer, event: str, **fields: object) -> None:
        """Log what a client did wrong, a bounded number of times in each second for its payer."""
        if self._noise.allows(self._payer_of(peer)):
            log.warning(event, uid=peer.uid, **fields)

    def _add_verdict(
        self, request: Request, peer: Peer, answer: Answer, reading: Reading, fields: dict[str, Any]
    ) -> None:
        assert request.args is not None
        if request.args.get("origin"):
            fields["origin"] = request.args["origin"]
        fields["valid"] = answer.result["valid"]
        if answer.matched is not None:
            fields["authenticator"] = answer.matched
        if answer.reason == REPLAYED:  # somebody may be in the middle
            self.warning(peer, request.method, **fields, reason=REPLAYED)
        elif answer.reason == WRONG:
            if self._lookups.allow(reading):  # the answer leaves first
                # Whatever fails there, a request does not show its code.
                asyncio.get_running_loop().call_soon(self._add_wrong, peer.uid, fields, request, reading)
            else:
                self._later(_line(request.method, peer.uid, *fields.items(), ("reason", WRONG)))
        elif answer.audit:
            log.audit(request.method, uid=peer.uid, **fields, **(answer.details or {}))
        else:
            self._later(_line(request.method, peer.uid, *fields.items()))

    def _add_wrong(self, uid: int, fields: dict[str, Any], request: Request, reading: Reading) -> None:
        assert request.args is not None
        name, code = fields["account"], request.args["code"]
        steps = self._steps_off(name, code, reading)
        why = [("reason", WRONG)] if steps is None else [("reason", NEAR), ("steps", f"{steps:+d}")]
        self._later(_line(request.method, uid, *fields.items(), *why))


@functools.lru_cache(maxsize=1024)
def _usual(method: str, uid: int, pid: int, account: str | None) -> str:
    """The line of what was carried out and changed nothing."""
    return line(method, {"uid": uid, "pid": pid, **({"account": account} if account else {})})


@functools.lru_cache(maxsize=1024)
def _line(method: str, uid: int, *fields: tuple[str, Any]) -> str:
    """That of a peer about an account is the same again and again."""
    return line(method, {"uid": uid, **dict(fields)})


class _Noise:
    """Warnings about single payers, a bounded number in each second."""

    def __init__(self) -> None:
        self._second = 0
        self._written: Counter[PayerKey] = Counter()  # in this second

    def allows(self, payer: PayerKey) -> bool:
        """Count one more; True if it is logged."""
        second = int(time.monotonic())
        if second != self._second:
            for silenced, written in self._written.items():
                if written > NOISE_PER_SECOND:
                    who = "all without a role" if silenced == STRANGERS else silenced.uid
                    log.warning("not_logged", uid=who, warnings=written - NOISE_PER_SECOND)
            self._second = second
            self._written.clear()
        self._written[payer] += 1
        return self._written[payer] <= NOISE_PER_SECOND


class _Lookups:
    """A bounded number in each second."""

    def __init__(self) -> None:
        self._second = 0
        self._done = 0

    def allow(self, reading: Reading) -> bool:
        second = int(reading.boot)
        if second != self._second:
            self._second, self._done = second, 0
        self._done += 1
        return self._done <= NEAR_LOOKUPS_PER_SECOND

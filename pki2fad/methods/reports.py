"""What callers see of the daemon and its accounts: the methods `status`, `accounts` and `metrics`."""

import os
from collections.abc import Callable
from typing import Any

from pki2fad import __version__
from pki2fad.methods.health import Health
from pki2fad.methods.metrics import Metrics
from pki2fad.rules.account import Account
from pki2fad.rules.changes import Answer, Work
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.pieces import in_pieces, sorted_names
from pki2fad.rules.throttle import Throttle
from pki2fad.rules.verifier import Verifier
from pki2fad.wire import messages
from pki2fad.wire.messages import Encoded


class Reports:
    """Describes the daemon, which runs since `started`. The agent decides how much a caller may see."""

    def __init__(
        self,
        keyring: Keyring,
        throttle: Throttle,
        watch: Watch,
        verifier: Verifier,
        *,
        health: Health,
        metrics: Metrics,
        started: Reading,
    ) -> None:
        self._keyring = keyring
        self._throttle = throttle
        self._watch = watch
        self._verifier = verifier
        self._health = health
        self._metrics = metrics
        self._started = started

    def status(self, reading: Reading, *, reasons: bool = False) -> dict[str, Any]:
        """What every caller may know; with `reasons` also why there is trouble."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": int(self._started.wall),
            "uptime": int(reading.boot - self._started.boot),
            "ready": True,
            "accounts": len(self._keyring.accounts),
            "locked": self._keyring.locked,
            "throttling": self._throttle.enabled,
            "clock": "synchronised" if self._watch.synchronised else "unknown",
            "clock_behind": int(self._watch.behind(reading.wall)),
            "unavailable_until": self._verifier.unavailable_until(reading),
            "log_dropped": self._health.lines_dropped(),
            "trouble": self._health.troubles(reasons=reasons),
        }

    def metrics(self, reading: Reading) -> dict[str, Any]:
        """The status, and the counts since the start."""
        return {**self.status(reading), **self._metrics.read()}

    def accounts(self, is_shown: Callable[[str], bool], reading: Reading) -> Answer:
        """The accounts whose names may be shown, by name."""
        return Answer(work=self._list(is_shown, reading))

    def _list(self, is_shown: Callable[[str], bool], reading: Reading) -> Work:
        accounts = dict(self._keyring.accounts)
        parts: list[bytes] = []
        count = 0
        names = yield from sorted_names(accounts)
        for some in in_pieces(names):
            shown = [_listed(accounts[name].settled(reading.wall)) for name in some if is_shown(name)]
            parts.append(b"".join(map(messages.encode, shown)))
            count += len(shown)
            yield None
        return Answer(Encoded([messages.encode_list_start(count), *parts]))


def _listed(account: Account) -> dict[str, Any]:
    """What administrators see of an account."""
    successor = account.successor
    return {
        "account": account.name,
        **account.parameters.fields,
        "last_used": account.last_used,
        "offset": account.offset,
        "drift": account.drifts,
        "successor": successor
        and {
            **successor.authenticator.parameters.fields,
            "deadline": successor.deadline,
            "cutover": successor.cutover,
        },
    }

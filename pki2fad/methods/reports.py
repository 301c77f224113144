"""What callers see of the daemon and its accounts: the methods `status`, `accounts` and `metrics`."""

import fnmatch
import os
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from pki2fad import __version__
from pki2fad.errors import BadRequest
from pki2fad.methods.health import Health
from pki2fad.methods.listing import listed
from pki2fad.methods.metrics import Metrics
from pki2fad.rules.changes import Answer, Work
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.pieces import in_pieces, sorted_names
from pki2fad.rules.throttle import Throttle
from pki2fad.rules.verifier import Verifier
from pki2fad.wire import messages
from pki2fad.wire.messages import Encoded

_LONGEST_PATTERN = 256  # characters
_NAMES = 1024  # that are looked at in one piece, and how many rows are made: a millisecond or two
_NAMES_TO_MATCH = 256  # with a pattern: of the slowest, a name takes 16 microseconds
_ROWS = 64


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

    def accounts(self, args: Mapping[str, Any], is_shown: Callable[[str], bool], reading: Reading) -> Answer:
        """The accounts whose names may be shown and are asked for, by name. Raises `BadRequest`."""
        pattern, limit = args.get("match"), args.get("limit")
        if pattern is not None and len(pattern) > _LONGEST_PATTERN:
            raise BadRequest(f"a pattern has at most {_LONGEST_PATTERN} characters")
        if limit is not None and limit < 1:
            raise BadRequest("limit must be 1 or more")
        matches = None if pattern is None else re.compile(fnmatch.translate(pattern)).match
        after = args.get("after", "")

        def is_wanted(name: str) -> bool:
            # What is not shown meets no pattern: a slow one would tell by its time which names there are.
            return name > after and is_shown(name) and (matches is None or matches(name) is not None)

        at_once = _NAMES if matches is None else _NAMES_TO_MATCH
        return Answer(work=self._list(is_wanted, at_once, limit, reading))

    def _list(
        self, is_wanted: Callable[[str], bool], at_once: int, limit: int | None, reading: Reading
    ) -> Work:
        accounts = dict(self._keyring.accounts)
        wanted: list[str] = []
        for some in in_pieces(accounts, at_once):
            wanted += filter(is_wanted, some)
            yield None
        parts: list[bytes] = []
        names = yield from sorted_names(wanted)
        count = len(wanted) if limit is None else min(limit, len(wanted))
        for some in in_pieces(islice(names, count), _ROWS):
            shown = [listed(accounts[name].settled(reading.wall)) for name in some]
            parts.append(b"".join(map(messages.encode, shown)))
            yield None
        return Answer(Encoded([messages.encode_list_start(count), *parts]))

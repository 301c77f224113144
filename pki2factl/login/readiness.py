"""Checks that the daemon can verify codes now, before a user is asked for one."""

import contextlib
import math
import time

from pki2fad.client import Client
from pki2fad.errors import Forbidden, Locked, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def require_unlocked(client: Client) -> "dict[str, Any]":
    """Return the status of the daemon. Raises `Locked` if it can check no code now."""
    status = client.status()
    if status["locked"]:
        raise Locked("the daemon is locked and cannot check codes; unlock it with: pki2factl unlock")
    return status


def require_somebody(path: str | None) -> None:
    """Raise `NotReachable` or `Locked` if nobody can check a code at this socket, or at the usual ones."""
    with contextlib.suppress(Forbidden), Client(path) as client:  # verify.sock tells no status
        require_unlocked(client)


def require(client: Client) -> None:
    """Raise `Locked` or `Unavailable` if the daemon cannot check codes now."""
    until = require_unlocked(client)["unavailable_until"]
    if until is not None:
        raise Unavailable(
            "codes cannot be checked yet: some may have been used without a record",
            max(1, math.ceil(until - time.time())),
        )

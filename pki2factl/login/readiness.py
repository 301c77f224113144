"""Checks that the daemon can verify codes now, before a user is asked for one."""

import math
import time

from pki2fad.client import Client
from pki2fad.errors import Locked, Unavailable


def require(client: Client) -> None:
    """Raise `Locked` or `Unavailable` if the daemon cannot check codes now."""
    status = client.status()
    if status["locked"]:
        raise Locked("the daemon is locked and cannot check codes; unlock it with: pki2factl unlock")
    until = status["unavailable_until"]
    if until is not None:
        raise Unavailable(
            "codes cannot be checked yet: some may have been used without a record",
            max(1, math.ceil(until - time.time())),
        )

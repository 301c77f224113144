"""How much memory the daemon may need, and how much its control group lets it have."""

import os

from pki2fad.host.systemd import own_group
from pki2fad.server.payer import POOL
from pki2fad.wire.messages import RESPONSE_LIMIT

# Bytes, measured with 100 000 accounts: the programs, and for each account what is kept and what a restore of
# all of them takes for a moment. `MemoryMax=` of the unit is for 100 000 accounts.
_PROGRAMS = 64 * 1024 * 1024
_ACCOUNT = 2400


def needed(accounts: int) -> int:
    """Bytes that may be needed: with the pool, one long answer and one upload of a backup."""
    return _PROGRAMS + accounts * _ACCOUNT + POOL + 2 * RESPONSE_LIMIT


def limit(proc: str = "/proc/self/cgroup", groups: str = "/sys/fs/cgroup") -> int | None:
    """Bytes that the control group (version 2) and those above it allow, None where there is no limit."""
    path = own_group(proc)
    limits = []
    while path:
        try:
            with open(f"{groups}{path.rstrip('/')}/memory.max", encoding="ascii") as file:
                limits.append(int(file.read()))
        except (OSError, ValueError):  # "max", or a kernel that counts no memory
            pass
        path = os.path.dirname(path) if path != "/" else ""  # in a container the limit is that of its root
    return min(limits, default=None)

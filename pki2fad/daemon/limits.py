"""What the system lets the daemon have, memory and descriptors, and what it needs."""

import os
import resource

from pki2fad.daemon.config import ServerConfig
from pki2fad.errors import ConfigError
from pki2fad.host import log
from pki2fad.host.systemd import own_group
from pki2fad.server.admission import ROOT_RESERVE
from pki2fad.server.payer import POOL
from pki2fad.wire.messages import RESPONSE_LIMIT

# Bytes, measured with 100 000 accounts: the programs, and for each account what is kept and what a restore of
# all of them takes for a moment. `MemoryMax=` of the unit is for 100 000 accounts.
_PROGRAMS = 64 * 1024 * 1024
_ACCOUNT = 2400

# Descriptors that are not counted connections: the state, logs, the loop, those being accepted or refused,
# and those that root may open beyond the caps.
_OTHER_DESCRIPTORS = 160 + ROOT_RESERVE

# With fewer connections than this a few clients that leave theirs open would keep all others out.
_LEAST_CONNECTIONS = 128


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


def connections(settings: ServerConfig) -> tuple[int, int]:
    """The caps for all connections and for each uid, lowered where there are too few descriptors for them.

    Raises `ConfigError` where so few are left that a handful of clients would keep all others out.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted, most_of_uid = settings.max_connections, settings.max_connections_per_uid
    possible = wanted if hard == resource.RLIM_INFINITY else hard - _OTHER_DESCRIPTORS
    if possible >= wanted:
        return wanted, most_of_uid
    if possible < _LEAST_CONNECTIONS:
        least = min(wanted, _LEAST_CONNECTIONS) + _OTHER_DESCRIPTORS
        raise ConfigError(
            f"the limit of descriptors is {hard}, and the daemon needs at least {least}: raise it with"
            f" LimitNOFILE= of the unit, or ulimit -n"
        )
    log.warning("fewer_connections", wanted=wanted, possible=possible, reason="descriptor limit")
    return possible, min(most_of_uid, possible // 2)  # no uid may take all that there are


def check_memory(accounts: int) -> None:
    """Warn if the control group allows less memory than so many accounts need."""
    allowed, wanted = limit(), needed(accounts)
    if allowed is not None and allowed < wanted:
        log.warning(
            "memory_limit",
            allowed=f"{allowed >> 20}M",
            needed=f"{wanted >> 20}M",
            reason=f"too little for {accounts} accounts under load: raise MemoryMax= of the unit",
        )

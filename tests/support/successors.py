"""A host's account with a successor: what the tests of successors do with it."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from pki2fad.rules.otp import Parameters
from support.agents import OTHER_SEED, sealed
from support.host import Host

NEW = Parameters("SHA256", 8, 60)  # of the successor, which has OTHER_SEED
HOUR = 3600


def succeed(host: Host, seed: bytes = OTHER_SEED, of: Parameters = NEW, **args: Any) -> bool:
    """Load a successor: True if that changed something."""
    parameters = {"algorithm": of.algorithm, "digits": of.digits, "period": of.period}
    return bool(host.call("load", successor=True, sealed=sealed(seed), **parameters, **args)["changed"])


def in_hours(host: Host, hours: float) -> int:
    return int(host.wall + hours * HOUR)


def old_is_good(host: Host, ahead: int = 0) -> bool:
    return host.verify(host.step() + ahead)


def new_is_good(host: Host, ahead: int = 0) -> bool:
    return host.verify(host.step(NEW.period) + ahead, seed=OTHER_SEED, of=NEW)


def listed(host: Host) -> dict[str, Any]:
    (row,) = host.call("accounts")
    return dict(row)


def use_due(host: Host) -> int:
    """What the service's timer does: how many edits were due."""
    edits = [edit for edit, _ in host.agent.due(host.reading)]
    host.keep(*edits)
    return len(edits)


def rows(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as database:
        ((count,),) = database.execute(f"SELECT count(*) FROM {table}")
    return int(count)

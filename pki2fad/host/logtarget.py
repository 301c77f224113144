"""Tells readers where a log is: in a file, the journal, a terminal, or a stream of another program."""

import os
import stat
from typing import Any

from pki2fad.host.systemd import own_group


def is_journal(descriptor: int) -> bool:
    """True if the descriptor leads to the journal. systemd passes the numbers of that socket."""
    status = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def of(descriptor: int) -> dict[str, Any]:
    """The field `log` of `status` (see PROTOCOL.md) for an open descriptor."""
    if is_journal(descriptor):
        return {"kind": "journal", "uid": os.geteuid(), **_unit(own_group() or "")}
    status = os.fstat(descriptor)
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if stat.S_ISREG(status.st_mode):
        return of_file(name, status)
    return {"kind": "terminal" if os.isatty(descriptor) else "stream", "path": name}


def of_file(path: str, status: os.stat_result) -> dict[str, Any]:
    """The same for a regular file, with its numbers: the path may lead readers to another file."""
    return {
        "kind": "file",
        "uid": os.geteuid(),
        "path": path,
        "device": status.st_dev,
        "inode": status.st_ino,
    }


def _unit(group: str) -> dict[str, str | None]:
    """The unit under whose name the journal has the lines, and whether it is a user's own.

    In the control group of a process the first part that is no slice is the unit, or a user's manager,
    followed by the user's unit.
    """
    parts = [part for part in group.split("/") if part and not part.endswith(".slice")]
    manager = "user" if parts and parts[0].startswith("user@") else "system"
    units = parts[1:] if manager == "user" else parts
    # Other processes write under the name of a scope too, for example that of a login.
    return {"manager": manager, "unit": units[0] if units and units[0].endswith(".service") else None}

"""What tests ask of a path, or put there."""

import socket
import stat
from pathlib import Path


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def put_socket(path: Path) -> None:
    """A socket on which nobody listens."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))

"""What tests ask of a path, or put there."""

import contextlib
import gc
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def put_socket(path: Path) -> None:
    """A socket on which nobody listens."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@contextlib.contextmanager
def no_descriptor_stays_open() -> Iterator[None]:
    """Hold that the block leaves none open. Those of earlier tests may be closed in it."""
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before

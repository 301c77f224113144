"""Locks on files: one process at a time, and which one it is."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from pki2fad import files
from pki2fad.errors import AlreadyRunning, UnusablePath


@contextlib.contextmanager
def one_at_a_time(directory: str, doing: str) -> Iterator[None]:
    """Raise `AlreadyRunning` while another process is in this context for the same directory.

    `doing` says for the message what that one does. Nothing is left in the directory. Raises
    `UnusablePath`.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnusablePath(f"cannot open the directory {directory}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyRunning(f"another process {doing} in {directory}") from None
    finally:
        os.close(descriptor)


def lock(path: str, doing: str) -> int:
    """Take the lock file, with our pid in it, for as long as the returned descriptor is open.

    flock, because such a lock is kept by a forked child. Raises `UnusablePath`, and `AlreadyRunning`
    where another one has it; `doing` says for the message what that one does.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, files.PRIVATE)
    except OSError as error:
        raise UnusablePath(f"cannot open the lock {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise AlreadyRunning(f"another pki2fad (pid {pid}) {doing}") from None
    except OSError as error:
        os.close(descriptor)
        raise UnusablePath(f"cannot write the lock {path}: {error.strerror}") from None
    return descriptor

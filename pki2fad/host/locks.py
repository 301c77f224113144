"""Locks on files: one process at a time holds one, and others learn which."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from pki2fad.errors import AlreadyRunning, UnusablePath
from pki2fad.host import files

# SQLite locks bytes of a database from here on (https://www.sqlite.org/lockingv3.html). In its -shm it locks
# those of writers, checkpoints, recovery and readers (https://www.sqlite.org/walformat.html).
_OF_DATABASE = 0x40000000
_OF_SHM = range(120, 128)


@contextlib.contextmanager
def one_at_a_time(directory: str, doing: str) -> Iterator[None]:
    """Raise `AlreadyRunning` while another process is in this context for the same directory.

    `doing` tells the message what that process does. Nothing stays in the directory. Raises
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

    It uses flock, since a forked child keeps such a lock. Raises `UnusablePath`, and `AlreadyRunning` if
    another process has it; `doing` tells the message what that process does.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, files.PRIVATE)
    except OSError as error:
        raise UnusablePath(f"cannot open the lock {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:  # its holder removed it, and others may have made a new one
            raise BlockingIOError
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


def sqlite_holder(path: str) -> str | None:
    """The process that keeps SQLite from a database, "pid 4711 (sqlite3)"; None if the kernel shows none.

    If nobody writes, a reader counts: it keeps the write-ahead log from being emptied. This reads
    /proc/locks, since fcntl needs a descriptor, and closing that drops SQLite's own locks.
    """
    database, shm = _inode(path), _inode(f"{path}-shm")
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as file:
        # 1: POSIX  ADVISORY  WRITE 4711 fe:00:2222810 120 120
        for kind, _, mode, pid, place, first, _ in (line.split()[1:] for line in file if "->" not in line):
            inode = int(place.rpartition(":")[2])  # without the device: stat may show another
            locked = (inode == shm and int(first) in _OF_SHM) or (
                inode == database and int(first) >= _OF_DATABASE and mode == "WRITE"
            )
            if kind == "POSIX" and locked and int(pid) != os.getpid():
                found.setdefault(mode, int(pid))
    holder = found.get("WRITE") or found.get("READ")
    return None if holder is None else f"pid {holder}{_command(holder)}"


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _command(pid: int) -> str:
    """The name of a process; "" if it is hidden, as other users' processes are from the unit."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return f" ({file.read().strip()})"
    return ""

"""Locks on files: one process at a time, and which one it is."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from pki2fad.errors import AlreadyRunning, UnusablePath
from pki2fad.host import files

# SQLite locks bytes of a database from here (https://www.sqlite.org/lockingv3.html), and of its -shm those
# of who writes, checkpoints, recovers and reads (https://www.sqlite.org/walformat.html).
_OF_DATABASE = 0x40000000
_OF_SHM = range(120, 128)


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
        if os.fstat(descriptor).st_nlink == 0:  # who had it removed it, and another may have made it anew
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
    """Which other process keeps SQLite from a database, "pid 4711 (sqlite3)"; None if the kernel shows none.

    A reader counts where nobody writes: it keeps the write-ahead log from being emptied. /proc/locks says
    it, and not fcntl: that takes a descriptor, and closing it drops the locks that SQLite has here.
    """
    database, shm = _inode(path), _inode(f"{path}-shm")
    found: dict[str, int] = {}
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as file:
        # 1: POSIX  ADVISORY  WRITE 4711 fe:00:2222810 120 120
        for kind, _, mode, pid, place, first, _ in (line.split()[1:] for line in file if "->" not in line):
            inode = int(place.rpartition(":")[2])  # alone: some file systems show another device to stat
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
    """What a process is called; nothing where that is hidden, as from the unit for those of other users."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return f" ({file.read().strip()})"
    return ""

"""Files: explicit modes, exclusive creation, atomic replacement, locks, destruction.

The one place that knows how a file is written so that nothing is lost: a temporary file beside it,
fsync, then a link or a rename, then fsync of the directory. Modes hold whatever the umask.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from pki2fad.errors import AlreadyRunning, UnusablePath

PRIVATE = 0o600  # keys, state, logs, otpauth URIs
PUBLIC = 0o644  # public keys, and sealed seeds, which only the host's key can open

# Anything that is read whole here (keys, sealed seeds, settings) is far smaller.
_READ_LIMIT = 1024 * 1024

# What is overwritten at a time: random bytes for a large file need not be in memory at once.
_SHRED_SIZE = 64 * 1024


def make_directory(path: str, mode: int | None = None) -> list[str]:
    """Make the directory and the parents that are missing; what is there stays as it is.

    `mode`, and that of parents always, is 0700, and 0755 for root, whose directories others have to
    enter. Returns the paths that were made, outermost first. Raises `UnusablePath`.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return []
    made = make_directory(os.path.dirname(path)) if os.path.dirname(path) != path else []
    if mode is None:
        mode = 0o755 if os.geteuid() == 0 else 0o700
    try:
        os.mkdir(path, mode)
        os.chmod(path, mode)
    except FileExistsError:  # made by another process meanwhile, or not a directory
        if not os.path.isdir(path):
            raise UnusablePath(f"{path} is in the way: it is not a directory") from None
        return made
    except OSError as error:
        raise UnusablePath(f"cannot make the directory {path}: {error.strerror}") from None
    return [*made, path]


def require_absent(*files_to_be: str | None) -> None:
    """Raise `UnusablePath` if one of these is there, before something else is made in vain."""
    for path in files_to_be:
        if path is not None and os.path.lexists(path):
            raise UnusablePath(f"{path} exists already; it is never overwritten")


def create(path: str, data: bytes, mode: int, like: os.stat_result | None = None) -> None:
    """Write a file that must not exist yet. Raises `UnusablePath`, also when it does.

    It gets the owner of `like`, which for another user than root has to be that user.
    """
    with _temporary(path, data, mode, like) as temporary:
        try:
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            raise UnusablePath(f"{path} exists already; it is never overwritten") from None


def replace(path: str, data: bytes, mode: int, expected: os.stat_result | None = None) -> None:
    """Write a file, in the place of one that may be there. Raises `UnusablePath`.

    With `expected` it must be that file which is there still, or nothing is done.
    """
    with _temporary(path, data, mode) as temporary:
        if expected is not None and not os.path.samestat(os.lstat(path), expected):
            raise UnusablePath(f"{path} is another file now than when this began; run this again")
        os.rename(temporary, path)


def take_place(new: str, path: str, old: str) -> None:
    """Rename `new` to `path`; what was there is called `old` then. Raises `UnusablePath`.

    There is a file of the name `path` at every moment. Again after an interruption it does the rest.
    """
    try:
        os.lstat(new)  # first: without it nothing may happen to the others
        if os.path.lexists(old) and not os.path.samefile(old, path):
            shred(old, os.lstat(old))
        with contextlib.suppress(FileExistsError):
            os.link(path, old, follow_symlinks=False)
        os.rename(new, path)
        sync_directory(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise UnusablePath(f"cannot put {new} in the place of {path}: {error.strerror}") from None


@contextlib.contextmanager
def _temporary(path: str, data: bytes, mode: int, like: os.stat_result | None = None) -> Iterator[str]:
    """A synced temporary file beside `path`; gone afterwards, and the directory synced."""
    directory = os.path.dirname(os.path.abspath(path))
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # of a killed process that had our pid
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                if like is not None:
                    os.fchown(descriptor, like.st_uid, like.st_gid)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        sync_directory(directory)
    except OSError as error:
        raise UnusablePath(f"cannot write {path}: {error.strerror}") from None


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


def remove_temporary(path: str) -> None:
    """Destroy what a process that was killed while it wrote `path` left. Nobody may be writing it."""
    directory, name = os.path.split(os.path.abspath(path))
    for entry in os.listdir(directory):
        if entry.startswith(f"{name}.") and entry.endswith(".tmp"):
            left = os.path.join(directory, entry)
            shred(left, os.lstat(left))


def sync_directory(path: str) -> None:
    """Make what was created, renamed or removed in the directory survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: str, limit: int = _READ_LIMIT) -> bytes:
    """The content of a regular file of at most a megabyte, or `limit` bytes. Raises `UnusablePath`."""
    return read_with_status(path, limit=limit)[0]


def read_with_status(
    path: str, *, follow_links: bool = True, limit: int = _READ_LIMIT
) -> tuple[bytes, os.stat_result]:
    """The content of a regular file, and the status of just the file that was read."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnusablePath(f"{path} is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnusablePath(f"cannot read {path}: {reason(error, path)}") from None
    if len(data) > limit:
        much = "a megabyte" if limit == _READ_LIMIT else f"{limit} bytes"
        raise UnusablePath(f"{path} is larger than {much}; it cannot be what is expected there")
    return data, status


def open_sole(path: str, flags: int, owner: int | None = None) -> int:
    """Open a regular file that has no other name, and this owner if one is given. Raises `OSError`.

    Neither a symbolic nor a hard link that somebody put there leads to another file, and nothing waits
    for the other end of a pipe.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags, PRIVATE)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or owner not in (None, status.st_uid):
        os.close(descriptor)
        whose = "" if owner is None else f" of uid {owner}"
        raise OSError(errno.EINVAL, f"not a regular file{whose} with this one name")
    return descriptor


def shred(path: str, status: os.stat_result) -> None:
    """Overwrite a regular file with random bytes, and remove it. Raises `UnusablePath`.

    `status` is that of the file when it was read, before a byte of it was: one that was changed or
    exchanged since is left as it is. If it has other names (hard links), they stay and show the random
    bytes. Not reached are copies that the storage itself keeps (flash, journals, copy on write),
    snapshots and backups.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            now = os.fstat(descriptor)
            if not stat.S_ISREG(now.st_mode):
                raise UnusablePath(f"cannot destroy {path}: it is not a regular file")
            if _version(now) != _version(status):
                raise UnusablePath(
                    f"{path} has changed since it was read; nothing of it was destroyed, run this again"
                )
            left = now.st_size
            while left > 0:
                left -= os.write(descriptor, os.urandom(min(left, _SHRED_SIZE)))
            os.fsync(descriptor)
            if not os.path.samestat(os.lstat(path), now):
                raise UnusablePath(f"{path} is overwritten, and another file has its name now, which stays")
            try:
                os.unlink(path)
            except OSError as error:
                raise UnusablePath(f"{path} is overwritten, but not removed: {error.strerror}") from None
        finally:
            os.close(descriptor)
        sync_directory(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise UnusablePath(f"cannot destroy {path}: {reason(error, path)}") from None


def _version(status: os.stat_result) -> tuple[int, ...]:
    """What tells a file, and what was in it at one time, from another."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def reason(error: OSError, path: str) -> str | None:
    """What the system says, or, of a symbolic link that is not followed, where it leads."""
    if error.errno == errno.ELOOP and os.path.islink(path):
        return f"it is a symbolic link; name the file itself, {os.path.realpath(path)}"
    return error.strerror


def others_may_write(status: os.stat_result) -> bool:
    """True unless the file belongs to root or to us, and nobody else may write it."""
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & 0o022)


def lock(path: str, doing: str) -> int:
    """Take the lock file, with our pid in it, for as long as the returned descriptor is open.

    flock, because such a lock is kept by a forked child. Raises `UnusablePath`, and `AlreadyRunning`
    where another one has it; `doing` says for the message what that one does.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
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

"""Files: explicit modes, exclusive creation, atomic replacement, destruction.

Only here files are written so that nothing is lost: to a temporary file beside the final one, with an fsync,
a link or rename, and an fsync of the directory. The umask does not change their modes.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from pki2fad.errors import UnusablePath

PRIVATE = 0o600  # keys, state, logs, otpauth URIs
PUBLIC = 0o644  # public keys, and sealed seeds, which only the host's key can open

# Files that are read whole (keys, sealed seeds, settings) are far smaller.
_READ_LIMIT = 1024 * 1024

# Bytes to overwrite at a time: random bytes for a large file need not be in memory at once.
_SHRED_SIZE = 64 * 1024


def make_directory(path: str, mode: int | None = None) -> list[str]:
    """Make a directory and its missing parents. Existing directories stay as they are.

    Parents, and the directory without a `mode`, get 0700; for root 0755, since others must enter them.
    Returns the paths that were made, outermost first. Raises `UnusablePath`.
    """
    usual = 0o755 if os.geteuid() == 0 else 0o700
    there = path = os.path.abspath(path)
    missing: list[str] = []
    while not os.path.isdir(there):
        there, name = os.path.split(there)
        missing.append(name)
    made: list[str] = []
    with contextlib.ExitStack() as opened:
        try:
            directory = _open_directory(opened, there)
            while missing:
                name = missing.pop()
                there = os.path.join(there, name)
                if _make_one(directory, name, usual if missing or mode is None else mode):
                    made.append(there)
                # A user who may rename it could have put a link in its place.
                directory = _open_directory(opened, name, directory)
        except NotADirectoryError:
            raise UnusablePath(f"{there} is in the way: it is not a directory") from None
        except OSError as error:
            raise UnusablePath(f"cannot make the directory {there}: {error.strerror}") from None
    return made


def _make_one(directory: int, name: str, mode: int) -> bool:
    """Make a directory that has its mode from the start. False if it exists."""
    umask = os.umask(0)
    try:
        os.mkdir(name, mode, dir_fd=directory)
    except FileExistsError:
        return False
    finally:
        os.umask(umask)
    return True


def _open_directory(opened: contextlib.ExitStack, path: str, directory: int | None = None) -> int:
    """A descriptor of a directory, for naming its entries. Within `directory` no link is followed."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | (0 if directory is None else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=directory)
    opened.callback(os.close, descriptor)
    return descriptor


def require_absent(*files_to_be: str | None) -> None:
    """Raise `UnusablePath` if one of these files exists, before other work is done."""
    for path in files_to_be:
        if path is not None and os.path.lexists(path):
            raise UnusablePath(f"{path} exists already; it is never overwritten")


def create(path: str, data: bytes, mode: int, like: os.stat_result | None = None) -> None:
    """Write a file that must not exist yet. Raises `UnusablePath`, also if it exists.

    It gets the owner of `like`. Only root can give a file to another user.
    """
    with _temporary(path, data, mode, like) as (directory, temporary, name):
        try:
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            raise UnusablePath(f"{path} exists already; it is never overwritten") from None


def replace(path: str, data: bytes, mode: int, expected: os.stat_result | None = None) -> None:
    """Write a file, and replace an existing one. Raises `UnusablePath`.

    With `expected` nothing is done unless the existing file still is that one.
    """
    with _temporary(path, data, mode) as (directory, temporary, name):
        if expected is not None and not os.path.samestat(_look(directory, name), expected):
            raise UnusablePath(f"{path} was replaced by another file meanwhile; run this again")
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def take_place(new: str, path: str, old: str) -> None:
    """Rename `new` to `path`, and the file that was there to `old`. Raises `UnusablePath`.

    There is a file `path` at every moment. After an interruption a second call does the rest.
    """
    try:
        os.lstat(new)  # first: without it the other files must stay
        if os.path.lexists(old) and not os.path.samefile(old, path):
            shred(old, os.lstat(old))
        with contextlib.suppress(FileExistsError):
            os.link(path, old, follow_symlinks=False)
        os.rename(new, path)
        sync_directory(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise UnusablePath(f"cannot put {new} in the place of {path}: {error.strerror}") from None


@contextlib.contextmanager
def _temporary(
    path: str, data: bytes, mode: int, like: os.stat_result | None = None
) -> Iterator[tuple[int, str, str]]:
    """A synced temporary file beside `path`, which is removed at the end. The directory is synced then.

    Gives the open directory, and the names of the temporary and of the final file in it.
    """
    try:
        with _directory_of(path) as (directory, name):
            temporary = f"{name}.{os.getpid()}.tmp"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)  # of a killed process that had our pid
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, mode, dir_fd=directory)
            try:
                with open(descriptor, "wb") as file:
                    os.fchmod(descriptor, mode)
                    if like is not None:
                        os.fchown(descriptor, like.st_uid, like.st_gid)
                    file.write(data)
                    file.flush()
                    os.fsync(descriptor)
                yield directory, temporary, name
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory)
            os.fsync(directory)
    except OSError as error:
        raise UnusablePath(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def _directory_of(path: str) -> Iterator[tuple[int, str]]:
    """The open directory of a file, wherever its path leads later, and the file's name in it."""
    above, name = os.path.split(path)
    directory = os.open(above or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory, name
    finally:
        os.close(directory)


def _look(directory: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def remove_temporary(path: str) -> None:
    """Destroy the temporary files of killed processes that wrote `path`. Nobody may be writing it now."""
    directory, name = os.path.split(os.path.abspath(path))
    for entry in os.listdir(directory):
        if entry.startswith(f"{name}.") and entry.endswith(".tmp"):
            left = os.path.join(directory, entry)
            shred(left, os.lstat(left))


def sync_directory(path: str) -> None:
    """Make new, renamed and removed names in the directory survive a crash of the machine."""
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
    """The content of a regular file, and the status of that very file."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        return read_open(os.open(path, flags), path, limit)
    except OSError as error:
        raise UnusablePath(f"cannot read {path}: {reason(error, path)}") from None


def read_open(descriptor: int, path: str, limit: int = _READ_LIMIT) -> tuple[bytes, os.stat_result]:
    """Do what `read_with_status` does, for a file that was opened by this path; closes it."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnusablePath(f"{path} is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        much = "a megabyte" if limit == _READ_LIMIT else f"{limit} bytes"
        raise UnusablePath(f"{path} is larger than {much}; it cannot be what is expected there")
    return data, status


def open_sole(path: str, flags: int, owner: int | None = None) -> int:
    """Open a regular file that has no other name, and this owner if one is given. Raises `OSError`.

    It follows no link that somebody put there, symbolic or hard, and never waits for the other end of a
    pipe.
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

    `status` is the file's before it was read: a file that was changed or replaced since stays as it is.
    Other names of it (hard links) stay, and show the random bytes. Copies by the storage itself (flash,
    journals, copy on write), snapshots and backups are not reached.
    """
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        with _directory_of(path) as (directory, name):
            descriptor = os.open(name, flags, dir_fd=directory)
            try:
                now = os.fstat(descriptor)
                if not stat.S_ISREG(now.st_mode):
                    raise UnusablePath(f"cannot destroy {path}: it is not a regular file")
                if _version(now) != _version(status):
                    raise UnusablePath(
                        f"{path} has changed since it was read; nothing of it was destroyed; run this again"
                    )
                _overwrite(descriptor, now.st_size)
                if not os.path.samestat(_look(directory, name), now):
                    raise UnusablePath(f"{path} is overwritten; another file has its name now, and stays")
            finally:
                os.close(descriptor)
            try:
                os.unlink(name, dir_fd=directory)
            except OSError as error:
                raise UnusablePath(f"{path} is overwritten, but not removed: {error.strerror}") from None
            os.fsync(directory)
    except OSError as error:
        raise UnusablePath(f"cannot destroy {path}: {reason(error, path)}") from None


def _overwrite(descriptor: int, size: int) -> None:
    while size > 0:
        size -= os.write(descriptor, os.urandom(min(size, _SHRED_SIZE)))
    os.fsync(descriptor)


def _version(status: os.stat_result) -> tuple[int, ...]:
    """A value that differs for another file, and for other content of the same file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def reason(error: OSError, path: str) -> str | None:
    """The system's text for an error; for a symbolic link that is not followed, where it leads."""
    if error.errno == errno.ELOOP and os.path.islink(path):
        return f"it is a symbolic link; name the file itself, {os.path.realpath(path)}"
    return error.strerror

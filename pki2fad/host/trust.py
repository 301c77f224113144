"""Decides who may write what a path names: settings, keys, seeds, state, maps, sockets, programs.

A group's write bit counts as others': it is also the mask of an access control list. This module is on
the client's path.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Generator

from pki2fad.errors import UnusablePath

_OTHERS_WRITE = 0o022
_NOBODY = 65534  # the kernel shows it for an owner that has no mapping here: it may be anybody

# Flags to read a file that is no link, without waiting for a writer.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

_MOST_LINKS = 40  # as many as the kernel follows
_MOST_LINKS_BENEATH = 8  # Kubernetes needs two: NAME -> ..data/NAME, and ..data -> ..DATE

# A path to show, the status, and a directory with the name in it.
_Part = tuple[str, os.stat_result, int, str]


def others_may_write(status: os.stat_result, owners: Collection[int] | None = None) -> bool:
    """True unless it belongs to one of `owners` (by default root and us) and no other user may write it."""
    owners = (0, os.geteuid()) if owners is None else owners
    return status.st_uid == _NOBODY or status.st_uid not in owners or _is_open(status)


def group_may_write(status: os.stat_result) -> bool:
    """True if a file's group may write it, or connect to a socket."""
    return status.st_mode & stat.S_IWGRP != 0


def objection(status: os.stat_result) -> str | None:
    """The reason to refuse a file, to follow its name; None if only root and we may write it."""
    if not others_may_write(status):
        return None
    return (
        "must belong to root or to the user who runs pki2fad, and nobody else may write it"
        f" (it has uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o})"
    )


def objection_to_entries(directory: int) -> str | None:
    """Do what `objection` does, for an open directory whose entries are checked for their owner.

    Such a directory may have mode 1777 if it is mounted read-only, like Secrets of Kubernetes: nobody can
    replace another user's entry there.
    """
    status = os.fstat(directory)
    fixed = status.st_mode & stat.S_ISVTX and os.fstatvfs(directory).f_flag & os.ST_RDONLY
    return None if fixed and status.st_uid in (0, os.geteuid()) else objection(status)


def open_beneath(directory: int, name: str) -> int:
    """Open a regular file of a directory for reading, also through links that stay beneath the directory.

    Every link, directory and file on the way must belong to root or us, and only we may write it. Raises
    `UnusablePath` and `OSError`.
    """
    with contextlib.closing(_parts(name, directory, "", beneath=True)) as parts:
        for place, status, above, part in parts:
            why = objection(status)
            if why is not None:
                raise UnusablePath(f"{place} {why}")
            if not (stat.S_ISLNK(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                return os.open(part, _READ, dir_fd=above)
    raise UnusablePath("it is a directory, or leads to one")


def open_owned(path: str, owners: Collection[int]) -> int:
    """Open a regular file of one of these users for reading, through no link anywhere in its path.

    Raises `UnusablePath`.
    """
    why = f"it is not a regular file of uid {' or '.join(map(str, sorted(owners)))}"
    try:
        with contextlib.closing(_from_root(os.path.abspath(path))) as parts:
            for place, status, above, part in parts:
                if stat.S_ISLNK(status.st_mode):
                    why = f"{place} is a symbolic link"
                    break
                if not stat.S_ISDIR(status.st_mode):
                    file = os.open(part, _READ, dir_fd=above)
                    opened = os.fstat(file)
                    if stat.S_ISREG(opened.st_mode) and opened.st_uid in owners:
                        return file
                    os.close(file)
                    break
    except OSError as error:
        why = error.strerror or str(error)
    raise UnusablePath(f"cannot read {path}: {why}")


def owners(path: str) -> frozenset[int]:
    """The owners of the file at a path and of all directories that lead there: root and at most one other.

    Raises `UnusablePath` if there are more owners, if other users may write a directory, and for symbolic
    links. Raises `FileNotFoundError`.
    """
    if not path.startswith("/") or {".", ".."} & set(path.split("/")):
        raise UnusablePath(f"{path} is not a full path, from / on")
    missing = None
    found = {0}
    try:
        for place, status, *_ in _from_root(path):
            if stat.S_ISLNK(status.st_mode):
                raise UnusablePath(f"{path} is not safe: {place} is a symbolic link")
            if stat.S_ISDIR(status.st_mode) and _is_open(status):
                raise UnusablePath(f"{path} is not safe: others than its owner may write to {place}")
            found.add(status.st_uid)
    except FileNotFoundError as error:
        missing = error
    except OSError as error:
        raise UnusablePath(f"cannot look at {path}: {error.strerror}") from None
    if len(found) > 2 or _NOBODY in found:
        raise UnusablePath(f"{path} is not safe: it belongs to more than one user (uids {sorted(found)})")
    if missing is not None:
        raise missing
    return frozenset(found)


def ruler(path: str) -> os.stat_result | None:
    """The status of the first component of a path that does not belong to root; None if root owns all.

    Its owner can replace everything below at any moment. None, too, if we are not root. Raises `UnusablePath`
    if the directory is missing, and for root if two users own components, or anybody may write one.
    """
    directory, name = os.path.split(os.path.join(os.getcwd(), path))
    try:
        components = [(place, status) for place, status, *_ in _from_root(os.path.join(directory, ""))]
    except OSError as error:
        raise UnusablePath(f"there is no directory {directory} for {name}: {error.strerror}") from None
    with contextlib.suppress(OSError):
        components.append((path, os.lstat(path)))
    if os.geteuid() != 0:
        return None
    owner = None
    by_group = ""
    for component, status in components:
        if status.st_uid == 0:
            if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_ISVTX or not _is_open(status):
                continue
            if status.st_mode & stat.S_IWOTH:
                raise UnusablePath(f"{path} is not safe to write: anybody may write to {component}")
            by_group = by_group or component
        elif owner is None:
            owner = status
        elif owner.st_uid != status.st_uid:
            raise UnusablePath(
                f"{path} is not safe to write: {component} belongs to uid {status.st_uid}, and what leads"
                f" there to uid {owner.st_uid}"
            )
    # Ubuntu's /var/log is such a directory. A user's directory in it takes nothing from root.
    if owner is None and by_group:
        raise UnusablePath(f"{path} is not safe to write for root: its group may write to {by_group}")
    return owner


def require_roots(path: str) -> None:
    """Raise `UnusablePath` unless only root can write to the existing directories that lead to a path."""
    try:
        for place, status, *_ in _from_root(path):
            if others_may_write(status, (0,)):
                raise UnusablePath(f"{place} is not safe for programs: others than root can write there")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UnusablePath(f"cannot look at {path}: {error.strerror}") from None


def _is_open(status: os.stat_result) -> bool:
    """True if other users than its owner may write it. The mode of a link says nothing."""
    return not stat.S_ISLNK(status.st_mode) and bool(status.st_mode & _OTHERS_WRITE)


def _from_root(path: str) -> Generator[_Part, None, None]:
    """Each directory and link that leads to what a path names, from / on, and that itself, as `_parts`."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        yield "/", os.fstat(root), root, "."
        with contextlib.closing(_parts(path, root, "/", beneath=False)) as parts:
            yield from parts
    finally:
        os.close(root)


def _parts(path: str, top: int, name: str, *, beneath: bool) -> Generator[_Part, None, None]:
    """Each directory and link that leads from `top`, called `name`, to what a path names, and that itself.

    Yields a path to show, its status, and its open directory with its name there. The directory is closed
    when the next part is asked for. With `beneath` a way out of `top` raises `UnusablePath`; otherwise `top`
    is /.
    """
    above = [(top, name)]
    todo = path.split("/")[::-1]
    links = 0
    try:
        while todo:
            part = todo.pop()
            directory, place = above[-1]
            if part == "..":
                if len(above) > 1:
                    os.close(above.pop()[0])
                elif beneath:
                    raise UnusablePath("a link leads out of the directory")
            elif part not in ("", "."):
                here = os.path.join(place, part)
                status = os.stat(part, dir_fd=directory, follow_symlinks=False)
                yield here, status, directory, part
                if stat.S_ISLNK(status.st_mode):
                    links += 1
                    if links > (_MOST_LINKS_BENEATH if beneath else _MOST_LINKS):
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    target = os.readlink(part, dir_fd=directory)
                    from_top = [".."] * len(above) if target.startswith("/") else []
                    todo += target.split("/")[::-1] + from_top
                elif todo:
                    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                    above.append((os.open(part, flags, dir_fd=directory), here))
    finally:
        for directory, _ in above[1:]:
            os.close(directory)

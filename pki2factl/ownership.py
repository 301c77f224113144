"""Acting as whoever owns a place, so that root is not led elsewhere from there."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from pki2fad import memory
from pki2fad.errors import UnusablePath

_MOST_LINKS = 40  # as many as the kernel follows

Component = tuple[str, os.stat_result]


@contextlib.contextmanager
def as_owner_of(path: str) -> Iterator[None]:
    """As root, have the ids of the user who rules over a file's place; nothing changes for others.

    That is the first one other than root to whom a component of the path belongs. They can exchange
    what is below at any moment, so nothing is done there that they could not do themselves. Raises
    `UnusablePath` if there is no such directory, and for root where two users rule, or anybody may.
    """
    components = _components(path)
    owner = _owner(path, components) if os.geteuid() == 0 else None
    if owner is None:
        yield
        return
    groups, own_gid = os.getgroups(), os.getegid()
    try:
        try:
            os.setgroups([])
            os.setegid(owner.st_gid)
            os.seteuid(owner.st_uid)
        except OSError as error:
            raise UnusablePath(
                f"cannot act as {path}'s owner, uid {owner.st_uid}: {error.strerror}"
            ) from None
        memory.forbid_dumps()  # a change of ids may allow them again
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_gid)
        os.setgroups(groups)
        memory.forbid_dumps()


def _owner(path: str, components: list[Component]) -> os.stat_result | None:
    """The status of what belongs to the user who rules over the place, None if root does."""
    owner = None
    by_group = ""
    for component, status in components:
        if status.st_uid == 0:
            free = stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_ISVTX
            if free and status.st_mode & stat.S_IWOTH:
                raise UnusablePath(f"{path} is not safe to write: anybody may write to {component}")
            if free and status.st_mode & stat.S_IWGRP:
                by_group = by_group or component
        elif owner is None:
            owner = status
        elif owner.st_uid != status.st_uid:
            raise UnusablePath(
                f"{path} is not safe to write: {component} belongs to uid {status.st_uid}, and what leads"
                f" there to uid {owner.st_uid}"
            )
    # Ubuntu's /var/log is such a directory; a user's place in it takes nothing from root.
    if owner is None and by_group:
        raise UnusablePath(f"{path} is not safe to write for root: its group may write to {by_group}")
    return owner


def _components(path: str) -> list[Component]:
    """Each directory and link that leads to the file, from / on, and the file itself if it is there."""
    directory, name = os.path.split(os.path.join(os.getcwd(), path))
    try:
        at, found = _followed(directory)
    except OSError as error:
        raise UnusablePath(f"there is no directory {directory} for {name}: {error.strerror}") from None
    with contextlib.suppress(OSError):
        found.append((path, os.lstat(os.path.join(at, name))))
    return found


def _followed(directory: str) -> tuple[str, list[Component]]:
    """Where the directory is, without links, and what leads there."""
    at = "/"
    found = [(at, os.lstat(at))]
    links = 0
    parts = directory.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part == "..":
            at = os.path.dirname(at)
        elif part not in ("", "."):
            here = os.path.join(at, part)
            found.append((here, os.lstat(here)))
            if not stat.S_ISLNK(found[-1][1].st_mode):
                at = here
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(here)
            at = "/" if target.startswith("/") else at
            parts += target.split("/")[::-1]
    return at, found

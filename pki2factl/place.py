"""Who can decide what is at a path: for a command that believes what it finds there."""

import os
import stat

from pki2fad.errors import UnusablePath

OTHERS_WRITE = 0o022
_NOBODY = 65534  # what the kernel shows for an owner that has no mapping here: it may be anybody


def owners(path: str) -> frozenset[int]:
    """Root, and the one other uid that may own what is at the path or a directory that leads there.

    Raises `UnusablePath` where there are more, where a directory can be written by others than its
    owner, and for symbolic links; and `FileNotFoundError`.
    """
    components = path.rstrip("/").split("/")
    if not path.startswith("/") or {".", ".."} & set(components):
        raise UnusablePath(f"{path} is not the whole path, from / on")
    missing = None
    found = {0}
    try:
        for count in range(1, len(components)):
            found.add(_owner_of_directory("/".join(components[:count]) or "/", path))
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            raise UnusablePath(f"{path} is not safe: it is a symbolic link")
        found.add(status.st_uid)
    except FileNotFoundError as error:
        missing = error
    except OSError as error:
        raise UnusablePath(f"cannot look at {path}: {error.strerror}") from None
    if len(found) > 2 or _NOBODY in found:
        raise UnusablePath(f"{path} is not safe: it is in the hands of the uids {sorted(found)}")
    if missing is not None:
        raise missing
    return frozenset(found)


def _owner_of_directory(directory: str, path: str) -> int:
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise UnusablePath(f"{path} is not safe: {directory} is no directory, but a link say")
    if status.st_mode & OTHERS_WRITE:
        raise UnusablePath(f"{path} is not safe: others than its owner may write to {directory}")
    return status.st_uid

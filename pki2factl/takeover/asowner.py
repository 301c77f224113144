"""Acts as the owner of a directory, so that the owner cannot lead root elsewhere."""

import contextlib
import os
from collections.abc import Iterator

from pki2fad.crypto import memory
from pki2fad.errors import UnusablePath
from pki2fad.host import trust


@contextlib.contextmanager
def as_owner_of(path: str) -> Iterator[None]:
    """Give root the ids of the user who controls a file's directory; nothing changes for other users.

    So root does nothing there that this user could not do. Raises `UnusablePath` if there is no such
    directory, and for root if two users or everybody control it (`trust.ruler`).
    """
    owner = trust.ruler(path)
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

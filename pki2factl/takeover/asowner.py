"""Acting as whoever owns a place, so that root is not led elsewhere from there."""

import contextlib
import os
from collections.abc import Iterator

from pki2fad.crypto import memory
from pki2fad.errors import UnusablePath
from pki2fad.host import trust


@contextlib.contextmanager
def as_owner_of(path: str) -> Iterator[None]:
    """As root, have the ids of the user who rules over a file's place; nothing changes for others.

    So nothing is done there that they could not do themselves. Raises `UnusablePath` if there is no such
    directory, and for root where two users rule, or anybody may (`trust.ruler`).
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

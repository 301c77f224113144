"""`seeds.d`: sealed seeds that configuration management delivers as files, one for each account."""

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from pki2fad import envelope, files, log, paths
from pki2fad.account import is_name
from pki2fad.errors import BadSeal, UnusablePath


class SeedFile(NamedTuple):
    """A sealed seed as it was delivered."""

    path: str
    account: str
    sealed: bytes
    digest: bytes  # of `sealed`
    text_digest: bytes  # of the file as it is: what earlier versions kept instead of `digest`
    modified: float  # Unix time


def read_all(directory: str) -> Iterator[SeedFile]:
    """The files in `seeds.d`, by name.

    A file, or a directory, that somebody else could have written is named in the log and passed over,
    and so is one that cannot be read; it keeps no other out.
    """
    try:
        status = os.stat(directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            raise UnusablePath("not a directory")
        _check_owner(status)
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    except (OSError, UnusablePath) as error:
        log.error("seeds_ignored", path=directory, audit="refused", reason=error)
        return
    for name in names:
        account, suffix = os.path.splitext(name)
        if suffix != paths.SEALED_SUFFIX or name.startswith("."):
            continue
        path = os.path.join(directory, name)
        try:
            yield _read(path, account)
        except (UnusablePath, BadSeal) as error:
            log.error("seed_ignored", path=path, account=account, audit="refused", reason=error)


def _read(path: str, account: str) -> SeedFile:
    if not is_name(account):
        raise UnusablePath("what stands before .sealed cannot name an account")
    text, status = files.read_with_status(path, follow_links=False)
    _check_owner(status)
    sealed = envelope.sealed_from_text(text)
    digest, text_digest = (hashlib.sha256(data).digest() for data in (sealed, text))
    return SeedFile(path, account, sealed, digest, text_digest, status.st_mtime)


def _check_owner(status: os.stat_result) -> None:
    if files.others_may_write(status):
        raise UnusablePath(
            "it must belong to root or to the daemon's user, and nobody else may write it"
            f" (it has uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o})"
        )

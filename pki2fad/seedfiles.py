"""`seeds.d`: sealed seeds that configuration management delivers as files, one for each account."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from pki2fad import envelope, files, log, paths, trust
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
    """The files in `seeds.d`, by name, also those to which links lead that stay beneath it.

    A file, or a directory, that somebody else could have written is named in the log and passed over,
    and so is one that cannot be read; it keeps no other out.
    """
    with contextlib.ExitStack() as opened:
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            place = os.open(directory, flags)
            opened.callback(os.close, place)
            why = trust.objection_to_entries(place)
            if why is not None:
                raise UnusablePath(f"it {why}")
            names = sorted(os.listdir(place))
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
                yield _read(place, name, path, account)
            except (UnusablePath, BadSeal) as error:
                log.error("seed_ignored", path=path, account=account, audit="refused", reason=error)


def _read(directory: int, name: str, path: str, account: str) -> SeedFile:
    if not is_name(account):
        raise UnusablePath("what stands before .sealed cannot name an account")
    try:
        text, status = files.read_open(trust.open_beneath(directory, name), path)
    except OSError as error:
        raise UnusablePath(f"cannot read {path}: {error.strerror}") from None
    sealed = envelope.sealed_from_text(text)
    digest, text_digest = (hashlib.sha256(data).digest() for data in (sealed, text))
    return SeedFile(path, account, sealed, digest, text_digest, status.st_mtime)

"""`seeds.d`: sealed seeds that configuration management delivers as files, one for each account."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from pki2fad.crypto import sealing
from pki2fad.errors import BadSeal, UnusablePath
from pki2fad.host import files, log, paths, trust
from pki2fad.wire.forms import is_name


class SeedFile(NamedTuple):
    """A sealed seed as it was delivered."""

    path: str
    account: str
    sealed: bytes
    digest: bytes  # of `sealed`
    text_digest: bytes  # of the file as it is: what earlier versions kept instead of `digest`
    modified: float  # Unix time


def read_all(directory: str, ignored: list[str]) -> Iterator[SeedFile]:
    """The files in `seeds.d`, by name, also those to which links lead that stay beneath it.

    A file, or a directory, that somebody else could have written is named in the log and in `ignored`, and
    passed over; so is one that cannot be read. It keeps no other out.
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
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            log.error("seeds_ignored", path=directory, audit="refused", reason=why)
            ignored.append(f"{directory}: {why}")
            return
        for name in names:
            account, suffix = os.path.splitext(name)
            if suffix != paths.SEALED_SUFFIX or name.startswith("."):
                continue
            path = os.path.join(directory, name)
            try:
                yield _read(place, name, path, account)
            except (UnusablePath, BadSeal) as error:
                ignore(path, account, error, ignored)


def ignore(path: str, account: str, why: Exception, ignored: list[str]) -> None:
    """Say in the log, and in `ignored`, that a file is passed over."""
    log.error("seed_ignored", path=path, account=account, audit="refused", reason=why)
    ignored.append(f"{path}: {why}")


def _read(directory: int, name: str, path: str, account: str) -> SeedFile:
    if not is_name(account):
        raise UnusablePath("what stands before .sealed cannot name an account")
    try:
        text, status = files.read_open(trust.open_beneath(directory, name), path)
    except OSError as error:
        raise UnusablePath(f"cannot read {path}: {error.strerror}") from None
    sealed = sealing.sealed_from_text(text)
    digest, text_digest = (hashlib.sha256(data).digest() for data in (sealed, text))
    return SeedFile(path, account, sealed, digest, text_digest, status.st_mtime)

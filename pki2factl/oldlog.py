"""The log of the old service, which the minute log continues."""

import contextlib
import itertools
import operator
import os
import re
from collections.abc import Iterator
from typing import IO

from pki2fad import files
from pki2fad.client import Client
from pki2fad.errors import BadRequest, UnusablePath

# Read whole, so there is a limit: a line a minute makes 20 MB a year.
_LOG_LIMIT = 256 * 1024 * 1024

_CODE_LINE = re.compile(rb"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - 2FA Code: \d{6}\r?$", re.MULTILINE)


def read(path: str, minute_log: str) -> bytes:
    """The old service's lines, whatever is in them; both logs are found to be usable before."""
    with _opened(path) as old, _opened_if_there(minute_log) as current:
        if current and os.path.samestat(os.fstat(old.fileno()), os.fstat(current.fileno())):
            raise BadRequest(
                f"{path} is the minute log itself: there is nothing to continue, leave --log away"
            )
        lines = old.read()
    if not _CODE_LINE.search(lines):
        raise BadRequest(
            f"{path} has no line like '2026-01-31 12:34:00 - 2FA Code: ...': it is not the old service's log"
        )
    return lines if lines.endswith(b"\n") else lines + b"\n"


@contextlib.contextmanager
def _opened(path: str, mode: str = "rb", owner: int | None = None) -> Iterator[IO[bytes]]:
    """A log, to read or ("ab") to append to.

    The directory of the minute log is the daemon's, and we may be root: a link that was put there must
    not have us read a file for the daemon that it may not read itself, or write to one.
    """
    try:
        flags = os.O_RDONLY if mode == "rb" else os.O_WRONLY | os.O_APPEND
        descriptor = files.open_sole(path, flags, owner)
    except OSError as error:
        raise UnusablePath(f"cannot open {path}: {files.reason(error, path)}") from None
    with open(descriptor, mode) as file:
        if os.fstat(descriptor).st_size > _LOG_LIMIT:
            raise UnusablePath(f"{path} is larger than {_LOG_LIMIT >> 20} megabytes; continue a part of it")
        yield file


def _opened_if_there(path: str) -> contextlib.AbstractContextManager[IO[bytes] | None]:
    return _opened(path) if os.path.lexists(path) else contextlib.nullcontext()


def put_before(old_lines: bytes, path: str, client: Client) -> None:
    """Put the old lines before those of the minute log, in one step.

    This comes before the load: when the account appears the daemon writes a line at once, unless the
    file has a code for this minute, which may be in the old lines.
    """
    with _opened_if_there(path) as current:
        if current is None:
            directory = _status(os.path.dirname(os.path.abspath(path)))
            files.create(path, old_lines, files.PRIVATE, directory)
            return
        lines = current.read()
        joined = _joined(old_lines, lines)
        if joined == lines:
            return
        status = os.fstat(current.fileno())
        files.replace(path, joined, files.PRIVATE, status)
        # The daemon may have been writing to the file that is gone now. It does one thing after the
        # other: once it answers, such a line is whole, and the next goes to the new file.
        client.status()
        late = current.read()
    if late:
        with _opened(path, "ab", status.st_uid) as file:
            file.write(late)


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise UnusablePath(f"there is no directory {path} for the minute log: {error.strerror}") from None


def _joined(old_lines: bytes, lines: bytes) -> bytes:
    """The old lines, then the others; those that both begin with, since this ran before, once."""
    old, new = old_lines.splitlines(keepends=True), lines.splitlines(keepends=True)
    common = sum(itertools.takewhile(bool, map(operator.eq, old, new)))
    return b"".join(old + new[common:])

"""Puts the log of the old service before the lines of the minute log."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import IO

from pki2factl import ui
from pki2factl.takeover import oldlines
from pki2factl.takeover.asowner import as_owner_of
from pki2fad import times
from pki2fad.client import Client
from pki2fad.errors import BadRequest, UnusablePath
from pki2fad.host import files, minuteline

# It is read whole, so it has a limit: a line a minute makes 20 MB a year.
_LOG_LIMIT = 256 * 1024 * 1024

# While the files are exchanged the daemon can write a line or two.
_LATE_LIMIT = 64 * 1024

_FUTURE = 60  # seconds by which two clocks may differ
_BLOCK = 64 * 1024


def read(path: str, minute_log: str, seed: os.stat_result) -> tuple[bytes, os.stat_result]:
    """Read the old service's lines, converted by `oldlines`; also returns the status of their file.

    Checks both logs first. `seed` is the status of the seed's file, which must be neither of them.
    Raises `BadRequest` and `UnusablePath`.
    """
    here = None
    if os.path.lexists(minute_log):
        with as_owner_of(minute_log), _opened(minute_log) as current:
            here = os.fstat(current.fileno())
    with _opened(path) as old:
        status = os.fstat(old.fileno())
        if here and os.path.samestat(here, status):
            raise BadRequest(
                f"{path} is the minute log itself: there is nothing to continue; leave out --log"
            )
        if here and os.path.samestat(here, seed):
            raise BadRequest(f"{minute_log} is the seed's file; --log-to has to be the minute log")
        found = oldlines.read(_content(old, path))
    _require_log(found, path)
    lines = found.content
    for line in found.doubtful:
        ui.hint(f"{path}: {line}; it is kept as it is, but seems to have a code in an unknown form")
    return lines if lines.endswith(b"\n") else lines + b"\n", status


def _require_log(found: oldlines.Lines, path: str) -> None:
    if not found.codes:
        first = f" ({found.others[0]})" if found.others else ""
        raise BadRequest(
            f"{path} has no line like '2026-01-31 12:34:00 - 2FA Code: ...'{first}: it is not a log of the"
            " old service, or its form is unknown; to go on without it, leave out --log"
        )
    moment = minuteline.last_code(found.content)  # as the minute log will look for it
    if moment is not None and moment > time.time() + _FUTURE:
        raise BadRequest(
            f"{path} ends with a code of {times.moment(moment)}, which is in the future, and the minute log"
            " would wait until then; set the clock, or remove those lines"
        )


@contextlib.contextmanager
def _opened(path: str, mode: str = "rb") -> Iterator[IO[bytes]]:
    """Open a log to read, or with "ab" to append to; follows no link to another file."""
    try:
        flags = os.O_RDONLY if mode == "rb" else os.O_WRONLY | os.O_APPEND
        descriptor = files.open_sole(path, flags)
    except OSError as error:
        raise UnusablePath(f"cannot open {path}: {files.reason(error, path)}") from None
    with open(descriptor, mode) as file:
        yield file


def _opened_if_there(path: str) -> contextlib.AbstractContextManager[IO[bytes] | None]:
    return _opened(path) if os.path.lexists(path) else contextlib.nullcontext()


def _content(file: IO[bytes], path: str) -> bytes:
    """Read all of a log, which may be growing, up to the limit."""
    if os.fstat(file.fileno()).st_size <= _LOG_LIMIT:
        content = file.read(_LOG_LIMIT + 1)
        if len(content) <= _LOG_LIMIT:
            return content
    raise UnusablePath(f"{path} is larger than {_LOG_LIMIT >> 20} megabytes; continue a part of it")


def put_before(old_lines: bytes, path: str, client: Client) -> None:
    """Put the old lines before those of the minute log, in one step, as the owner of its directory.

    This comes before the load: the daemon writes a line as soon as the account appears, unless the file
    has a code for this minute, which may be in the old lines. The client is connected already, so the
    daemon sees our own uid.
    """
    with as_owner_of(path), _opened_if_there(path) as current:
        if current is None:
            files.create(path, old_lines, files.PRIVATE)
            return
        lines = _content(current, path)
        common = _common(old_lines, lines)
        if common == len(old_lines):
            return
        joined = b"".join((old_lines, memoryview(lines)[common:]))
        files.replace(path, joined, files.PRIVATE, os.fstat(current.fileno()))
        # The daemon may have been writing to the file that was replaced. It does one thing at a time: once
        # it answers, that line is whole, and the next one goes to the new file.
        client.status()
        late = current.read(_LATE_LIMIT)
        if late:
            with _opened(path, "ab") as file:
                file.write(late)


def _common(old: bytes, new: bytes) -> int:
    """The number of bytes of whole lines that both begin with, since an earlier run put them there."""
    at = 0
    while at < min(len(old), len(new)) and old[at : at + _BLOCK] == new[at : at + _BLOCK]:
        at += _BLOCK
    ends = [old[at : at + _BLOCK], new[at : at + _BLOCK]]
    at += len(os.path.commonprefix(ends))  # noqa: RUF071 - compares byte by byte
    return old.rfind(b"\n", 0, at) + 1

"""The log of the old service, which the minute log continues."""

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

# Read whole, so there is a limit: a line a minute makes 20 MB a year.
_LOG_LIMIT = 256 * 1024 * 1024

# What the daemon can have written in the moment of the exchange is a line or two.
_LATE_LIMIT = 64 * 1024

_FUTURE = 60  # seconds by which clocks may differ
_BLOCK = 64 * 1024


def read(path: str, minute_log: str, seed: os.stat_result) -> tuple[bytes, os.stat_result]:
    """The old service's lines, as `oldlines` has them, and the status of the file that they are in.

    Both logs are found to be usable before; `seed` is the status of the seed's file, which is neither.
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
                f"{path} is the minute log itself: there is nothing to continue, leave --log away"
            )
        if here and os.path.samestat(here, seed):
            raise BadRequest(f"{minute_log} is the seed's file; --log-to has to be the minute log")
        found = oldlines.read(_content(old, path))
    _require_log(found, path)
    lines = found.content
    for line in found.doubtful:
        ui.hint(f"{path}: {line}, and is kept as it is: it seems to have a code, in no form that is known")
    return lines if lines.endswith(b"\n") else lines + b"\n", status


def _require_log(found: oldlines.Lines, path: str) -> None:
    if not found.codes:
        first = f" ({found.others[0]})" if found.others else ""
        raise BadRequest(
            f"{path} has no line like '2026-01-31 12:34:00 - 2FA Code: ...'{first}: it is no log of the old"
            " service, or in a form that is not known; 'pki2factl migrate' works without --log too"
        )
    moment = minuteline.last_code(found.content)  # as the minute log will look for it
    if moment is not None and moment > time.time() + _FUTURE:
        raise BadRequest(
            f"{path} ends with a code of {times.moment(moment)}, which is still to come, and the minute"
            " log would wait for that; set the clock, or take those lines away"
        )


@contextlib.contextmanager
def _opened(path: str, mode: str = "rb") -> Iterator[IO[bytes]]:
    """A log, to read or ("ab") to append to; no link leads to another file."""
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
    """All of a log, which may grow at the same time, up to the limit."""
    if os.fstat(file.fileno()).st_size <= _LOG_LIMIT:
        content = file.read(_LOG_LIMIT + 1)
        if len(content) <= _LOG_LIMIT:
            return content
    raise UnusablePath(f"{path} is larger than {_LOG_LIMIT >> 20} megabytes; continue a part of it")


def put_before(old_lines: bytes, path: str, client: Client) -> None:
    """Put the old lines before those of the minute log, in one step, as whoever owns its place.

    This comes before the load: when the account appears the daemon writes a line at once, unless the
    file has a code for this minute, which may be in the old lines. The client is connected already: it
    asks as who we are.
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
        # The daemon may have been writing to the file that is gone now. It does one thing after the
        # other: once it answers, such a line is whole, and the next goes to the new file.
        client.status()
        late = current.read(_LATE_LIMIT)
        if late:
            with _opened(path, "ab") as file:
                file.write(late)


def _common(old: bytes, new: bytes) -> int:
    """How many bytes of whole lines both begin with: those that are there since this ran before."""
    at = 0
    while at < min(len(old), len(new)) and old[at : at + _BLOCK] == new[at : at + _BLOCK]:
        at += _BLOCK
    ends = [old[at : at + _BLOCK], new[at : at + _BLOCK]]
    at += len(os.path.commonprefix(ends))  # noqa: RUF071 - byte by byte is what is wanted
    return old.rfind(b"\n", 0, at) + 1

"""A line of the minute log, as the daemon writes it and `pki2factl migrate` continues it."""

import calendar
import contextlib
import re
import time

_TIME = "%Y-%m-%d %H:%M:%S"

# The line end of another system stays: the old service's log may come from one.
_WITH_CODE = re.compile(
    rb"^(\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]) (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)"
    rb" - 2FA Code: \d{6,8}\r?$",
    re.MULTILINE,
)

TAIL = 64 * 1024  # bytes: enough lines that a code is among them


def stamp(wall: float) -> str:
    """What a line of this Unix time begins with, in UTC."""
    return time.strftime(_TIME, time.gmtime(wall))


def code_text(code: str) -> str:
    """What a line says that has a code."""
    return f"2FA Code: {code}"


def line(stamp: str, text: str) -> str:
    """A line without its end."""
    return f"{stamp} - {text}"


def text(line: bytes) -> bytes:
    """What a line says, behind its time."""
    return line.partition(b" - ")[2]


def has_code(line: bytes) -> bool:
    """True for a line that has a code."""
    return _WITH_CODE.fullmatch(line) is not None


def last_code(lines: bytes) -> int | None:
    """The Unix time of the last code in a log's last 64 KiB, None if there is no code."""
    for written in reversed(_WITH_CODE.findall(lines[-TAIL:])):
        with contextlib.suppress(ValueError):  # somebody wrote February 30
            return calendar.timegm(time.strptime(written.decode(), _TIME))
    return None

"""Converts the lines with codes of old services to the form of the minute log."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from pki2fad.host import minuteline

# White space is possessive (`*+`): otherwise a long run of it is split in every way, which takes for ever.
# 2026-01-31 12:34:00 UTC - 2FA Code: 123456, 2026-01-31T12:34:00Z OTP=123456, 123456 and forms in between.
_CODE = re.compile(
    rb"(?:(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{1,6})?) ?(?:(UTC|Z)|([+-]\d\d:?\d\d))?\s*+(?:-\s*+)?"
    rb"(?:(?:2FA|T?OTP)?\s*+(?:CODE)?\s*+[:=]\s*+)?|\s*+)(\d{6})\s*",
    re.IGNORECASE,
)
_LIKE_A_CODE = re.compile(rb"(?<![\w.])\d{6}(?![\w.])")
_SECRET = re.compile(r"[0-9A-Za-z+/]{16,}=*|\d{6,}")  # seeds in hex digits, base32 or base64, and codes
_SHOWN = 80  # characters of a line


class Line(NamedTuple):
    """A line without a code, or without one that can be read."""

    number: int
    text: bytes

    def __str__(self) -> str:
        """Number and text, with `…` for what may be a code or a seed."""
        text = _SECRET.sub("…", self.text.decode("utf-8", "backslashreplace").strip())
        return f"line {self.number} is {text if len(text) <= _SHOWN else f'{text[:_SHOWN]}…'}"


class Lines(NamedTuple):
    """A whole log."""

    content: bytes  # unchanged, except lines with a time and a code
    codes: int  # number of lines with one
    others: list[Line]  # the first line without one
    doubtful: list[Line]  # the first line that seems to have one


def read(log: bytes) -> Lines:
    """Convert lines with a time and a code to the minute log's form; the rest stays as it is, byte by byte.

    Times without a zone are in UTC, as in those services.
    """
    lines, codes = log.split(b"\n"), 0
    others: list[Line] = []
    doubtful: list[Line] = []
    for index, line in enumerate(lines):
        ours = _ours(line)
        if ours is not None:
            lines[index] = ours
            codes += 1
        elif line.strip():
            if not others:
                others.append(Line(index + 1, line))
            if not doubtful and _LIKE_A_CODE.search(line):
                doubtful.append(Line(index + 1, line))
    return Lines(b"\n".join(lines), codes, others, doubtful)


def _ours(line: bytes) -> bytes | None:
    """A line with a code in the minute log's form, None for another line; a code alone stays as it is.

    A line that has the form already keeps its line end.
    """
    if minuteline.has_code(line):  # most do
        return line
    found = _CODE.fullmatch(line)
    if found is None:
        return None
    date, clock, utc, offset, code = (part.decode() if part else "" for part in found.groups())
    if not date:
        return line
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{'Z' if utc else offset}")
    except ValueError:  # an impossible date
        return None
    if offset:
        moment = moment.astimezone(UTC)
        date, clock = f"{moment:%Y-%m-%d}", f"{moment:%H:%M:%S}"
    return minuteline.line(f"{date} {clock[:8]}", minuteline.code_text(code)).encode()

"""Reads a log file: its last lines, and new lines as they come, also after a rotation."""

import os
import stat
import time
from collections import deque

from pki2fad.errors import UnusablePath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

_PERIOD = 0.25  # seconds between two looks for new lines
_BLOCK = 64 * 1024


def open_named(path: str) -> "BinaryIO":
    """Open any file that the user named. Raises `UnusablePath`."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise UnusablePath(f"cannot read {path}: {error.strerror}") from None


def is_file(file: "BinaryIO", device: int, inode: int) -> bool:
    """True if it is the file with this device and inode."""
    status = os.fstat(file.fileno())
    return (status.st_dev, status.st_ino) == (device, inode)


def lines(
    file: "BinaryIO", count: "int | None", again: "Callable[[], BinaryIO] | None" = None
) -> "Iterator[str]":
    """Yield the last `count` lines of a file, or all. With `again`, which opens it anew, follow it too.

    Closes the file at the end.
    """
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    try:
        if count is not None and not regular:
            yield from map(_text, deque(file, maxlen=count))
        elif count is not None:
            file.seek(_start_of_last(file, count))
        part = b""
        while True:
            # Looked for first, so that the rest of the old file is still read.
            newer = None if again is None or not regular else _newer(file, again)
            for piece in iter(file.readline, b""):
                part += piece
                if part.endswith(b"\n"):
                    yield _text(part)
                    part = b""
            if newer is not None:
                file.close()
                file = newer
            elif again is None or not regular:
                break
            else:
                time.sleep(_PERIOD)
        if part:
            yield _text(part)
    finally:
        file.close()


def _newer(file: "BinaryIO", again: "Callable[[], BinaryIO]") -> "BinaryIO | None":
    """The file that has the name now, if it is another one or was emptied."""
    try:
        other = again()
    except UnusablePath:  # in the middle of a rotation
        return None
    status = os.fstat(other.fileno())
    if os.path.samestat(status, os.fstat(file.fileno())) and status.st_size >= file.tell():
        other.close()
        return None
    return other


def _start_of_last(file: "BinaryIO", count: int) -> int:
    """The position at which the last `count` lines begin."""
    at = file.seek(0, os.SEEK_END)
    if at and count:
        file.seek(at - 1)
        count += file.read(1) == b"\n"
    while at and count:
        size = min(at, _BLOCK)
        at -= size
        file.seek(at)
        block = file.read(size)
        end = size
        while count:
            end = block.rfind(b"\n", 0, end)
            if end < 0:
                break
            count -= 1
            if not count:
                return at + end + 1
    return at


def _text(line: bytes) -> str:
    return line.removesuffix(b"\n").decode("utf-8", "replace")

"""Writes the lines of a log to a descriptor or a file, and never waits for a reader.

Lines that cannot be written now are dropped and counted. Important lines wait in memory, up to a limit.
"""

import atexit
import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Iterable
from typing import IO, Any, Protocol

from pki2fad import times
from pki2fad.host import files, landlock, logtarget

# The priorities that go before a line for the journal (sd-daemon(3)).
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6

# Bytes of lines more urgent than `INFO` that wait for room: some 10 000 of them.
_KEPT = 1024 * 1024

# Seconds that the end of the process leaves to a relay; a stop takes 2 at most.
_LAST_WORDS = 0.2


class Descriptor:
    """Writes to an open descriptor."""

    def __init__(self, descriptor: int, *, prefixed: bool) -> None:
        self.dropped = 0  # lines, since the start
        self._told = 0  # of them, how many a line has reported
        self._descriptor = descriptor
        self._outlet = _outlet(descriptor)
        self._prefixed = prefixed
        self._second = -1  # for which the time was written out last
        self._time = ("", "")
        self._kept = bytearray()  # goes first: the rest of a line that was cut, and important lines
        self._cut = False  # the last byte that was written does not end a line

    def write(self, priority: int, events: Iterable[str]) -> None:
        """Write events, each of one line or several, with the time of now."""
        if self.drain() and self._told < self.dropped:
            self._tell()
        if self._kept or self._told < self.dropped:  # no line goes before the count of those dropped
            self._leave(priority, self._lines(priority, events))
        else:
            self._put(priority, self._lines(priority, events))

    def target(self) -> dict[str, Any]:
        """Where the lines go, as PROTOCOL.md says."""
        return logtarget.of(self._descriptor)

    def drain(self) -> bool:
        """Write the lines that were kept; True if none is left."""
        if self._kept:
            del self._kept[: self._put_all(bytes(self._kept))]
        return not self._kept

    def close(self) -> None:
        """Write no more. The descriptor itself stays open: others write there too."""
        self._outlet.close()

    def _tell(self) -> None:
        """Write how many lines were dropped, if there is room."""
        dropped = self.dropped
        line = self._lines(WARNING, [f"lines_dropped count={dropped - self._told}"])
        written = self._put_all(line)
        if written:
            self._told = dropped
            self._kept += line[written:]

    def _put(self, priority: int, lines: bytes) -> None:
        written = self._put_all(lines)
        if written < len(lines):
            self._leave(priority, lines[written:])

    def _leave(self, priority: int, lines: bytes) -> None:
        """Keep or drop lines that could not be written. The rest of a cut line is always kept."""
        if self._cut and not self._kept:
            end = lines.index(b"\n") + 1
            self._kept += lines[:end]
            lines = lines[end:]
        if priority < INFO and len(self._kept) + len(lines) <= _KEPT:
            self._kept += lines
        else:
            self.dropped += lines.count(b"\n")

    def _put_all(self, lines: bytes) -> int:
        """Write as much as there is room for; returns how many bytes that was."""
        written = 0
        with contextlib.suppress(OSError):
            while written < len(lines):
                written += self._outlet.put(lines[written:])
        if written:
            self._cut = lines[written - 1 : written] != b"\n"
        return written

    def _lines(self, priority: int, events: Iterable[str]) -> bytes:
        if self._prefixed:
            start = f"<{priority}>"
            events = "\n".join(events).split("\n")
        else:
            start = f"{self._now()} "
        return (start + f"\n{start}".join(events) + "\n").encode("utf-8", "backslashreplace")

    def _now(self) -> str:
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._time = times.parts(now)
        return f"{self._time[0]}.{int(now * 1000) % 1000:03}{self._time[1]}"


class File(Descriptor):
    """Writes to the file that has the name now. Raises `OSError` if it cannot be opened."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__(open_file(path), prefixed=False)

    def write(self, priority: int, events: Iterable[str]) -> None:
        """Write events to the file that has the name now."""
        self._follow()
        super().write(priority, events)

    def target(self) -> dict[str, Any]:
        """The file that has the name now."""
        self._follow()
        directory, name = os.path.split(self._path)
        path = os.path.join(os.path.realpath(directory), name)
        return logtarget.of_file(path, os.fstat(self._descriptor))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _follow(self) -> None:
        """Open the file again if it was rotated away."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor)):
                return
        with contextlib.suppress(OSError):
            descriptor, self._descriptor = self._descriptor, open_file(self._path)
            os.close(descriptor)
            self._outlet = _outlet(self._descriptor)
            if self._cut:  # the old file has its beginning
                del self._kept[: self._kept.index(b"\n") + 1]
                self._cut = False
                self.dropped += 1


def open_file(path: str) -> int:
    """Open a log to append to it. Raises `OSError` if it is not a regular file of our own."""
    return files.open_sole(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, os.geteuid())


def say(stream: IO[str], text: str) -> None:
    """Print a line; only a part of it, or nothing, if that would wait."""
    with contextlib.suppress(OSError), contextlib.closing(_outlet(stream.fileno())) as outlet:
        outlet.put(f"{text}\n".encode("utf-8", "backslashreplace"))


class _Outlet(Protocol):
    """Takes bytes as `os.write` does, and raises `OSError` rather than wait.

    O_NONBLOCK is never set on a descriptor that we were given: other processes that have it, for example a
    shell, share its flags.
    """

    def put(self, data: bytes) -> int:
        """Write what there is room for; returns how many bytes that was."""

    def close(self) -> None:
        """Write no more."""


def _outlet(descriptor: int) -> _Outlet:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return _Plain(descriptor)
    if stat.S_ISSOCK(mode):
        return _Stream(descriptor)
    try:
        return _Own(
            os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        )
    except OSError:  # another user's pipe or terminal, which we may use and not open
        return _Relay(descriptor)


class _Plain:
    """A regular file. It waits only for the disk, like the state."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def put(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def close(self) -> None:
        """Nothing: others write there too."""


class _Own(_Plain):
    """A descriptor of our own that does not block."""

    def close(self) -> None:
        os.close(self._descriptor)


class _Stream:
    """A socket, for example the journal's: it cannot be opened again, but a write need not wait."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))

    def put(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._socket.close()


class _Relay(_Own):
    """A pipe of our own that does not block, which a thread empties into the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        super().__init__(writing)
        self._target = descriptor
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        atexit.unregister(self.close)
        super().close()
        self._thread.join(_LAST_WORDS)

    def _pass_on(self) -> None:
        landlock.forbid_exec()  # it holds for one thread, and this one may be older
        with contextlib.suppress(OSError), open(self._reading, "rb", buffering=0) as lines:
            while data := lines.read(64 * 1024):
                while data:
                    data = data[os.write(self._target, data) :]

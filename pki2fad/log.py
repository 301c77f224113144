"""The daemon's own log: one line an event, `event key=value`, never a code or a seed.

An event is written to a descriptor and no more, and ordinary ones together (`later`): the standard library's
logging takes longer for a line than all the rest of a request.
"""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable

from pki2fad.logline import line

# What sd-daemon(3) puts before a line for the journal to see its priority.
_ERROR, _WARNING, _NOTICE, _INFO = 3, 4, 5, 6


def to_stderr() -> None:
    """Log to stderr: plain lines, or with priorities where the journal reads them."""
    descriptor = sys.stderr.fileno()
    _use(_Descriptor(descriptor, prefixed=_is_journal(descriptor)))


def to_file(path: str) -> None:
    """Log to a file, which is opened again when it was rotated away."""
    _use(_File(path))


def info(event: str, **fields: object) -> None:
    """Something happened as it should."""
    _log(_INFO, line(event, fields))


def flush() -> None:
    """Write what waits."""
    if _waiting:
        lines = _waiting.copy()
        _waiting.clear()
        if _sink is not None:
            _sink.write(_INFO, lines)


def audit(event: str, **fields: object) -> None:
    """Accounts, keys or settings were changed; the field `audit` says in a word what was done."""
    _log(_NOTICE, line(event, fields))


def warning(event: str, **fields: object) -> None:
    """Something that an administrator should know of."""
    _log(_WARNING, line(event, fields))


def error(event: str, **fields: object) -> None:
    """Something failed."""
    _log(_ERROR, line(event, fields))


def failure(event: str, cause: BaseException | None, **fields: object) -> None:
    """Something failed that should not be possible; the traceback follows."""
    text = line(event, fields)
    if cause is not None:
        told = "".join(traceback.format_exception(cause)).rstrip("\n")
        text += "\n" + "".join(
            char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in told
        )
    _log(_ERROR, text)


class _Descriptor:
    """Writes to an open descriptor; a line that cannot be written is lost, and not what it is about."""

    def __init__(self, descriptor: int, *, prefixed: bool) -> None:
        self._descriptor = descriptor
        self._prefixed = prefixed
        self._second = -1  # for which the time was written out last
        self._time = ""
        self._cut = False  # the last line was not written whole

    def write(self, priority: int, events: Iterable[str]) -> None:
        """Events of now, each a line or several."""
        if self._prefixed:
            start = f"<{priority}>"
            events = "\n".join(events).split("\n")
        else:
            start = f"{self._now()} "
        text = "\n" * self._cut + start + f"\n{start}".join(events) + "\n"
        whole = rest = text.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        if len(rest) < len(whole):
            self._cut = bool(rest)

    def close(self) -> None:
        """Nothing: others write there too."""

    def _now(self) -> str:
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._time = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        return f"{self._time},{int(now * 1000) % 1000:03}"


class _File(_Descriptor):
    """Writes to a file of that name, whichever it is by now."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__(self._open(), prefixed=False)

    def write(self, priority: int, events: Iterable[str]) -> None:
        try:
            moved = not os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            moved = True
        if moved:
            with contextlib.suppress(OSError):
                descriptor, self._descriptor = self._descriptor, self._open()
                os.close(descriptor)
        super().write(priority, events)

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


_sink: _Descriptor | None = None
_waiting: list[str] = []  # always this list: `later` is a method of it

# Something happened as it should, of which the line is made already (`logline.line`): it is written with
# others at the next `flush`, or before the next event of another kind.
later: Callable[[str], None] = _waiting.append


def _use(sink: _Descriptor) -> None:
    global _sink  # noqa: PLW0603 - a process has one log
    if _sink is not None:
        _sink.close()
    _sink = sink


def _log(priority: int, text: str) -> None:
    flush()
    if _sink is not None:
        _sink.write(priority, [text])


def _is_journal(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"

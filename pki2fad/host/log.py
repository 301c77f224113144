"""The daemon's own log: one line an event, `event key=value`, never a code or a seed.

Events go to one descriptor, and ordinary ones go together (`later`): logging by the standard library takes
longer for a line than all the rest of a request. Writing never waits (`sinks`).
"""

import sys
import traceback
from collections.abc import Callable

from pki2fad.host import logtarget, sinks
from pki2fad.host.logline import line
from pki2fad.host.sinks import ERROR, INFO, NOTICE, WARNING


def to_stderr() -> None:
    """Log to stderr: plain lines, or with priorities where the journal reads them."""
    descriptor = sys.stderr.fileno()
    _use(sinks.Descriptor(descriptor, prefixed=logtarget.is_journal(descriptor)))


def to_file(path: str) -> None:
    """Log to a file. It is opened again after a rotation."""
    _use(sinks.File(path))


def info(event: str, **fields: object) -> None:
    """Log something that happened as it should."""
    _log(INFO, line(event, fields))


def flush() -> None:
    """Write the lines that wait."""
    if _waiting:
        lines = _waiting.copy()
        _waiting.clear()
        if _sink is not None:
            _sink.write(INFO, lines)


def drain() -> None:
    """Write the lines that had no room before."""
    if _sink is not None:
        _sink.drain()


def dropped() -> int:
    """How many lines could not be written, since the start."""
    return 0 if _sink is None else _sink.dropped


def target() -> dict[str, object]:
    """Where the lines go, as PROTOCOL.md says."""
    return {"kind": "none"} if _sink is None else _sink.target()


def audit(event: str, **fields: object) -> None:
    """Log a change of accounts, keys or settings. The field `audit` has a word for it."""
    _log(NOTICE, line(event, fields))


def warning(event: str, **fields: object) -> None:
    """Log something that an administrator should know."""
    _log(WARNING, line(event, fields))


def error(event: str, **fields: object) -> None:
    """Log a failure."""
    _log(ERROR, line(event, fields))


def failure(event: str, cause: BaseException | None, **fields: object) -> None:
    """Log a failure that should be impossible, with its traceback."""
    text = line(event, fields)
    if cause is not None:
        told = "".join(traceback.format_exception(cause)).rstrip("\n")
        text += "\n" + "".join(
            char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in told
        )
    _log(ERROR, text)


_sink: sinks.Descriptor | None = None
_waiting: list[str] = []  # always this list: `later` is a method of it

# Log a line that is made already (`logline.line`), of something that happened as it should. It is written
# with others at the next `flush`, or before the next event of another kind.
later: Callable[[str], None] = _waiting.append


def _use(sink: sinks.Descriptor) -> None:
    global _sink  # noqa: PLW0603 - a process has one log
    if _sink is not None:
        _sink.close()
    _sink = sink


def _log(priority: int, text: str) -> None:
    flush()
    if _sink is not None:
        _sink.write(priority, [text])

"""The daemon's own log: one line an event, `event key=value`, never a code or a seed.

An event is written to a descriptor and no more, and ordinary ones together (`later`): the standard library's
logging takes longer for a line than all the rest of a request. Writing never waits (`sinks`).
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
    """Log to a file, which is opened again when it was rotated away."""
    _use(sinks.File(path))


def info(event: str, **fields: object) -> None:
    """Something happened as it should."""
    _log(INFO, line(event, fields))


def flush() -> None:
    """Write what waits."""
    if _waiting:
        lines = _waiting.copy()
        _waiting.clear()
        if _sink is not None:
            _sink.write(INFO, lines)


def drain() -> None:
    """Write what there was no room for before."""
    if _sink is not None:
        _sink.drain()


def dropped() -> int:
    """How many lines could not be written, since the start."""
    return 0 if _sink is None else _sink.dropped


def target() -> dict[str, object]:
    """Where the lines go, as PROTOCOL.md says."""
    return {"kind": "none"} if _sink is None else _sink.target()


def audit(event: str, **fields: object) -> None:
    """Accounts, keys or settings were changed; the field `audit` says in a word what was done."""
    _log(NOTICE, line(event, fields))


def warning(event: str, **fields: object) -> None:
    """Something that an administrator should know of."""
    _log(WARNING, line(event, fields))


def error(event: str, **fields: object) -> None:
    """Something failed."""
    _log(ERROR, line(event, fields))


def failure(event: str, cause: BaseException | None, **fields: object) -> None:
    """Something failed that should not be possible; the traceback follows."""
    text = line(event, fields)
    if cause is not None:
        told = "".join(traceback.format_exception(cause)).rstrip("\n")
        text += "\n" + "".join(
            char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in told
        )
    _log(ERROR, text)


_sink: sinks.Descriptor | None = None
_waiting: list[str] = []  # always this list: `later` is a method of it

# Something happened as it should, of which the line is made already (`logline.line`): it is written with
# others at the next `flush`, or before the next event of another kind.
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

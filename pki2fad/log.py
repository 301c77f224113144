"""The daemon's own log: one line an event, `event key=value`, never a code or a seed."""

import contextlib
import logging
import os
import sys
from logging.handlers import WatchedFileHandler
from typing import Any

from pki2fad.logline import line

_logger = logging.getLogger("pki2fad")

# Between INFO and WARNING, as syslog has it: normal, but of significance.
_NOTICE = 25

# What sd-daemon(3) puts before a line for the journal to see its priority.
_PRIORITIES = {
    logging.DEBUG: "<7>",
    logging.INFO: "<6>",
    _NOTICE: "<5>",
    logging.WARNING: "<4>",
    logging.ERROR: "<3>",
    logging.CRITICAL: "<2>",
}


def to_stderr() -> None:
    """Log to stderr: plain lines, or with priorities where the journal reads them."""
    prefixed = _is_journal(sys.stderr.fileno())
    _use(logging.StreamHandler(sys.stderr), "" if prefixed else "%(asctime)s ", prefixed=prefixed)


def to_file(path: str) -> None:
    """Log to a file, which is opened again when it was rotated away."""
    _use(_FileHandler(path, encoding="utf-8"), "%(asctime)s ", prefixed=False)


def info(event: str, **fields: object) -> None:
    """Something happened as it should."""
    _log(logging.INFO, event, fields)


def audit(event: str, **fields: object) -> None:
    """Accounts, keys or settings were changed; the field `audit` says in a word what was done."""
    _log(_NOTICE, event, fields)


def warning(event: str, **fields: object) -> None:
    """Something that an administrator should know of."""
    _log(logging.WARNING, event, fields)


def error(event: str, **fields: object) -> None:
    """Something failed."""
    _log(logging.ERROR, event, fields)


def failure(event: str, cause: BaseException | None, **fields: object) -> None:
    """Something failed that should not be possible; the traceback follows."""
    _log(logging.ERROR, event, fields, exc_info=cause)


def _log(level: int, event: str, fields: dict[str, object], **options: Any) -> None:
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", line(event, fields), **options)


def _use(handler: logging.Handler, start: str, *, prefixed: bool) -> None:
    handler.setFormatter(_Formatter(start + "%(message)s", prefixed))
    for old in _logger.handlers[:]:
        _logger.removeHandler(old)
        old.close()
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
    logging.raiseExceptions = False  # a stream that fails has nowhere to say so


def _is_journal(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _FileHandler(WatchedFileHandler):
    """Loses a line that cannot be written, rather than the answer that it is about."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)


class _Formatter(logging.Formatter):
    """Begins every line with the priority, where that is wanted, and lets no control character pass."""

    def __init__(self, layout: str, prefixed: bool) -> None:
        super().__init__(layout)
        self._prefixed = prefixed

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        text = super().formatException(ei)
        return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._prefixed:
            return text
        prefix = _PRIORITIES[record.levelno]
        return "\n".join(prefix + line for line in text.split("\n"))

"""Makes the standard streams usable, in whatever state a process gets them. On the client's path."""

import contextlib
import os
import sys

_COLUMNS = 80  # as terminals always had


def prepare() -> None:
    """Make printing work with any streams.

    A closed stream is opened to nowhere: Python has None for it, and the next file would get its number.
    Characters that a stream cannot encode, for example in a path, are written with escapes. Write errors
    show when a stream is flushed, and not in argparse, which hides them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", write_through=False)  # type: ignore[union-attr]


def columns() -> int:
    """The width of help: $COLUMNS, the terminal's width, or 80 without a terminal.

    argparse itself asks `shutil`, for each argument of a parser and even without help. Importing that takes
    longer than all the parsing.
    """
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    with contextlib.suppress(OSError):
        return os.get_terminal_size(sys.stdout.fileno()).columns or _COLUMNS
    return _COLUMNS


def abandon() -> None:
    """Discard what stdout still holds, so that the interpreter's flush at the end cannot fail."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

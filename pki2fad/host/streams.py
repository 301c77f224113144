"""The standard streams, as whoever started us left them. On the client's path."""

import contextlib
import os
import sys

_COLUMNS = 80  # as terminals always had


def prepare() -> None:
    """Let printing work whatever is there.

    A stream that was closed goes nowhere, where Python has None in its place and the next file that
    is opened would get its number. What a stream cannot encode, a path say, is written with escapes.
    Failures of writing show when a stream is flushed, not in argparse, which hides them.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", write_through=False)  # type: ignore[union-attr]


def columns() -> int:
    """How wide help may be: $COLUMNS, the terminal's width, or 80 where there is none.

    argparse asks the same of `shutil` for each argument of a parser, also where no help is wanted, and to
    import that takes longer than all the parsing.
    """
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    with contextlib.suppress(OSError):
        return os.get_terminal_size(sys.stdout.fileno()).columns or _COLUMNS
    return _COLUMNS


def abandon() -> None:
    """Nobody takes what stdout still holds: let the interpreter's own flush at the end go nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

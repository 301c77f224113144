"""What a command prints, and where. The rules:

- stdout carries results, and nothing else; with `--json` one JSON value, of a failure too.
- stderr carries `pki2factl: error: ...`, `pki2factl: hint: ...` and progress.
- An `otpauth:` URI, which has the seed in it, is shown only on a terminal.
- A spinner moves only on a terminal.

This module is on the client's path.
"""

import sys

from pki2fad.errors import (
    ConnectionLost,
    Forbidden,
    Internal,
    IssuerUnavailable,
    Locked,
    NotReachable,
    Pki2fadError,
    ProtocolError,
    Refusal,
    Throttled,
    Unavailable,
    UnusablePath,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

# Exit codes, documented in GUIDE.md.
DONE = 0
INVALID = 1
USAGE = 2
NOT_REACHABLE = 3
FORBIDDEN = 4
TRY_LATER = 5
REFUSED = 6
FAILED = 7

_LIMIT = 1024 * 1024  # bytes of an input; it has one thing mostly
MANY = 512 * 1024 * 1024  # the same of an input that has many accounts; a million need less

PATIENCE = 120.0  # seconds for what concerns all accounts: hundreds of thousands take some

_EXIT_CODES: "tuple[tuple[type[BaseException], int], ...]" = (
    (NotReachable, NOT_REACHABLE),
    (Forbidden, FORBIDDEN),
    (Throttled, TRY_LATER),
    (Unavailable, TRY_LATER),
    (Locked, TRY_LATER),
    (IssuerUnavailable, TRY_LATER),
    (Internal, FAILED),
    (Refusal, REFUSED),
    (ConnectionLost, FAILED),
    (ProtocolError, FAILED),
    (UnusablePath, FAILED),
    (OSError, FAILED),
    (Pki2fadError, REFUSED),
)


def result(text: str, data: "Any", *, as_json: bool) -> None:
    """Print a result: `text`, or `data` as JSON."""
    if as_json:
        import json  # only here: the client's path does not pay for it

        text = json.dumps(data)
    if text:
        _to_stdout(lambda: print(_printable(text)))


def count(number: int, noun: str) -> str:
    """So many of something."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(text: str) -> str:
    """The text as it may be printed within a line, whoever chose it."""
    return _printable(text, keep="")


def error(message: str) -> None:
    """Say why the command did not do its work."""
    print(f"pki2factl: error: {_printable(message, keep='')}", file=sys.stderr)


def failure(code: str, message: str, retry_after: int | None = None) -> "dict[str, Any]":
    """What `--json` prints of a failure."""
    return {"error": code, "message": message, "retry_after": retry_after}


def hint(message: str) -> None:
    """Say what to do next."""
    watched = sys.stderr.isatty()  # somebody reads it while they are asked for something, or wait
    if watched:
        flush()  # what the hint is about comes before it
    print(f"pki2factl: hint: {_printable(message, keep='')}", file=sys.stderr)
    if watched:
        sys.stderr.flush()


def secret(text: str, instead: str, *, as_json: bool) -> None:
    """Show a secret if stdout is a terminal and no JSON, and else say on stderr `instead`."""
    if sys.stdout.isatty() and not as_json:
        print(text)
    else:
        hint(instead)


def has_key() -> bool:
    """False where `init` never ran: neither we nor root have a host's key here, in a file or sealed."""
    import contextlib
    import os

    from pki2fad.host import paths

    places = [
        os.path.join(paths.SYSTEM_CONFIG, paths.PRIVATE_KEY),
        paths.sealed_file(paths.PRIVATE_KEY),
    ]
    with contextlib.suppress(UnusablePath):  # no home
        places.append(os.path.join(paths.config_dir(), paths.PRIVATE_KEY))
    return any(map(os.path.lexists, places))


def start_command() -> str:
    """What starts the daemon here: systemd where it is installed there, or the program beside this one."""
    import os

    if os.path.exists("/run/systemd/system"):
        if os.geteuid() == 0 and any(map(os.path.exists, _units("system"))):
            return "systemctl enable --now pki2fad.socket"
        if any(map(os.path.exists, _units("user"))) and os.environ.get("XDG_RUNTIME_DIR"):
            return "systemctl --user enable --now pki2fad.socket"
    return beside_us("pki2fad")


def beside_us(command: str) -> str:
    """The path of another command of ours."""
    import os

    return os.path.join(os.path.dirname(sys.argv[0]), command)


def _units(whose: str) -> "list[str]":
    return [f"{place}/systemd/{whose}/pki2fad.socket" for place in ("/usr/local/lib", "/etc")]


def span(seconds: int) -> str:
    """A time to wait, for people."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds} s ({-(-seconds // length)} {unit})"
    return f"{seconds} s"


def read_stdin(limit: int = _LIMIT) -> bytes:
    """All of standard input. Raises `UnusablePath` if that is longer than `limit`."""
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise UnusablePath(f"standard input is longer than {limit} bytes")
    return data


def read_input(path: str, limit: int = _LIMIT) -> bytes:
    """The content of a file, for `-` of standard input. Raises `UnusablePath` if that is longer."""
    from pki2fad.host import files

    return read_stdin(limit) if path == "-" else files.read(path, limit)


def passphrase(prompt: str = "Passphrase: ", *, from_stdin: bool = False) -> str:
    """A passphrase, from standard input or a prompt; the line end is no part of it.

    Raises `BadRequest` where there is no terminal to ask at.
    """
    from pki2fad.errors import BadRequest

    if from_stdin:
        return read_stdin().decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise BadRequest("a passphrase is needed, and there is no terminal to ask for it; see --stdin")
    typed = ask(prompt)
    if typed is None:
        raise BadRequest("no passphrase was given")
    return typed


def ask(prompt: str) -> str | None:
    """What is typed at the terminal, unseen; None at its end (Ctrl-D)."""
    import getpass

    try:
        return getpass.getpass(prompt)
    except EOFError:
        end_line()
        return None


def end_line() -> None:
    """Leave the line of a prompt that was not answered, if there is a terminal."""
    if sys.stderr.isatty():
        print(file=sys.stderr)


def with_spinner(message: str, work: "Callable[[], T]") -> "T":
    """Do something that takes a while, with a spinner on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        return work()
    import itertools
    import threading

    done = threading.Event()

    def spin() -> None:
        frames = itertools.cycle("|/-\\")
        while not done.wait(0.1):
            print(f"\r{message} {next(frames)}", end="", file=sys.stderr, flush=True)
        print("\r" + " " * (len(message) + 2) + "\r", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        return work()
    finally:
        done.set()
        thread.join()


def flush() -> None:
    """Write out what was printed. Raises `OSError` if that fails, on a full disk for example."""
    _to_stdout(sys.stdout.flush)


def _to_stdout(write: "Callable[[], None]") -> None:
    """Write, and name standard output in the `OSError` if that fails."""
    try:
        write()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def exit_code(error: Exception) -> int:
    """The exit code of a command that an error ends."""
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))


def _printable(text: str, keep: str = "\n") -> str:
    """What came over the wire or from a path moves no cursor and forges no line."""
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)

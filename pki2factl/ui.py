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
NOT_VALID = 1
USAGE = 2
NOT_REACHABLE = 3
FORBIDDEN = 4
TRY_LATER = 5
REFUSED = 6
FAILED = 7

_LIMIT = 1024 * 1024  # bytes of an input that holds one thing
MANY = 512 * 1024 * 1024  # bytes of an input with many accounts; a million take less

PATIENCE = 120.0  # seconds for a request about all accounts, of which there may be hundreds of thousands

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
    """The number with its noun, `1 account` or `2 accounts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(text: str) -> str:
    """The text, made safe to print within a line."""
    return _printable(text, keep="")


def error(message: str) -> None:
    """Print why the command failed."""
    print(f"pki2factl: error: {_printable(message, keep='')}", file=sys.stderr)


def failure(code: str, message: str, retry_after: int | None = None) -> "dict[str, Any]":
    """The value that `--json` prints for a failure."""
    return {"error": code, "message": message, "retry_after": retry_after}


def hint(message: str) -> None:
    """Print what to do next."""
    watched = sys.stderr.isatty()  # a person reads along
    if watched:
        flush()  # what the hint is about comes before it
    print(f"pki2factl: hint: {_printable(message, keep='')}", file=sys.stderr)
    if watched:
        sys.stderr.flush()


def secret(text: str, instead: str, *, as_json: bool) -> None:
    """Print a secret if stdout is a terminal and no JSON is asked for, otherwise `instead` on stderr."""
    if sys.stdout.isatty() and not as_json:
        print(text)
    else:
        hint(instead)


def has_key() -> bool:
    """True if this user or root has a host's key here, in a file or sealed; False if `init` never ran."""
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
    """The command that starts the daemon: by systemd if its units are installed, else the one beside us."""
    import os

    if os.path.exists("/run/systemd/system"):
        if os.geteuid() == 0 and any(map(os.path.exists, _units("system"))):
            return "systemctl enable --now pki2fad.socket"
        if any(map(os.path.exists, _units("user"))) and os.environ.get("XDG_RUNTIME_DIR"):
            return "systemctl --user enable --now pki2fad.socket"
    return beside_us("pki2fad")


def beside_us(command: str) -> str:
    """The path of another command in the directory of this one."""
    import os

    return os.path.join(os.path.dirname(sys.argv[0]), command)


def _units(whose: str) -> "list[str]":
    return [f"{place}/systemd/{whose}/pki2fad.socket" for place in ("/usr/local/lib", "/etc")]


def span(seconds: int) -> str:
    """A time to wait, for people: `900 s (15 minutes)`."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds} s ({-(-seconds // length)} {unit})"
    return f"{seconds} s"


def read_stdin(limit: int = _LIMIT) -> bytes:
    """Read all of standard input. Raises `UnusablePath` if that is longer than `limit`."""
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise UnusablePath(f"standard input is longer than {limit} bytes")
    return data


def read_line() -> str:
    """Read the next line of standard input."""
    return sys.stdin.buffer.readline(_LIMIT).decode("utf-8", "replace")


def read_input(path: str, limit: int = _LIMIT) -> bytes:
    """Read a file, or standard input for `-`. Raises `UnusablePath` if it is longer than `limit`."""
    from pki2fad.host import files

    return read_stdin(limit) if path == "-" else files.read(path, limit)


def passphrase(prompt: str = "Passphrase: ", *, from_stdin: bool = False) -> str:
    """Read a passphrase from standard input or a prompt, without its line end.

    Raises `BadRequest` if there is no terminal to ask on.
    """
    from pki2fad.errors import BadRequest

    if from_stdin:
        return read_stdin().decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise BadRequest("a passphrase is needed, but there is no terminal to ask on; use --stdin")
    typed = ask(prompt)
    if typed is None:
        raise BadRequest("no passphrase was given")
    return typed


def ask(prompt: str) -> str | None:
    """Ask at the terminal, without echo; None at its end (Ctrl-D)."""
    import getpass

    try:
        return getpass.getpass(prompt)
    except EOFError:
        end_line()
        return None


def end_line() -> None:
    """End the line of a prompt without an answer, if there is a terminal."""
    if sys.stderr.isatty():
        print(file=sys.stderr)


def with_spinner(message: str, work: "Callable[[], T]") -> "T":
    """Do slow work, with a spinner on stderr if that is a terminal."""
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
    """The exit code for an error."""
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))


def _printable(text: str, keep: str = "\n") -> str:
    """Escape what is not printable: text from elsewhere moves no cursor and forges no line."""
    return "".join(char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text)

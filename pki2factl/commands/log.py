"""`pki2factl log`: what the daemon decided, in readable form."""

import argparse
import contextlib
import json
import os
import re
import subprocess
import time

from pki2fad import paths
from pki2fad.errors import UnusablePath

from .. import decision, ui

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Line = tuple[str, str]  # "2026-01-31 12:34:56" or "", and what comes after it

HELP = "show what the daemon decided, from the journal or its log file, and with -f go on with it"

_UNIT = "pki2fad"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} ")  # as the log file has it
_FOLLOWED = "10"  # lines to begin with, as tail and journalctl have it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where from, how much, and about whom."""
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more, until Ctrl-C")
    parser.add_argument(
        "-n",
        "--lines",
        metavar="LINES",
        type=_count,
        help="begin with the last LINES of the log, before any is left out (with -f 10, else all)",
    )
    parser.add_argument("--account", metavar="NAME", help="only what is about this account")
    parser.add_argument("--audit", action="store_true", help="only changes, and what was to be one")
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="read this log; else the journal where systemd runs the daemon, or its own log file",
    )


def run(options: argparse.Namespace) -> int:
    """Read the log from the child that follows it."""
    day, none = "", True
    name, lines = _log(options)
    for moment, text in lines:
        none = False
        found = decision.parse(text)
        if options.account is not None and (found is None or not found.is_about(options.account)):
            continue
        if options.audit and (found is None or "audit" not in found.fields):
            continue
        if options.json:
            data = {"text": text} if found is None else found.as_json()
            ui.result("", {**data, "time": moment or None}, as_json=True)
        else:
            date, _, clock = moment.partition(" ")
            if date not in ("", day):
                day = date
                ui.result(f"-- {day}", None, as_json=False)
            shown = text if found is None else found.readable()
            ui.result(f"{clock:8}  {ui.one_line(shown)}", None, as_json=False)
        ui.flush()
    if none:
        ui.hint(
            f"there is nothing in {name}; --file names another log, and a daemon in a terminal writes there"
        )
    return ui.DONE


def _log(options: argparse.Namespace) -> "tuple[str, Iterator[Line]]":
    """What the log is called, and its lines."""
    lines = options.lines or (_FOLLOWED if options.follow else None)
    follow = ["--follow"] if options.follow else []
    file, scope = (options.file, "") if options.file is not None else _source()
    if file is not None:
        try:
            open(file, "rb").close()
        except OSError as error:
            raise UnusablePath(f"cannot read {file}: {error.strerror}") from None
        # By name: after a rotation the new file is followed.
        command = ["tail", f"--lines={lines or '+1'}", *(["--follow=name", "--retry"] if follow else [])]
        return file, _of_file([*command, "--", file])
    command = ["journalctl", f"--{scope}unit={_UNIT}", "--output=json", *follow]
    name = f"the journal of the {'user' if scope else 'system'} unit {_UNIT}"
    return name, _of_journal([*command, f"--lines={lines or 'all'}"])


def _source() -> "tuple[str | None, str]":
    """The log file, or None and which kind of unit's journal: that of who runs the daemon here.

    A log file goes behind a unit that is active: it may be left from a first try without systemd.
    """
    own = "" if os.geteuid() == 0 else "user-"
    if _is_active(own):
        return None, own
    with contextlib.suppress(UnusablePath):  # no home
        file = os.path.join(paths.log_dir(paths.state_dir()), paths.DAEMON_LOG)
        if os.path.exists(file):
            return file, ""
    return None, ""


def _is_active(scope: str) -> bool:
    command = ["systemctl", *(["--user"] if scope else []), "is-active", "--quiet", _UNIT]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - no user input
    except FileNotFoundError:
        return False
    return done.returncode == 0


def _of_file(command: "list[str]") -> "Iterator[Line]":
    for line in _output(command):
        moment = _TIME.match(line)
        yield ("", line) if moment is None else (moment[1], line[moment.end() :])


def _of_journal(command: "list[str]") -> "Iterator[Line]":
    for line in _output(command):
        try:
            entry = json.loads(line)
        except ValueError:  # "-- No entries --"
            continue
        moment = time.localtime(int(entry["__REALTIME_TIMESTAMP"]) // 1_000_000)
        message = entry.get("MESSAGE")
        if isinstance(message, list):  # bytes that are no text
            message = bytes(message).decode("utf-8", "backslashreplace")
        if entry.get("_PID") == "1" or entry.get("SYSLOG_IDENTIFIER") == "systemd":
            message = f"systemd: {message}"  # of the unit
        yield time.strftime("%Y-%m-%d %H:%M:%S", moment), message or ""


def _output(command: "list[str]") -> "Iterator[str]":
    """The lines that a child prints; what it says on stderr the user sees."""
    try:
        child = subprocess.Popen(  # noqa: S603 - no shell, and a file's name behind `--`
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError:
        raise UnusablePath(f"there is no {command[0]} here; name a log with --file") from None
    try:
        assert child.stdout is not None
        for line in child.stdout:
            yield line.rstrip("\n")
        if child.wait() != 0:
            raise UnusablePath(f"{command[0]} failed (exit status {child.returncode})")
    finally:
        child.terminate()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def _count(text: str) -> str:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError("a number of lines")
    return text

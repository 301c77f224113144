"""`pki2factl log`: shows the daemon's decisions in readable form."""

import argparse
import json
import re
import subprocess
import time

from pki2factl import ui
from pki2factl.show import daemonlog, logfile
from pki2fad.client import Client
from pki2fad.errors import Forbidden, NotReachable, UnusablePath
from pki2fad.host import trust
from pki2fad.times import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Line = tuple[str, str]  # "2026-01-31T12:34:56+01:00" or "", and what comes after it

HELP = "show the daemon's decisions from its log; -f follows it"

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{3}([+-]\d\d:\d\d) ")
_OLD_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} ")  # local, as logs had it before
_WIDTH = len("2026-01-31T12:34:56+01:00")
_FOLLOWED = 10  # lines to begin with, as tail and journalctl have it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take which log, how much of it, and a filter."""
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more, until Ctrl-C")
    parser.add_argument(
        "-n",
        "--lines",
        metavar="LINES",
        type=_count,
        help="begin with the last LINES, counted before the filter (default: all, with -f 10)",
    )
    parser.add_argument("--account", metavar="NAME", help="only lines about this account")
    parser.add_argument("--audit", action="store_true", help="only changes, and attempts to make one")
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="read this log instead of asking the daemon where it logs",
    )


def run(options: argparse.Namespace) -> int:
    """Read the log from where the daemon writes it."""
    if options.file is not None:
        return _show(options, f"{options.file}", _of_named(options))
    status = _status(options)
    place = status.get("log")
    if place is None:
        raise Forbidden("only root and the daemon's user can see where it logs; name the log with --file")
    if place["kind"] == "file":
        return _show(options, f"{place['path']}", _of_daemons(options, place))
    if place["kind"] == "journal":
        unit = place["unit"] or f"pid {status['pid']}"
        return _show(options, f"the journal of {unit}", _of_journal(options, place, status["pid"]))
    where = f"the terminal {place['path']}" if place["kind"] == "terminal" else f"{place.get('path')}"
    ui.hint(f"the daemon (pid {status['pid']}) keeps no log; its lines go to {where}")
    return ui.DONE


def _status(options: argparse.Namespace) -> "dict[str, Any]":
    try:
        with Client(options.socket) as client:
            return client.status()
    except NotReachable as error:
        what = "; for the log of a daemon that ended see `journalctl -u pki2fad`, or name it with --file"
        raise type(error)(f"{error}{what}") from None


def _show(options: argparse.Namespace, name: str, lines: "Iterator[Line]") -> int:
    read, none_shown = 0, True
    for when, text in lines:
        read += 1
        found = daemonlog.parse(text)
        if options.account is not None and (found is None or not found.is_about(options.account)):
            continue
        if options.audit and (found is None or "audit" not in found.fields):
            continue
        if options.json:
            data = {"text": text} if found is None else found.as_json()
            ui.result("", {**data, "time": when or None}, as_json=True)
        else:
            shown = text if found is None else found.readable()
            ui.result(f"{when:{_WIDTH}}  {ui.one_line(shown)}", None, as_json=False)
        none_shown = False
        ui.flush()
    if not read:
        ui.hint(f"{name} is empty")
    elif none_shown:
        picked = ["a change"] if options.audit else []
        picked += [] if options.account is None else [f"about account {options.account}"]
        if options.lines is None:
            ui.hint(f"no line in {name} is {' '.join(picked)}")
        else:
            last = f"none of the last {options.lines} lines is {' '.join(picked)}"
            ui.hint(f"{last}; without -n all lines are searched")
    return ui.DONE


def _first(options: argparse.Namespace) -> int | None:
    """How many lines of the log to begin with, None for all."""
    if options.lines is not None:
        return int(options.lines)
    return _FOLLOWED if options.follow else None


def _of_named(options: argparse.Namespace) -> "Iterator[Line]":
    def again() -> "Any":
        return logfile.open_named(options.file)

    return map(_timed, logfile.lines(again(), _first(options), again if options.follow else None))


def _of_daemons(options: argparse.Namespace, place: "dict[str, Any]") -> "Iterator[Line]":
    path, owners = str(place["path"]), {0, place["uid"]}

    def again() -> "Any":
        return open(trust.open_owned(path, owners), "rb")

    file = again()
    if not logfile.is_file(file, place["device"], place["inode"]):
        file.close()
        raise UnusablePath(
            f"{path} is not the daemon's log: the daemon runs elsewhere, for example in a container"
        )
    return map(_timed, logfile.lines(file, _first(options), again if options.follow else None))


def _timed(line: str) -> "Line":
    """A line of a log file: its time without the fraction, and the rest."""
    found = _TIME.match(line)
    if found is not None:
        return found[1] + found[2], line[found.end() :]
    found = _OLD_TIME.match(line)
    if found is None:
        return "", line
    return moment(time.mktime(time.strptime(found[1], "%Y-%m-%d %H:%M:%S"))), line[found.end() :]


def _of_journal(options: argparse.Namespace, place: "dict[str, Any]", pid: int) -> "Iterator[Line]":
    unit, uid = place["unit"], f"_UID={place['uid']:d}"
    if unit is None:
        matches = ["--boot", f"_PID={pid:d}", uid]
    elif place["manager"] == "user":
        matches = [f"_SYSTEMD_USER_UNIT={unit}", uid, "+", f"USER_UNIT={unit}", uid]
    else:
        matches = [f"_SYSTEMD_UNIT={unit}", uid, "+", f"UNIT={unit}", "_PID=1"]
    first = _first(options)
    command = ["journalctl", "--output=json", f"--lines={'all' if first is None else first}"]
    for line in _output([*command, *(["--follow"] if options.follow else []), *matches]):
        try:
            entry = json.loads(line)
        except ValueError:  # "-- No entries --"
            continue
        message = entry.get("MESSAGE")
        if isinstance(message, list):  # bytes that are no text
            message = bytes(message).decode("utf-8", "backslashreplace")
        if entry.get("_PID") == "1" or entry.get("SYSLOG_IDENTIFIER") == "systemd":
            message = f"systemd: {message}"  # about the unit
        yield moment(int(entry["__REALTIME_TIMESTAMP"]) // 1_000_000), message or ""


def _output(command: "list[str]") -> "Iterator[str]":
    """The lines that a child prints on stdout; its stderr goes to the user."""
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
        raise argparse.ArgumentTypeError("it has to be a number of lines")
    return text

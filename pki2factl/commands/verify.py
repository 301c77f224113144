"""`pki2factl verify`: checks a code."""

import argparse
import sys

from pki2factl import ui
from pki2factl.login import typed
from pki2fad.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = "check a code and spend it; the exit code is 0 if it is valid, 1 if not"

_REASONS = {"used": "used before", "old": "shown some time ago, and is too old"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the code from the command line, standard input or a prompt."""
    parser.add_argument(
        "code",
        nargs="*",
        metavar="CODE",
        help="blanks in it do not matter, and a recovery code will do; without CODE it is asked for",
    )
    parser.add_argument("--stdin", action="store_true", help="read the code from standard input")
    parser.add_argument("--account", default="default", metavar="NAME")
    parser.add_argument(
        "--origin", help="where the attempt comes from, for example an address (needs the role relay)"
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show whether it was used or is old (needs admin for all accounts)",
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    if options.code and options.stdin:
        options.usage_error("give CODE or --stdin, not both")
    given: str | None = " ".join(options.code) if options.code else _read(options)
    if given is None:
        options.usage_error("a CODE or --stdin is needed")
        raise AssertionError  # a usage error ends the command
    code = typed.code(given)
    with Client(options.socket) as client:
        if options.explain:
            data = client.verify_explained(code, options.account, origin=options.origin)
        else:
            data = {"valid": client.verify(code, options.account, origin=options.origin)}
    ui.result(_text(data), data, as_json=options.json)
    return ui.DONE if data["valid"] else ui.NOT_VALID


def _text(data: "dict[str, Any]") -> str:
    if data["valid"]:
        left = data.get("recovery")
        return "valid" if left is None else f"valid; {ui.count(left, 'recovery code')} left"
    reason = data.get("reason")
    return f"invalid: it was {_REASONS.get(reason, reason)}" if reason else "invalid"


def _read(options: argparse.Namespace) -> str | None:
    if options.stdin:
        return ui.read_stdin().decode("utf-8", "replace")
    if not sys.stdin.isatty():
        return None
    from pki2factl.login import readiness

    readiness.require_somebody(options.socket)  # before a code is typed that nobody could check
    return ui.ask("Code: ")

"""`pki2factl verify`: is a code good?"""

import argparse
import sys

from pki2fad.client import Client
from pki2fad.errors import BadRequest

from .. import ui

HELP = "check a code, which is spent then; the exit code is 0 for a valid and 1 for an invalid one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The code, from the command line, standard input or a prompt."""
    parser.add_argument("code", nargs="?", metavar="CODE", help="without it, a terminal is asked for it")
    parser.add_argument("--stdin", action="store_true", help="read the code from standard input")
    parser.add_argument("--account", default="default", metavar="NAME")
    parser.add_argument("--origin", help="for whom you ask, an address say (needs the role relay)")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    if (options.code is not None) and options.stdin:
        options.usage_error("give CODE or --stdin, not both")
    code: str | None = options.code if options.code is not None else _read(options)
    if code is None:
        options.usage_error("a CODE or --stdin is needed")
        raise AssertionError  # a usage error ends the command
    with Client(options.socket) as client:
        valid = client.verify(code, options.account, origin=options.origin)
    ui.result("valid" if valid else "invalid", {"valid": valid}, as_json=options.json)
    return ui.DONE if valid else ui.INVALID


def _read(options: argparse.Namespace) -> str | None:
    if options.stdin:
        try:
            return ui.read_stdin().decode("ascii").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise BadRequest("a code is 6 to 8 ASCII digits") from None
    if not sys.stdin.isatty():
        return None
    return ui.ask("Code: ")

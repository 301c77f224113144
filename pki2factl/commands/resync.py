"""`pki2factl resync`: follows an authenticator whose clock is off, or whose counter is ahead."""

import argparse
import sys

from pki2factl import arguments, ui
from pki2factl.login import readiness, typed
from pki2fad.client import Client

HELP = "follow an authenticator whose clock is off or whose counter is ahead, by two codes in a row"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the account; the codes come from a prompt or standard input."""
    arguments.add_account(parser, required=True)
    arguments.add_label(parser, "this authenticator (default: main)")
    parser.add_argument("--stdin", action="store_true", help="read both codes from standard input")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    first, second = _read(options)
    with Client(options.socket) as client:
        found = client.resync_result(first, second, options.account, label=options.label)
    if "counter" in found:
        text = f"{options.account}: the next counter of the token is {found['counter']}"
    else:
        text = f"{options.account}: the authenticator is {found['offset']:+d} steps from now"
    ui.result(text, found, as_json=options.json)
    return ui.DONE


def _read(options: argparse.Namespace) -> list[str]:
    if options.stdin:
        codes = typed.two_codes(ui.read_stdin().decode("utf-8", "replace"))
    elif sys.stdin.isatty():
        with Client(options.socket) as client:  # not kept open, as people may take their time
            readiness.require(client)
        asked = [ui.ask("Code: "), ui.ask("The next code: ")]
        codes = [typed.code(code) for code in asked if code]
    else:
        options.usage_error("there is no terminal to ask on; use --stdin")
    if len(codes) != 2:
        options.usage_error("two codes are needed")
    return codes

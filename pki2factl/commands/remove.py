"""`pki2factl remove`: removes an account, or one of its authenticators."""

import argparse
import sys

from pki2factl import arguments, ui
from pki2factl.login import readiness, typed
from pki2fad.client import Client

HELP = "remove an account or an authenticator; its codes stay spent if the same seed is loaded again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the account, without a default, or an authenticator of the user's own."""
    arguments.add_account(parser)
    arguments.add_label(
        parser,
        "only this authenticator, which must not be the last (default: all); without an account one of your"
        " own, which takes a code of another one or a recovery code",
    )
    parser.add_argument("--stdin", action="store_true", help="read that code from standard input")
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    account, label = options.account, options.label
    if account is None and label is None:
        options.usage_error("one of the arguments ACCOUNT --account --label is required")
    code = _read(options) if account is None or options.stdin else None
    with Client(options.socket) as client:
        client.remove(account, label=label, code=code)
    data = {"account": account, "label": label}
    data = {key: value for key, value in data.items() if value is not None}
    ui.result("removed " + " ".join(data.values()), data, as_json=options.json)
    return ui.DONE


def _read(options: argparse.Namespace) -> str:
    """The code that proves who the caller is."""
    if options.stdin:
        return typed.code(ui.read_stdin().decode("utf-8", "replace"))
    if not sys.stdin.isatty():
        options.usage_error("there is no terminal to ask on for the code; use --stdin")
    readiness.require_somebody(options.socket)  # before a code is typed that nobody could check
    return typed.code(ui.ask("Code of another authenticator, or a recovery code: ") or "")

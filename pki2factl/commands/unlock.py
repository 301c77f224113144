"""`pki2factl unlock`: lets the daemon open its keys again."""

import argparse

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.errors import Locked

HELP = "let the daemon open its keys again; asks for the passphrase if the host's key has one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take where the passphrase comes from."""
    parser.add_argument("--stdin", action="store_true", help="read the passphrase from standard input")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        if options.stdin:
            client.unlock(ui.passphrase(from_stdin=True))
        else:
            try:
                client.unlock()
            except Locked:  # it needs one
                client.unlock(ui.passphrase())
    ui.result("unlocked", {"locked": False}, as_json=options.json)
    return ui.DONE

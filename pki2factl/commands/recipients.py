"""`pki2factl recipients list`: lists the host keys that open the daemon's state."""

import argparse

from pki2factl import ui
from pki2fad.client import Client

HELP = "list the host keys that open the daemon's state"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the one action."""
    parser.add_argument("action", choices=["list"], metavar="list", help="show their fingerprints")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        recipients = client.recipients()
    lines = [
        f"{slot['fingerprint']}  this host, {'in use' if slot['current'] else 'not in use'}"
        for slot in recipients
    ]
    ui.result("\n".join(lines), recipients, as_json=options.json)
    if len(recipients) > 1:
        ui.hint("a rotation of the key was interrupted; finish it with: pki2factl rotate-key")
    return ui.DONE

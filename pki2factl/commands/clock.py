"""`pki2factl clock accept`: accepts the host's clock as right."""

import argparse

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.times import moment

HELP = "accept the host's clock as right, after it was set back or had been ahead"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take one word, so that nobody does it by accident."""
    parser.add_argument("action", choices=["accept"], metavar="accept", help="trust the clock as it is now")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        accepted = client.clock_accept()
    lines = [f"accepted {moment(accepted['time'])}"]
    if accepted["spent_until"] is not None:
        lines.append(
            f"codes from {moment(accepted['spent_from'])} to {moment(accepted['spent_until'])} stay"
            " spent: the clock was there when it was ahead"
        )
    ui.result("\n".join(lines), accepted, as_json=options.json)
    return ui.DONE

"""`pki2factl status`: how the daemon is."""

import argparse
import time

from pki2fad.client import Client

from .. import ui

HELP = "show how the daemon is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        status = client.status()
    lines = [
        f"pki2fad {status['version']}, pid {status['pid']}, up {status['uptime']} s",
        f"accounts: {status['accounts']}",
    ]
    if status["unavailable_until"] is not None:
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(status["unavailable_until"]))
        lines.append(
            f"verify answers from {until} on: before, codes may have been used that are not on record"
        )
    ui.result("\n".join(lines), status, as_json=options.json)
    return ui.DONE

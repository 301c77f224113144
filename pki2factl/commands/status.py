"""`pki2factl status`: how the daemon is."""

import argparse

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
        f"clock: {status['clock']}",
    ]
    if status["locked"]:
        lines.append("locked; unlock with: pki2factl unlock")
    if status["clock_behind"] > 30:
        lines.append(
            f"the clock is {status['clock_behind']} s behind what it was; if it is right now:"
            " pki2factl clock accept"
        )
    if not status["throttling"]:
        lines.append("wrong codes are not throttled: [throttle] enabled = false")
    if status["unavailable_until"] is not None:
        until = ui.moment(status["unavailable_until"])
        lines.append(
            f"verify answers from {until} on: before, codes may have been used that are not on record"
        )
    ui.result("\n".join(lines), status, as_json=options.json)
    return ui.DONE

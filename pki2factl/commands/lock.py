"""`pki2factl lock`: makes the daemon forget its keys."""

import argparse

from pki2factl import ui
from pki2fad.client import Client

HELP = "wipe keys and codes from the daemon's memory, until unlock"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take none."""


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        client.lock()
    ui.result("locked", {"locked": True}, as_json=options.json)
    return ui.DONE

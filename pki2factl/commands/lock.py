"""`pki2factl lock`: let the daemon forget its keys."""

import argparse

from pki2factl import ui
from pki2fad.client import Client

HELP = "let no key and no code stay in the daemon's memory, until unlock"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        client.lock()
    ui.result("locked", {"locked": True}, as_json=options.json)
    return ui.DONE

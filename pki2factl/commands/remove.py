"""`pki2factl remove`: remove an account."""

import argparse

from pki2factl import arguments, ui
from pki2fad.client import Client

HELP = "remove an account; its codes stay spent, should the same seed come back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The account: it has to be named."""
    arguments.add_account(parser, required=True)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        client.remove(options.account)
    ui.result(f"removed {options.account}", {"account": options.account}, as_json=options.json)
    return ui.DONE

"""`pki2factl remove`: removes an account."""

import argparse

from pki2factl import arguments, ui
from pki2fad.client import Client

HELP = "remove an account; its codes stay spent if the same seed is loaded again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the account, without a default."""
    arguments.add_account(parser, required=True)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        client.remove(options.account)
    ui.result(f"removed {options.account}", {"account": options.account}, as_json=options.json)
    return ui.DONE

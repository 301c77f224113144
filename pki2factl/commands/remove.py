"""`pki2factl remove`: removes an account, or one of its authenticators."""

import argparse

from pki2factl import arguments, ui
from pki2fad.client import Client

HELP = "remove an account or an authenticator; its codes stay spent if the same seed is loaded again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the account, without a default."""
    arguments.add_account(parser, required=True)
    arguments.add_label(parser, "only this authenticator, which must not be the last (default: all)")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        client.remove(options.account, label=options.label)
    if options.label is None:
        text, data = f"removed {options.account}", {"account": options.account}
    else:
        text = f"removed {options.account} {options.label}"
        data = {"account": options.account, "label": options.label}
    ui.result(text, data, as_json=options.json)
    return ui.DONE

"""`pki2factl generate`: the current code of an account."""

import argparse

from pki2fad.client import Client

from .. import ui

HELP = "print the current code of an account"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The account, `default` unless it is named."""
    parser.add_argument("account", nargs="?", default="default", metavar="ACCOUNT")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        code = client.generate(options.account)
    data = {"code": code.code, "valid_for": code.valid_for, "step": code.step}
    ui.result(code.code, data, as_json=options.json)
    return ui.DONE

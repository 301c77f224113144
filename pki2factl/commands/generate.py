"""`pki2factl generate`: prints the current code of an account."""

import argparse

from pki2factl import arguments, ui
from pki2fad.client import Client

HELP = "print the current code of an account"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the account."""
    arguments.add_account(parser, default="default")
    arguments.add_label(parser, "of this authenticator (default: the first that is no HOTP token)")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        code = client.generate(options.account, label=options.label)
    data = {"code": code.code, "valid_for": code.valid_for, "step": code.step}
    ui.result(code.code, data, as_json=options.json)
    return ui.DONE

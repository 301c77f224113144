"""`pki2factl accounts`: what accounts there are."""

import argparse
import time

from pki2fad.client import Account, Client

from .. import ui

HELP = "list the accounts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        accounts = client.accounts()
    data = [{name: getattr(account, name) for name in Account.__slots__} for account in accounts]
    ui.result("\n".join(map(_line, accounts)), data, as_json=options.json)
    return ui.DONE


def _line(account: Account) -> str:
    used = "never"
    if account.last_used is not None:
        used = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(account.last_used))
    return (
        f"{account.account}  {account.algorithm}, {account.digits} digits, {account.period} s,"
        f" last used: {used}"
    )

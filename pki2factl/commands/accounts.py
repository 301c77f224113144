"""`pki2factl accounts`: lists the accounts."""

import argparse

from pki2factl import ui
from pki2fad.client import Account, Client
from pki2fad.times import moment

HELP = "list the accounts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take none."""


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        accounts = client.accounts()
    data = [{name: getattr(account, name) for name in Account.__slots__} for account in accounts]
    ui.result("\n".join(map(_line, accounts)), data, as_json=options.json)
    if not accounts:
        ui.hint("there are no accounts that you administer; load one with: pki2factl load FILE")
    return ui.DONE


def _line(account: Account) -> str:
    used = "none" if account.last_used is None else f"up to that of {moment(account.last_used)}"
    line = (
        f"{account.account}  {account.algorithm}, {account.digits} digits, {account.period} s,"
        f" codes spent: {used}"
    )
    if any(account.drift):  # an authenticator whose clock is right has none
        line += f", drift: {' '.join(format(steps, '+d') for steps in account.drift)}"
    if account.offset:
        line += f", offset: {account.offset:+d}"
    return line + _successor(account)


def _successor(account: Account) -> str:
    of = account.successor
    if of is None:
        return ""
    text = f"; successor: {of['algorithm']}, {of['digits']} digits, {of['period']} s"
    if of["deadline"] is None:
        return text
    return f"{text}, {'takes over at' if of['cutover'] else 'until'} {moment(of['deadline'])}"

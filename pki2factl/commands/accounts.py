"""`pki2factl accounts`: lists the accounts and their authenticators."""

import argparse

from pki2factl import ui
from pki2fad.client import Account, Client
from pki2fad.times import moment
from pki2fad.wire.forms import MAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = "list the accounts and their authenticators"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take which ones."""
    parser.add_argument(
        "match", nargs="?", metavar="PATTERN", help="only names like this, for example 'web-*'"
    )


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket, ui.PATIENCE) as client:
        accounts = client.accounts(options.match)
    data = [{name: getattr(account, name) for name in Account.__slots__} for account in accounts]
    ui.result("\n".join(map(_lines, accounts)), data, as_json=options.json)
    if not accounts and options.match is None:
        ui.hint("there are no accounts that you administer; load one with: pki2factl load FILE")
    elif not accounts:
        ui.hint(f"no account that you administer has a name like {options.match!r}")
    return ui.DONE


def _lines(account: Account) -> str:
    """One line for an account that has `main` alone, otherwise one more for each authenticator."""
    first, *others = account.authenticators
    if not others and first["label"] == MAIN:
        return f"{account.account}  {_described(first)}{_left(account, '; ')}"
    lines = [f"  {one['label']}  {_described(one)}" for one in account.authenticators]
    return "\n".join([account.account + _left(account, "  "), *lines])


def _left(account: Account, before: str) -> str:
    if account.recovery is None:
        return ""
    return f"{before}{ui.count(account.recovery, 'recovery code')} left"


def _described(one: "dict[str, Any]") -> str:
    used = one["last_used"]
    if one["kind"] == "hotp":
        last = "never used" if used is None else f"last used {moment(used)}"
        line = f"{_parameters(one)}, next counter: {one['counter']}, {last}"
        if one["inactive"]:  # it comes from a backup
            line += ", inactive until resync"
    else:
        line = (
            f"{_parameters(one)}, codes spent: {'none' if used is None else f'up to that of {moment(used)}'}"
        )
    if any(one["drift"]):  # an authenticator whose clock is right has none
        line += f", drift: {' '.join(format(steps, '+d') for steps in one['drift'])}"
    if one["offset"]:
        line += f", offset: {one['offset']:+d}"
    if one["short"]:
        line += ", short seed"
    return line + _successor(one["successor"])


def _parameters(of: "dict[str, Any]") -> str:
    made_by = f"{of['period']} s" if of["period"] else "HOTP"
    return f"{of['algorithm']}, {of['digits']} digits, {made_by}"


def _successor(of: "dict[str, Any] | None") -> str:
    if of is None:
        return ""
    text = f"; successor: {_parameters(of)}"
    if of["deadline"] is None:
        return text
    return f"{text}, {'takes over at' if of['cutover'] else 'until'} {moment(of['deadline'])}"

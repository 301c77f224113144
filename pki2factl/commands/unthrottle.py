"""`pki2factl unthrottle`: lets all callers of an account try again at once, after wrong codes."""

import argparse

from pki2factl import arguments, ui
from pki2factl.commands import throttled
from pki2fad.client import Client

HELP = "let all callers of an account try again at once, after wrong codes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the account, without a default."""
    arguments.add_account(parser, required=True)
    parser.add_argument("--force", action="store_true", help="also for the fourth time in 30 days")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        waited = throttled.somebody_waits(client.throttled(options.account))
        left = client.unthrottle(options.account, force=options.force)
    data = {"account": options.account, "left": left, "waited": waited}
    ui.result(f"unthrottled {options.account}", data, as_json=options.json)
    if not waited:
        ui.hint("nobody waited: no caller was being refused")
    if not left:
        which = "three times or more" if options.force else "three times"
        ui.hint(f"it was unthrottled {which} in 30 days; the next time needs --force")
    return ui.DONE

"""`pki2factl load`: loads a sealed seed into the daemon."""

import argparse
import re
import time

from pki2factl import arguments, ui
from pki2fad.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = "load a sealed seed (base64), from a file or standard input"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the file, and parameters for a file that has none."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="- or nothing: standard input")
    arguments.add_account_and_parameters(parser)
    arguments.add_authenticator(parser, "the authenticator that gets it; a new one is added (default: main)")
    parser.add_argument("--replace", action="store_true", help="replace another seed of the authenticator")
    parser.add_argument(
        "--successor",
        action="store_true",
        help="keep the old seed too, until the first code of this one is accepted",
    )
    parser.add_argument(
        "--deadline",
        type=_moment,
        metavar="WHEN",
        help="when to drop a successor that is not in use yet: 2026-12-31, 2026-12-31T12:00:00Z (UTC), +7d"
        " or +12h",
    )
    parser.add_argument("--cutover", action="store_true", help="at the deadline drop the old seed instead")


def run(options: argparse.Namespace) -> int:
    """Send it to the daemon."""
    from pki2fad.crypto import sealing

    arguments.parameters(options)  # wrong ones are refused without a daemon
    sealed = ui.read_input(options.file)
    _require_sealed(sealed)
    with Client(options.socket) as client:
        loaded = client.load_result(
            sealing.sealed_from_text(sealed),
            options.account,
            **arguments.given(options),
            replace=options.replace,
            successor=options.successor,
            deadline=options.deadline,
            cutover=options.cutover,
            label=options.label,
            counter=options.counter,
            short=options.short,
        )
    ui.result(_said(loaded, options), loaded, as_json=options.json)
    return ui.DONE


def _said(loaded: "dict[str, Any]", options: argparse.Namespace) -> str:
    account, count = loaded["account"], loaded["authenticators"]
    which = f"{account} {options.label}" if options.label else account
    if loaded["changed"]:
        text = f"loaded {'a successor of ' if options.successor else ''}{which}"
    else:
        text = f"{which} has this {'successor' if options.successor else 'seed'} already"
    return text if count == 1 else f"{text}; {account} has {count} authenticators"


def _require_sealed(text: bytes) -> None:
    """Raise `BadSeal` for a seed in plain text, before it is sent."""
    from pki2factl.issuing import seedtext
    from pki2fad.errors import BadSeal

    try:
        seedtext.seed(text)
    except ValueError:
        return
    raise BadSeal(
        "this is a seed in plain text; seal it first: pki2factl seal --to host.pub.pem --seed-stdin"
    )


def _moment(text: str) -> int:
    """The Unix time of a date, a date and time, or a number of days or hours from now."""
    ahead = re.fullmatch(r"\+([0-9]{1,5})([dh])", text)
    if ahead is not None:
        return int(time.time()) + int(ahead[1]) * (86_400 if ahead[2] == "d" else 3_600)
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a date (2026-12-31), a date and time (2026-12-31T12:00:00Z), +7d nor +12h"
        ) from None
    seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if seconds <= time.time():
        raise argparse.ArgumentTypeError(f"{text!r} is in the past")
    return seconds

"""`pki2factl throttled`: lists callers that have to wait after wrong codes."""

import argparse

from pki2factl import arguments, ui
from pki2factl.show import daemonlog
from pki2fad.client import Client
from pki2fad.times import moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELP = "list accounts and callers that have to wait after wrong codes, and until when"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take one account or all, and one caller of it."""
    arguments.add_account(parser)
    parser.add_argument(
        "--uid", type=int, metavar="U", help="also show whether this uid has to wait for ACCOUNT"
    )
    parser.add_argument(
        "--origin", metavar="O", help="the origin that this uid asks for, for example an address"
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    if options.origin is not None and options.uid is None:
        options.usage_error("--origin needs --uid")
    if options.uid is not None and options.account is None:
        options.usage_error("--uid needs ACCOUNT")
    with Client(options.socket) as client:
        throttled = client.throttled(options.account, uid=options.uid, origin=options.origin)
    ui.result("\n".join(_lines(throttled)), throttled, as_json=options.json)
    if somebody_waits(throttled):
        ui.hint(f"to let them try again at once: pki2factl unthrottle {options.account or 'ACCOUNT'}")
    elif throttled["refusals"]:
        ui.hint("nobody has to wait any more")
    else:
        ui.hint("nobody has to wait, and nobody was refused since the daemon started")
    return ui.DONE


def somebody_waits(throttled: "dict[str, Any]") -> bool:
    """True if a caller in an answer of the method `throttled` has to wait now."""
    waits = [_waits_until(refusal) for refusal in throttled["refusals"]]
    for account in throttled["accounts"]:
        waits += [account["until"], *(known["until"] for known in account["known"])]
    if throttled["caller"] is not None:
        waits.append(throttled["caller"]["until"])
    return any(waits)


def _lines(throttled: "dict[str, Any]") -> "list[str]":
    lines = []
    for account in throttled["accounts"]:
        until = account["until"]
        unknown = "wait only for their own wrong codes" if until is None else _wait(until)
        lines.append(f"account {account['account']}: unknown callers {unknown}")
        lines += [
            f"  {_known(known)}, last right code {moment(known['last_success'])}: {_wait(known['until'])}"
            for known in account["known"]
        ]
    caller = throttled["caller"]
    if caller is not None:
        known = "known" if caller["known"] else "not known"
        lines.append(f"{_who(caller)}: {known}, {_wait(caller['until'])}")
    lines += map(_refusal, throttled["refusals"])
    return lines


def _refusal(refusal: "dict[str, Any]") -> str:
    until = _waits_until(refusal)
    words = [
        moment(refusal["time"]),
        refusal["method"].ljust(8),
        _who(refusal),
        f"account {daemonlog.shown(refusal['account'])}",
        "was refused, may try now" if until is None else f"refused, has to {_wait(until)}",
    ]
    if refusal["times"] > 1:
        words.append(f"{refusal['times']} times")
    return "  ".join(words)


def _known(caller: "dict[str, Any]") -> str:
    if caller["uid"] is None:
        return "a known caller (named once it is refused)"
    return f"known caller {_who(caller)}"


def _who(caller: "dict[str, Any]") -> str:
    user = daemonlog.user(str(caller["uid"]))
    return f"{user}  origin {daemonlog.shown(caller['origin'])}" if caller["origin"] else user


def _waits_until(refusal: "dict[str, Any]") -> int | None:
    # An older daemon has only the time that it gave to the caller.
    until: int | None = refusal.get("waits_until", refusal["until"])
    return until


def _wait(until: int | None) -> str:
    return "may try now" if until is None else f"wait until {moment(until)}"

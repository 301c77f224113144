"""`pki2factl status`: shows the daemon's state."""

import argparse

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.times import CLOCK_BEHIND, moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

HELP = "show the daemon's state"

# Troubles of the daemon, for people.
_TROUBLES = {
    "state": "a change could not be stored, so no code is accepted",
    "reload": "the last reload failed, so the old settings are in use",
    "minute_log": "the minute log cannot be written",
    "seeds": "a file of seeds.d was ignored",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take whether the exit code shows trouble."""
    parser.add_argument("--check", action="store_true", help="exit with 6 if something is wrong")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        status = client.status()
    troubles = list(_troubles(status))
    ui.result("\n".join([*_lines(status), *troubles]), status, as_json=options.json)
    return ui.REFUSED if options.check and troubles else ui.DONE


def _lines(status: "dict[str, Any]") -> "Iterator[str]":
    since = moment(status["started"])
    yield f"pki2fad {status['version']}, pid {status['pid']}, up {_duration(status['uptime'])}, since {since}"
    yield f"accounts: {status['accounts']}"
    yield f"keys: {'locked; unlock with: pki2factl unlock' if status['locked'] else 'unlocked'}"
    if status.get("cheap_passphrase"):
        yield "the passphrase of the host's key is cheap to guess; renew the key with: pki2factl rotate-key"
    if status["clock"] == "synchronised":
        yield "clock: synchronised"
    else:
        yield "clock: not set by systemd-timesyncd; codes are good if it is right, see timedatectl"
    if status["throttling"]:
        yield "throttling of wrong codes: on"
    else:
        yield "throttling of wrong codes: OFF, by [throttle] enabled = false"
    if status["unavailable_until"] is not None:
        until = moment(status["unavailable_until"])
        verify = "verify: locked; after an unlock it" if status["locked"] else "verify"
        yield (
            f"{verify} answers for all accounts from {until} on; until then some wait, as codes may have been"
            " used that are not on record"
        )
    elif any(trouble["what"] == "state" for trouble in status["trouble"]):
        yield "verify: unavailable"
    else:
        yield f"verify: {'locked' if status['locked'] else 'available'}"
    if status["log_dropped"]:
        yield f"log: {ui.count(status['log_dropped'], 'line')} dropped since the start, as there was no room"


def _troubles(status: "dict[str, Any]") -> "Iterator[str]":
    """The troubles that an administrator has to fix."""
    for trouble in status["trouble"]:
        what = _TROUBLES.get(trouble["what"], trouble["what"])
        why = trouble["reason"] or "only root and administrators of all accounts see why"
        yield f"TROUBLE since {moment(trouble['since'])}: {what}: {ui.one_line(why)}"
    if status["clock_behind"] > CLOCK_BEHIND:
        yield (
            f"TROUBLE: the clock is {status['clock_behind']} s behind what it was; if it is right now:"
            " pki2factl clock accept"
        )


def _duration(seconds: int) -> str:
    """The time in its two largest units, for people."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"

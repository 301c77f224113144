"""`pki2factl status`: how the daemon is."""

import argparse

from pki2fad.client import Client

from .. import ui

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

HELP = "show how the daemon is"

# So far behind (seconds) it is told: slews and the leap of a second are less.
_BEHIND = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    with Client(options.socket) as client:
        status = client.status()
    ui.result("\n".join(_lines(status)), status, as_json=options.json)
    return ui.DONE


def _lines(status: "dict[str, Any]") -> "Iterator[str]":
    since = ui.moment(status["started"])
    yield f"pki2fad {status['version']}, pid {status['pid']}, up {_duration(status['uptime'])}, since {since}"
    yield f"accounts: {status['accounts']}"
    yield f"keys: {'locked; unlock with: pki2factl unlock' if status['locked'] else 'unlocked'}"
    if status["clock"] == "synchronised":
        yield "clock: synchronised"
    else:
        yield "clock: unconfirmed, as systemd-timesyncd has not set it; see timedatectl"
    if status["clock_behind"] > _BEHIND:
        yield (
            f"the clock is {status['clock_behind']} s behind what it was; if it is right now:"
            " pki2factl clock accept"
        )
    if status["throttling"]:
        yield "throttling of wrong codes: on"
    else:
        yield "throttling of wrong codes: OFF, by [throttle] enabled = false"
    if status["unavailable_until"] is None:
        yield f"verify: {'locked' if status['locked'] else 'available'}"
    else:
        until = ui.moment(status["unavailable_until"])
        yield f"verify answers from {until} on: before, codes may have been used that are not on record"


def _duration(seconds: int) -> str:
    """The two largest units of it, for people."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"

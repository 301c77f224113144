"""`pki2factl metrics`: prints the daemon's counters as OpenMetrics text."""

import argparse

from pki2factl import ui
from pki2factl.show import openmetrics
from pki2fad.client import Client
from pki2fad.errors import Pki2fadError, Refusal

HELP = "print the daemon's counters as OpenMetrics text (needs the role monitor)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the file."""
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="replace FILE, for node_exporter; also when no daemon answers, which the text says",
    )


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    try:
        with Client(options.socket) as client:
            metrics = client.metrics()
    except Refusal:
        raise
    except Pki2fadError:  # the file must not keep the counters of a daemon that is gone
        if options.out is not None:
            _write(options.out, openmetrics.unreachable())
        raise
    text = openmetrics.text(metrics)
    if options.out is None:
        ui.result(text.rstrip("\n"), metrics, as_json=options.json)
    else:
        _write(options.out, text)
        ui.result("", metrics, as_json=options.json)
    return ui.DONE


def _write(path: str, text: str) -> None:
    from pki2fad.host import files

    files.replace(path, text.encode(), files.PUBLIC)

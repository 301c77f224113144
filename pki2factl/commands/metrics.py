"""`pki2factl metrics`: what a monitor wants to know, as OpenMetrics text."""

import argparse

from pki2factl import ui
from pki2factl.show import openmetrics
from pki2fad.client import Client
from pki2fad.errors import Pki2fadError, Refusal

HELP = "print what was asked and how it was answered as OpenMetrics text (needs the role monitor)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the text goes."""
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write FILE anew, for node_exporter; if no daemon answers, it says so",
    )


def run(options: argparse.Namespace) -> int:
    """Ask the daemon."""
    try:
        with Client(options.socket) as client:
            metrics = client.metrics()
    except Refusal:
        raise
    except Pki2fadError:  # what was true of a daemon that is gone must not stay in the file
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

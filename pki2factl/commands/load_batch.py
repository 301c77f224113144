"""`pki2factl load-batch`: load what `seal-batch` sealed."""

import argparse

from pki2fad.client import Client
from pki2fad.errors import BadRequest, Pki2fadError

from .. import ui

HELP = "load the accounts of a file that 'pki2factl seal-batch' made"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="- or none: standard input")
    parser.add_argument("--replace", action="store_true", help="also where accounts have other seeds")


def run(options: argparse.Namespace) -> int:
    """Hand it to the daemon, line by line."""
    from pki2fad import batch, envelope

    lines = ui.read_input(options.file, batch.FILE_LIMIT).split()
    if not lines:
        raise BadRequest("the file is empty")
    batches = [envelope.sealed_from_text(line) for line in lines]  # all, before the first is loaded
    accounts, changed = 0, []
    with Client(options.socket, ui.PATIENCE) as client:
        for one in batches:
            try:
                loaded = client.load_batch(one, replace=options.replace)
            except Pki2fadError:
                if accounts:
                    ui.hint(
                        f"{ui.count(accounts, 'account')} of the file stay loaded; it may be loaded again"
                    )
                raise
            accounts += loaded["accounts"]
            changed += loaded["changed"]
    text = f"{ui.count(accounts, 'account')} in the file, {len(changed)} changed"
    ui.result(text, {"accounts": accounts, "changed": changed}, as_json=options.json)
    return ui.DONE

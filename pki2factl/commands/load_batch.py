"""`pki2factl load-batch`: load what `seal-batch` sealed."""

import argparse

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.errors import BadRequest, Refusal

HELP = "load the accounts of a file that 'pki2factl seal-batch' made"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="- or none: standard input")
    parser.add_argument(
        "--replace", action="store_true", help="also accounts that have another seed or other parameters"
    )


def run(options: argparse.Namespace) -> int:
    """Load it batch by batch. Nothing is loaded if a part of the file is not base64."""
    from pki2fad.crypto import sealing
    from pki2fad.transfer import batch

    texts = batch.texts(ui.read_input(options.file, ui.MANY))
    if not texts:
        raise BadRequest("there is no batch in it")
    batches, accounts, changed = [], 0, []
    for number, text in enumerate(texts, 1):
        try:
            batches.append(sealing.sealed_from_text(text))
        except Refusal as refusal:
            raise _of(number, refusal, accounts) from None
    with Client(options.socket, ui.PATIENCE) as client:
        for number, one in enumerate(batches, 1):
            try:
                loaded = client.load_batch(one, replace=options.replace)
            except Refusal as refusal:
                raise _of(number, refusal, accounts) from None
            except KeyboardInterrupt:
                ui.hint(f"{accounts} or more accounts are loaded; the file may be loaded again")
                raise
            accounts += loaded["accounts"]
            changed += loaded["changed"]
    said = f"{ui.count(accounts, 'account')} in the file, {len(changed)} changed"
    ui.result(said, {"accounts": accounts, "changed": changed}, as_json=options.json)
    return ui.DONE


def _of(number: int, refusal: Refusal, accounts: int) -> Refusal:
    """What was refused, which batch of the file it is, and how many accounts were loaded before it."""
    stay = f"; {ui.count(accounts, 'account')} before it stay loaded" if accounts else ""
    said = f"batch {number}: {refusal}{stay}"
    return type(refusal)(said, refusal.retry_after, is_answer=refusal.is_answer)

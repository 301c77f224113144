"""`pki2factl load-batch`: loads the accounts that `seal-batch` sealed."""

import argparse

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.errors import BadRequest, Refusal

HELP = "load the accounts in a file from 'pki2factl seal-batch'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the file."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="- or nothing: standard input")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="also replace authenticators that have another seed or other parameters",
    )


def run(options: argparse.Namespace) -> int:
    """Load it batch by batch. Nothing is loaded if a part of the file is not base64."""
    from pki2fad.crypto import sealing
    from pki2fad.transfer import batch

    texts = batch.texts(ui.read_input(options.file, ui.MANY))
    if not texts:
        raise BadRequest("the input has no batch")
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
                ui.hint(f"at least {accounts} accounts are loaded; load the file again for the rest")
                raise
            accounts += loaded["accounts"]
            changed += loaded["changed"]
    said = f"{ui.count(accounts, 'account')} in the file, {len(changed)} changed"
    ui.result(said, {"accounts": accounts, "changed": changed}, as_json=options.json)
    return ui.DONE


def _of(number: int, refusal: Refusal, accounts: int) -> Refusal:
    """The refusal, with the number of the batch and of the accounts loaded before it."""
    stay = f"; {ui.count(accounts, 'account')} before it stay loaded" if accounts else ""
    said = f"batch {number}: {refusal}{stay}"
    return type(refusal)(said, refusal.retry_after, is_answer=refusal.is_answer)

"""`pki2factl load`: load a sealed seed into the daemon."""

import argparse

from pki2fad.client import Client
from pki2fad.errors import BadRequest

from .. import ui

HELP = "load a sealed seed (base64), from a file or standard input"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and how codes are made from the seed."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="- or none: standard input")
    parser.add_argument("--account", default="default", metavar="NAME")
    parser.add_argument(
        "--algorithm", default="SHA1", metavar="A", help="SHA1, SHA256 or SHA512 (default: SHA1)"
    )
    parser.add_argument("--digits", type=int, default=6, metavar="N", help="6, 7 or 8 (default: 6)")
    parser.add_argument("--period", type=int, default=30, metavar="S", help="1 to 120 seconds (default: 30)")
    parser.add_argument("--replace", action="store_true", help="also if the account has another seed")


def run(options: argparse.Namespace) -> int:
    """Hand it to the daemon."""
    from pki2fad import envelope, files, otp

    try:
        parameters = otp.Parameters(options.algorithm, options.digits, options.period)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    sealed = ui.read_stdin() if options.file == "-" else files.read(options.file)
    with Client(options.socket) as client:
        changed = client.load(
            envelope.sealed_from_text(sealed),
            options.account,
            algorithm=parameters.algorithm,
            digits=parameters.digits,
            period=parameters.period,
            replace=options.replace,
        )
    text = f"loaded {options.account}" if changed else f"{options.account} has this seed already"
    ui.result(text, {"account": options.account, "changed": changed}, as_json=options.json)
    return ui.DONE

"""`pki2factl backup`: all accounts in one file, that only the named keys can open."""

import argparse

from pki2factl import ui
from pki2fad.client import Client

HELP = "write all accounts to a file that only the owners of the named keys can open"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For whom, and where to."""
    parser.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="PUBLIC.pem",
        help="a file of public keys whose owners can open it; may be given again",
    )
    parser.add_argument("file", metavar="FILE", help="the backup; it must not exist yet")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon, and write it."""
    from pki2fad.crypto import rsakeys
    from pki2fad.host import files

    files.require_absent(options.file)
    keys = [key for path in options.to for key in rsakeys.load_publics(files.read(path), path)]
    with Client(options.socket, ui.PATIENCE) as client:
        data = client.backup(b"".join(rsakeys.public_pem(key) for key in keys))
        succeeded = [account.account for account in client.accounts() if account.successor]
    files.create(options.file, data, files.PRIVATE)
    fingerprints = [rsakeys.fingerprint(key) for key in keys]
    lines = [f"made {options.file}", *(f"can be opened by {fingerprint}" for fingerprint in fingerprints)]
    ui.result("\n".join(lines), {"file": options.file, "to": fingerprints}, as_json=options.json)
    if succeeded:
        ui.hint(f"successors are in no backup; load them again after a restore: {', '.join(succeeded)}")
    return ui.DONE

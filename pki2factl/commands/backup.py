"""`pki2factl backup`: writes all accounts to one file, sealed to the keys you name."""

import argparse

from pki2factl import ui
from pki2fad.client import Client

HELP = "write all accounts to a file, sealed to the keys you name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the recipients' keys and the file."""
    parser.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="PUBLIC.pem",
        help="a file of public keys whose owners can open the backup; may be repeated",
    )
    parser.add_argument("file", metavar="FILE", help="the backup, which must not exist yet")


def run(options: argparse.Namespace) -> int:
    """Ask the daemon, and write it."""
    from pki2fad.crypto import rsakeys
    from pki2fad.host import files

    files.require_absent(options.file)
    keys = [key for path in options.to for key in rsakeys.load_publics(files.read(path), path)]
    with Client(options.socket, ui.PATIENCE) as client:
        data = client.backup(b"".join(rsakeys.public_pem(key) for key in keys))
        succeeded = [
            account.account
            for account in client.accounts()
            if any(one["successor"] for one in account.authenticators)
        ]
        own = {slot["fingerprint"] for slot in client.recipients()}
    files.create(options.file, data, files.PRIVATE)
    fingerprints = [rsakeys.fingerprint(key) for key in keys]
    lines = [f"made {options.file}"]
    lines += [f"can be opened by {name}{'  this host' if name in own else ''}" for name in fingerprints]
    opens_here = not own.isdisjoint(fingerprints)
    made = {"file": options.file, "to": fingerprints, "this_host": opens_here}
    ui.result("\n".join(lines), made, as_json=options.json)
    if not opens_here:
        ui.hint("no key is this host's: to restore it, here too, give one of their private keys with --key")
    if succeeded:
        ui.hint(f"successors are not in the backup; load them again after a restore: {', '.join(succeeded)}")
    return ui.DONE

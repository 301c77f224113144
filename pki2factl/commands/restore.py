"""`pki2factl restore`: restores the accounts of a backup."""

import argparse
import os

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.errors import UnusableKey
from pki2fad.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pki2fad.crypto.rsakeys import PublicKey

HELP = "restore the accounts of a backup; verify pauses for up to two periods"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the file, and the key that opens it."""
    parser.add_argument("file", metavar="FILE", help="a file from 'pki2factl backup'")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="also replace authenticators that have another seed or other parameters",
    )
    parser.add_argument(
        "--key", metavar="PRIVATE.pem", help="open it with this key, if it is not sealed to the host's"
    )
    parser.add_argument(
        "--public-key",
        metavar="PUBLIC.pem",
        help="with --key: the host's public key (default: host.pub.pem in the config directory)",
    )
    parser.add_argument(
        "--stdin", action="store_true", help="read the passphrase of --key from standard input"
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Send it to the daemon."""
    if options.public_key and not options.key:
        options.usage_error("--public-key needs --key")

    from pki2fad.host import files
    from pki2fad.transfer import backup

    data = files.read(options.file, backup.LIMIT)
    with Client(options.socket, ui.PATIENCE) as client:
        if options.key:
            host = _host_key(client, options.public_key)
            data = _for_host(data, options.key, host, from_stdin=options.stdin)
        restored = client.restore(data, replace=options.replace)
    changed = restored["changed"]
    lines = [f"{ui.count(restored['accounts'], 'account')} in the backup, {len(changed)} changed"]
    lines += [f"restored {name}" for name in changed]
    ui.result("\n".join(lines), restored, as_json=options.json)
    inactive = [f"{one['account']} --label {one['label']}" for one in restored.get("inactive", ())]
    if inactive:
        more = f" (and {len(inactive) - 1} more, see pki2factl accounts)" if inactive[1:] else ""
        ui.hint(
            "HOTP tokens from a backup are inactive, since codes may have been used after it; make each"
            f" active with: pki2factl resync {inactive[0]}{more}"
        )
    ui.hint("verify is unavailable for up to two periods: codes may have been used since the backup")
    return ui.DONE


def _host_key(client: Client, public: str | None) -> "PublicKey":
    """The daemon's public key. Raises `UnusableKey` if it is in no such file."""
    from pki2fad.crypto import rsakeys
    from pki2fad.host import files

    path = public or os.path.join(paths.config_dir(), paths.PUBLIC_KEY)
    key = rsakeys.load_public(files.read(path), path)
    if {"fingerprint": rsakeys.fingerprint(key), "current": True} not in client.recipients():
        raise UnusableKey(f"{path} is {rsakeys.fingerprint(key)}, not the key that the daemon uses")
    return key


def _for_host(data: bytes, private: str, host: "PublicKey", *, from_stdin: bool) -> bytes:
    """The same backup, with a slot for the host's key; its master key stays in this process."""
    from pki2factl.issuing import keypair
    from pki2fad.crypto import masterkey, memory, rsakeys
    from pki2fad.transfer import backup

    memory.forbid_dumps()
    key = keypair.load(private, from_stdin=from_stdin)
    wrapped = backup.slot(data, rsakeys.fingerprint(key.public_key()))
    with masterkey.MasterKey.unwrap(key, wrapped) as master:
        return backup.with_slot(data, master, rsakeys.fingerprint(host), master.wrap(host))

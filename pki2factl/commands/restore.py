"""`pki2factl restore`: bring the accounts of a backup back."""

import argparse
import os

from pki2fad import paths
from pki2fad.client import Client

from .. import ui

HELP = "bring the accounts of a backup back; verify is unavailable for two periods then"

_TIMEOUT = 120.0  # seconds: hundreds of thousands of accounts take some


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What, and how it is opened."""
    parser.add_argument("file", metavar="FILE", help="what 'pki2factl backup' made")
    parser.add_argument(
        "--replace", action="store_true", help="also accounts that have another seed or other parameters"
    )
    parser.add_argument(
        "--key", metavar="PRIVATE.pem", help="open it with this key, where it was not made for the host's"
    )
    parser.add_argument(
        "--public-key",
        metavar="PUBLIC.pem",
        help="with --key: the host's; default: host.pub.pem in the config directory",
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Hand it to the daemon."""
    if options.public_key and not options.key:
        options.usage_error("--public-key says for whom --key opens the backup, and there is no --key")

    from pki2fad import backup, files

    data = files.read(options.file, backup.LIMIT)
    if options.key:
        data = _for_host(data, options.key, options.public_key)
    with Client(options.socket, _TIMEOUT) as client:
        restored = client.restore(data, replace=options.replace)
    count, changed = restored["accounts"], restored["changed"]
    lines = [f"{count} account{'' if count == 1 else 's'} in the backup, {len(changed)} changed"]
    lines += [f"restored {name}" for name in changed]
    ui.result("\n".join(lines), restored, as_json=options.json)
    ui.hint("verify is unavailable for up to two periods: codes may have been used since the backup")
    return ui.DONE


def _for_host(data: bytes, private: str, public: str | None) -> bytes:
    """The same backup, with a slot for the host's key; its master key stays in this process."""
    from pki2fad import backup, envelope, files, memory

    from .. import keypair

    memory.forbid_dumps()
    path = public or os.path.join(paths.config_dir(), paths.PUBLIC_KEY)
    host = envelope.load_public(files.read(path), path)
    key = keypair.load(private)
    wrapped = backup.slot(data, envelope.fingerprint(key.public_key()))
    master = envelope.MasterKey.unwrap(key, wrapped)
    try:
        return backup.with_slot(data, master, envelope.fingerprint(host), master.wrap(host))
    finally:
        master.close()

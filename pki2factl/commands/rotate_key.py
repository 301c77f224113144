"""`pki2factl rotate-key`: replaces the host's key and the master key under it."""

import argparse
import os

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.errors import UnusableKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pki2fad.crypto.rsakeys import PublicKey

HELP = "replace the host's key, and the master key under it, in the running daemon"

_STILL_OPEN = (
    "the old key still opens what was sealed to it: sealed seeds (also those in seeds.d),"
    " backups, and old copies of the state"
)
_OPENS_NO_MORE = (
    "this host cannot open those any more: give the new public key to everyone who seals seeds for it, and"
    " make a new backup"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the key's file, and the size and protection of the new one."""
    parser.add_argument("--private", metavar="FILE", help="default: host.pem in the config directory")
    parser.add_argument("--bits", type=int, default=4096, metavar="N", help="at least 3072 (default: 4096)")
    parser.add_argument(
        "--protect",
        action=argparse.BooleanOptionalAction,
        help="protect the new key with a passphrase, which is asked for (default: like the old key)",
    )
    parser.add_argument("--weak", action="store_true", help="allow a passphrase under 12 characters")
    parser.add_argument("--stdin", action="store_true", help="read the passphrase from standard input")


def run(options: argparse.Namespace) -> int:
    """Make a key, pass it on, put it in place, and drop the old one; or finish an interrupted run."""
    from pki2fad.crypto import memory
    from pki2fad.host import locks, paths

    memory.forbid_dumps()
    private: str = options.private or os.path.join(paths.config_dir(), paths.PRIVATE_KEY)
    with Client(options.socket) as client:
        client.recipients()  # refuses a caller without rights before anything else
        with locks.one_at_a_time(os.path.dirname(os.path.realpath(private)), "rotates a key"):
            _rotate(client, private, options)
    return ui.DONE


def _rotate(client: Client, private: str, options: argparse.Namespace) -> None:
    from pki2factl.issuing import keypair
    from pki2fad.crypto import rsakeys
    from pki2fad.host import files

    keypair.require_not_sealed(private)
    files.read(private)  # before anything is made
    root, extension = os.path.splitext(private)
    public = f"{root}.pub{extension}"
    private = os.path.realpath(private)
    root, extension = os.path.splitext(private)
    coming, going = f"{root}.next{extension}", f"{root}.old{extension}"
    files.remove_temporary(coming)
    if os.path.lexists(coming) or len(client.recipients()) == 1:
        _require(client, rsakeys.load_public(files.read(public), public), public)
        passphrase = ""
        if os.path.lexists(coming):
            _require_protection(coming, options)
        else:
            protect = keypair.is_protected(private) if options.protect is None else options.protect
            if protect:
                passphrase = keypair.new_passphrase(from_stdin=options.stdin, weak=options.weak)
            keypair.make_private(coming, options.bits, passphrase, like=private)
        key = keypair.load(coming, passphrase, from_stdin=options.stdin)
        client.rotate(rsakeys.private_pem(key))
        files.take_place(coming, private, going)
    else:  # an earlier run was interrupted after the new key was in its place
        _require_protection(private, options)
        key = keypair.load(private, from_stdin=options.stdin)
        _require(client, key.public_key(), private)
        if not _is_current(client, key.public_key()):  # the daemon was started again with the old key
            client.rotate(rsakeys.private_pem(key))
    files.replace(public, rsakeys.public_pem(key.public_key()), files.PUBLIC)
    fingerprint = rsakeys.fingerprint(key.public_key())
    dropped = client.rotate_finish(fingerprint)
    if os.path.lexists(going) and not os.path.samefile(going, private):
        files.shred(going, os.lstat(going))
    data = {"private": private, "public": public, "fingerprint": fingerprint, "dropped": dropped}
    text = f"private key: {private}\npublic key:  {public}\nfingerprint: {fingerprint}"
    ui.result("\n".join([text, *(f"dropped:     {old}" for old in dropped)]), data, as_json=options.json)
    ui.hint(_STILL_OPEN)
    ui.hint(_OPENS_NO_MORE)


def _require_protection(path: str, options: argparse.Namespace) -> None:
    """Raise `UnusableKey` if a passphrase is wanted, and the key of an interrupted run has none."""
    from pki2factl.issuing import keypair

    if options.protect and not keypair.is_protected(path):
        raise UnusableKey(
            f"{path} is from an interrupted run, and has no passphrase; finish that run without --protect,"
            " then rotate again with it"
        )


def _require(client: Client, key: "PublicKey", path: str) -> None:
    """Raise `UnusableKey` unless the daemon's state opens with this key."""
    from pki2fad.crypto import rsakeys

    fingerprint = rsakeys.fingerprint(key)
    slots = [slot["fingerprint"] for slot in client.recipients()]
    if fingerprint not in slots:
        raise UnusableKey(
            f"{path} is {fingerprint}, and the daemon uses {', '.join(slots)}; name its key with --private"
        )


def _is_current(client: Client, key: "PublicKey") -> bool:
    """True if it is the key with which the daemon itself opened its state last."""
    from pki2fad.crypto import rsakeys

    slot = {"fingerprint": rsakeys.fingerprint(key), "current": True}
    return slot in client.recipients()

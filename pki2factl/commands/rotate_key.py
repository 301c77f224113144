"""`pki2factl rotate-key`: another host key, and another master key under it."""

import argparse
import os

from pki2factl import ui
from pki2fad.client import Client
from pki2fad.errors import UnusableKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pki2fad.crypto.rsakeys import PublicKey

HELP = "make a new host key and let the running daemon take it up, with a new master key"

_STILL_OPEN = (
    "what the old key opens still, should it have leaked: sealed seeds that were made for it (files of"
    " seeds.d among them), backups, and copies of the state from before"
)
_OPENS_NO_MORE = (
    "this host opens these no more: give the new public key to who seals seeds for it, and make a new backup"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which key, and how large the new one is to be."""
    parser.add_argument("--private", metavar="FILE", help="default: host.pem in the config directory")
    parser.add_argument("--bits", type=int, default=4096, metavar="N", help="at least 3072 (default: 4096)")
    parser.add_argument(
        "--protect",
        action=argparse.BooleanOptionalAction,
        help="protect the new key by a passphrase, which is asked for (default: as the old key is)",
    )
    parser.add_argument("--weak", action="store_true", help="take a passphrase under 12 characters too")
    parser.add_argument("--stdin", action="store_true", help="read the passphrase from standard input")


def run(options: argparse.Namespace) -> int:
    """Make it, hand it over, put it in place, and let go of the old one; again after what was interrupted."""
    from pki2fad.crypto import memory
    from pki2fad.host import locks, paths

    memory.forbid_dumps()
    private: str = options.private or os.path.join(paths.config_dir(), paths.PRIVATE_KEY)
    with Client(options.socket) as client:
        client.recipients()  # who may not is told so before anything else
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
    else:  # it was interrupted when the new key was in its place already
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
            f"{path} is of a run that was interrupted, and without a passphrase; finish that run without"
            " --protect, and rotate again with it"
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

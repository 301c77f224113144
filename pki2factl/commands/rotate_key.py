"""`pki2factl rotate-key`: another host key, and another master key under it."""

import argparse
import os

from pki2fad.client import Client

from .. import ui

HELP = "make a new host key and let the running daemon take it up, with a new master key"

_STILL_OPEN = (
    "what the old key opens still, should it have leaked: sealed seeds that were made for it (files of"
    " seeds.d among them), and copies of the state from before"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which key, and how large the new one is to be."""
    parser.add_argument("--private", metavar="FILE", help="default: host.pem in the config directory")
    parser.add_argument("--bits", type=int, default=4096, metavar="N", help="at least 3072 (default: 4096)")
    parser.add_argument(
        "--protect", action="store_true", help="protect the new key by a passphrase, which is asked for"
    )
    parser.add_argument("--stdin", action="store_true", help="with --protect: read it from standard input")


def run(options: argparse.Namespace) -> int:
    """Make it, hand it over, put it in place, and let go of the old one; again after what was interrupted."""
    from pki2fad import envelope, files, memory, paths

    from .. import keypair

    memory.forbid_dumps()
    private = options.private or os.path.join(paths.config_dir(), paths.PRIVATE_KEY)
    root, extension = os.path.splitext(private)
    public, coming, going = f"{root}.pub{extension}", f"{root}.next{extension}", f"{root}.old{extension}"
    with Client(options.socket) as client:
        if os.path.lexists(coming) or len(client.recipients()) == 1:
            _require(client, public, files.read(public), in_use=False)
            passphrase = ""
            if not os.path.lexists(coming):
                passphrase = keypair.new_passphrase(from_stdin=options.stdin) if options.protect else ""
                keypair.make_private(coming, options.bits, passphrase)
            key = keypair.load(coming, passphrase)
            client.rotate(envelope.private_pem(key))
            files.take_place(coming, private, going)
        else:  # it was interrupted when the new key was in its place already
            key = keypair.load(private)
        pem = envelope.public_pem(key.public_key())
        _require(client, private, pem, in_use=True)
        files.replace(public, pem, files.PUBLIC)
        dropped = client.rotate_finish()
    if os.path.lexists(going) and not os.path.samefile(going, private):
        files.shred(going, os.lstat(going))
    fingerprint = envelope.fingerprint(key.public_key())
    data = {"private": private, "public": public, "fingerprint": fingerprint, "dropped": dropped}
    text = f"private key: {private}\npublic key:  {public}\nfingerprint: {fingerprint}"
    ui.result("\n".join([text, *(f"dropped:     {old}" for old in dropped)]), data, as_json=options.json)
    ui.hint(_STILL_OPEN)
    return ui.DONE


def _require(client: Client, path: str, pem: bytes, *, in_use: bool) -> None:
    """Raise `UnusableKey` unless the daemon's state opens with the key of this public one.

    With `in_use` it has to be that with which the daemon itself opened it last.
    """
    from pki2fad import envelope
    from pki2fad.errors import UnusableKey

    fingerprint = envelope.fingerprint(envelope.load_public(pem, path))
    slots = [slot["fingerprint"] for slot in client.recipients() if slot["current"] or not in_use]
    if fingerprint not in slots:
        raise UnusableKey(
            f"{path} is {fingerprint}, and the daemon uses {', '.join(slots)}; name its key with --private"
        )

"""`pki2factl keygen`: makes an RSA key pair."""

import argparse
import os

from pki2factl import ui

HELP = "make an RSA key pair"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the files, the size and the protection."""
    parser.add_argument("--private", metavar="FILE", help="default: host.pem in the config directory")
    parser.add_argument(
        "--public", metavar="FILE", help="default: NAME.pub.pem beside a private key NAME.pem"
    )
    parser.add_argument("--bits", type=int, default=4096, metavar="N", help="at least 3072 (default: 4096)")
    parser.add_argument(
        "--protect", action="store_true", help="protect the private key with a passphrase, which is asked for"
    )
    parser.add_argument("--stdin", action="store_true", help="with --protect: read it from standard input")
    parser.add_argument(
        "--weak", action="store_true", help="with --protect: allow a passphrase under 12 characters"
    )
    parser.set_defaults(usage_error=parser.error)
    parser.add_argument(
        "--force",
        action="store_true",
        help="overwrite existing files; everything sealed to the old key is lost",
    )


def run(options: argparse.Namespace) -> int:
    """Make it."""
    from pki2factl.issuing import keypair
    from pki2fad.errors import UnusablePath
    from pki2fad.host import paths

    if options.stdin and not options.protect:
        options.usage_error("--stdin needs --protect")
    if options.weak and not options.protect:
        options.usage_error("--weak needs --protect")
    private = options.private or os.path.join(paths.config_dir(), paths.PRIVATE_KEY)
    root, extension = os.path.splitext(private)
    public = options.public or f"{root}.pub{extension}"
    for path in (private, public):
        if os.path.lexists(path) and not options.force:
            raise UnusablePath(
                f"{path} exists already; to replace a key in use, run 'pki2factl rotate-key'; with --force"
                " everything sealed to the old key is lost"
            )
    passphrase = ""
    if options.protect:
        passphrase = keypair.new_passphrase(from_stdin=options.stdin, weak=options.weak)
    fingerprint = keypair.make(private, public, options.bits, force=options.force, passphrase=passphrase)
    text = f"private key: {private}\npublic key:  {public}\nfingerprint: {fingerprint}"
    data = {"private": private, "public": public, "fingerprint": fingerprint}
    ui.result(text, data, as_json=options.json)
    return ui.DONE

"""`pki2factl init`: from nothing to a key and an account on this host."""

import argparse
import os

from .. import ui

HELP = "make a key pair and a sealed seed for the account 'default', where there are none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to."""
    parser.add_argument("--config-dir", metavar="DIR", help="keys and seeds.d")
    parser.add_argument(
        "--uri-out", metavar="FILE", help="write the otpauth: URI there, for an authenticator"
    )


def run(options: argparse.Namespace) -> int:
    """Make what is missing; nothing is ever overwritten."""
    from pki2fad import envelope, files, memory, otp, paths
    from pki2fad.errors import UnusablePath

    from ..keypair import make

    config_dir = os.path.abspath(options.config_dir or paths.config_dir())
    private = os.path.join(config_dir, paths.PRIVATE_KEY)
    public = os.path.join(config_dir, paths.PUBLIC_KEY)
    seeds = os.path.join(config_dir, paths.SEEDS_DIRECTORY)
    sealed = os.path.join(seeds, f"default{paths.SEALED_SUFFIX}")
    made = [*files.make_directory(config_dir), *files.make_directory(seeds)]
    if not os.path.lexists(private):
        if os.path.lexists(sealed):
            raise UnusablePath(f"{sealed} is there, but not the key {private} that opens it; move it away")
        make(private, public, envelope.DEFAULT_BITS, force=False)
        made += [private, public]
    elif not os.path.lexists(public):
        key = envelope.load_private(files.read(private), private)
        files.create(public, envelope.public_pem(key.public_key()), files.PUBLIC)
        made.append(public)
    uri = None
    if not os.path.lexists(sealed):
        key_to = envelope.load_public(files.read(public), public)
        seed = envelope.new_seed()
        uri = otp.otpauth_uri(seed, otp.Parameters(), "default")
        if options.uri_out:  # first, so that no seed is in use that nobody has
            files.create(options.uri_out, uri.encode() + b"\n", files.PRIVATE)
            made.append(options.uri_out)
        files.create(sealed, envelope.sealed_to_text(envelope.seal_seed(key_to, seed)), files.PUBLIC)
        memory.wipe(seed)
        made.append(sealed)
    text = "\n".join(f"made {path}" for path in made) or f"everything is there already, in {config_dir}"
    ui.result(text, {"made": made, "config_dir": config_dir}, as_json=options.json)
    if uri is not None and not options.uri_out:
        ui.secret(
            uri,
            "the otpauth: URI is shown on a terminal only, and just this once; the daemon makes codes"
            " without it",
        )
    ui.hint(f"now run: pki2fad{f' --config-dir {config_dir}' if options.config_dir else ''}")
    return ui.DONE

"""`pki2factl init`: makes a key and a first account on this host."""

import argparse
import os

from pki2factl import ui

HELP = "make the host's key and a first account, 'default', unless they exist"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the places of the files."""
    parser.add_argument("--config-dir", metavar="DIR", help="where keys and seeds.d go")
    parser.add_argument(
        "--uri-out", metavar="FILE", help="write the otpauth: URI there, for an authenticator"
    )


def run(options: argparse.Namespace) -> int:
    """Make what is missing; nothing is ever overwritten."""
    from pki2fad.host import files, paths

    config_dir = os.path.abspath(options.config_dir or paths.config_dir())
    seeds = os.path.join(config_dir, paths.SEEDS_DIRECTORY)
    sealed = os.path.join(seeds, f"default{paths.SEALED_SUFFIX}")
    needs_seed = not os.path.lexists(sealed)
    if needs_seed:
        files.require_absent(options.uri_out)
    made = [*files.make_directory(config_dir), *files.make_directory(seeds)]
    made += _make_keys(config_dir, None if needs_seed else sealed, default_place=not options.config_dir)
    uri = None
    if needs_seed:
        uri = _make_seed(config_dir, sealed, options.uri_out)
        made += [path for path in (options.uri_out, sealed) if path]
    text = (
        "\n".join(f"made {path}" for path in made) or f"nothing to do: everything is in {config_dir} already"
    )
    ui.result(text, {"made": made, "config_dir": config_dir}, as_json=options.json)
    if uri is not None and not options.uri_out:
        ui.secret(
            uri,
            "the otpauth: URI is shown on a terminal only, or written with --uri-out; the daemon makes codes"
            " without it",
            as_json=options.json,
        )
    elif uri is None and options.uri_out:
        ui.hint(f"{options.uri_out} was not written: the seed exists already, and its URI was shown once")
    running = None if options.config_dir else _running(options.socket)
    if running is None:
        ui.hint(f"now run: {_next_command(options.config_dir and config_dir)}")
    elif made:
        ui.hint(f"a daemon runs already (pid {running}); restart it to use the new files")
    return ui.DONE


def _running(socket: str | None) -> int | None:
    """The pid of a daemon that answers, None if none does."""
    from pki2fad.client import Client
    from pki2fad.errors import Pki2fadError

    try:
        with Client(socket) as client:
            pid: int = client.status()["pid"]
    except Pki2fadError:
        return None
    return pid


def _next_command(config_dir: str | None) -> str:
    """What starts the daemon."""
    if config_dir:
        return f"{ui.beside_us('pki2fad')} --config-dir {config_dir}"
    return ui.start_command()


def _make_keys(config_dir: str, sealed: str | None, *, default_place: bool) -> list[str]:
    """Make the key files that are missing; returns them. `sealed` is a seed that the key has to open.

    In the default place this also checks for a state file, which a new key would not open.
    """
    from pki2factl.issuing import keypair
    from pki2factl.issuing.keypair import load, make
    from pki2fad.crypto import rsakeys
    from pki2fad.errors import UnusablePath
    from pki2fad.host import files, paths

    private = os.path.join(config_dir, paths.PRIVATE_KEY)
    public = os.path.join(config_dir, paths.PUBLIC_KEY)
    if not os.path.lexists(private):
        keypair.require_not_sealed(private)
        if default_place:
            paths.require_no_state(os.path.join(paths.state_dir(), paths.STATE_FILE), private)
        orphans = " and ".join(path for path in (public, sealed) if path and os.path.lexists(path))
        if orphans:
            raise UnusablePath(
                f"the key {private} is missing, but files that belong to it exist: put {private} back; if it"
                f" is lost, move {orphans} away and run this again"
            )
        make(private, public, rsakeys.DEFAULT_BITS, force=False)
        return [private, public]
    if not os.path.lexists(public):
        key = load(private)
        files.create(public, rsakeys.public_pem(key.public_key()), files.PUBLIC)
        return [public]
    return []


def _make_seed(config_dir: str, sealed: str, uri_out: str | None) -> str:
    """Seal a new seed to the host's key; returns its otpauth URI."""
    from pki2factl.issuing.keypair import load
    from pki2fad.crypto import memory, sealing
    from pki2fad.host import files, paths
    from pki2fad.rules import otp

    memory.forbid_dumps()
    private = os.path.join(config_dir, paths.PRIVATE_KEY)
    key = load(private).public_key()
    seed = sealing.new_seed()
    uri = otp.otpauth_uri(seed, otp.Parameters(), "default")
    text = sealing.sealed_to_text(sealing.seal_seed(key, seed))
    memory.wipe(seed)
    if uri_out:  # first, so that no seed is in use that nobody has
        files.create(uri_out, uri.encode() + b"\n", files.PRIVATE)
    files.create(sealed, text, files.PUBLIC)
    return uri

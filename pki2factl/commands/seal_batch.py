"""`pki2factl seal-batch`: the issuer's side for many accounts: seal their seeds to a host's key."""

import argparse
import re

from .. import parameters, ui

_LIKE_A_SEED = re.compile("[0-9A-Fa-f]{32,}")

HELP = "seal seeds for many accounts to a host's public key, in one file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which accounts, to whom, and where to."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="has a line for each account: its name, and behind a space its seed as hex digits, or it gets a"
        " new one; - is standard input",
    )
    parser.add_argument("--to", required=True, metavar="PUBLIC.pem", help="the host's public key")
    parameters.add_form(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="write the sealed seeds there")
    parser.add_argument(
        "--uri-out", metavar="FILE", help="write the otpauth: URIs there, a line for each account"
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Seal them."""
    from pki2fad import batch, envelope, files, memory, otp

    memory.forbid_dumps()
    of = parameters.given(options)
    files.require_absent(options.out, options.uri_out)
    key = envelope.load_public(files.read(options.to), options.to)
    given = _given(ui.read_input(options.file, batch.FILE_LIMIT))
    if None in given.values() and not options.uri_out:
        options.usage_error("new seeds, which nobody would have else, need --uri-out FILE")
    seeds = {name: seed or envelope.new_seed() for name, seed in given.items()}
    entries = [(name, of, seed) for name, seed in seeds.items()]
    lines = []
    for begin in range(0, len(entries), batch.MOST):
        master = envelope.MasterKey()
        try:
            packed = batch.pack(entries[begin : begin + batch.MOST], master.wrap(key), master)
        finally:
            master.close()
        lines.append(envelope.sealed_to_text(packed))
    if options.uri_out:
        uris = "".join(f"{otp.otpauth_uri(seed, of, name)}\n" for name, seed in seeds.items())
        files.create(options.uri_out, uris.encode(), files.PRIVATE)
    for seed in seeds.values():
        memory.wipe(seed)
    files.create(options.out, b"".join(lines), files.PUBLIC)
    data = {"file": options.out, "accounts": len(seeds), "fingerprint": envelope.fingerprint(key)}
    ui.result(f"made {options.out}: {ui.count(len(seeds), 'account')}", data, as_json=options.json)
    return ui.DONE


def _given(text: bytes) -> "dict[str, bytearray | None]":
    """The seeds by name, None for those that are to be new. Raises `BadRequest`, which shows no line."""
    from pki2fad import envelope
    from pki2fad.account import is_name
    from pki2fad.errors import BadRequest

    given: dict[str, bytearray | None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, *digits = line.decode("latin-1").split(maxsplit=1) or [""]
        if not is_name(name):
            raise BadRequest(f"line {number} does not begin with the name of an account")
        if name in given:
            raise BadRequest(f"line {number} is for an account that was there before")
        if not digits and _LIKE_A_SEED.fullmatch(name):  # names are no secret: logs have them
            raise BadRequest(f"line {number} seems to have a seed, and no name before it")
        try:
            given[name] = envelope.seed_from_hex(digits[0].rstrip().encode("latin-1")) if digits else None
        except ValueError as error:
            raise BadRequest(f"line {number}: {error}") from None
    if not given:
        raise BadRequest("there is no account in it")
    return given

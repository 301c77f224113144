"""`pki2factl seal-batch`: seals the seeds of many accounts to a host's key, for issuers."""

import argparse
import re

from pki2factl import arguments, ui
from pki2factl.issuing import sealed
from pki2fad.wire import forms

HELP = "seal seeds for many accounts to a host's public key, in one file"

# Names are not secret, so a seed without a name must not be taken for one.
_LIKE_A_SEED = re.compile(rb"[0-9A-Fa-f]{32}|(?=[A-Z]*[2-7])[A-Z2-7]{16}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the accounts, the host's key and the files."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a line for each account: its name, then its seed as hex digits, or nothing for a new seed; -:"
        " standard input",
    )
    parser.add_argument("--to", required=True, metavar="PUBLIC.pem", help="the host's public key")
    arguments.add_parameters(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="write the sealed seeds there")
    parser.add_argument(
        "--uri-out", metavar="FILE", help="write the otpauth: URIs there, a line for each account"
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Seal them."""
    from pki2fad.crypto import masterkey, memory, rsakeys, sealing
    from pki2fad.host import files
    from pki2fad.rules import otp
    from pki2fad.transfer import batch

    memory.forbid_dumps()
    of = arguments.parameters(options)
    files.require_absent(options.out, options.uri_out)
    key = rsakeys.load_public(files.read(options.to), options.to)
    given = _given(ui.read_input(options.file, ui.MANY))
    if None in given.values() and not options.uri_out:
        options.usage_error("new seeds need --uri-out FILE: nobody would have them otherwise")
    seeds = [(name, of, seed or sealing.new_seed()) for name, seed in given.items()]
    lines = []
    for begin in range(0, len(seeds), batch.MOST):
        with masterkey.MasterKey() as master:
            packed = batch.pack(seeds[begin : begin + batch.MOST], master.wrap(key), master)
        lines.append(sealing.sealed_to_text(packed))
    uris = [otp.otpauth_uri(seed, of, name) for name, _, seed in seeds] if options.uri_out else []
    sealed.write(b"".join(lines), options.out, "\n".join([*uris, ""]).encode(), options.uri_out)
    new, fingerprint = [*given.values()].count(None), rsakeys.fingerprint(key)
    accounts = f"{ui.count(len(seeds), 'account')}, {new} of them with new seeds"
    data = {"file": options.out, "accounts": len(seeds), "new": new, "fingerprint": fingerprint}
    ui.result(f"made {options.out}: {accounts}, for {fingerprint}", data, as_json=options.json)
    return ui.DONE


def _given(text: bytes) -> "dict[str, bytearray | None]":
    """The seeds by name, None for a new one. Raises `BadRequest`, which shows no line."""
    from pki2factl.issuing import seedtext
    from pki2fad.errors import BadRequest

    try:
        text = seedtext.unmarked(text)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    given: dict[str, bytearray | None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        first, *rest = line.split(maxsplit=1)
        name = first.decode("latin-1")
        if not forms.is_name(name):
            raise BadRequest(f"line {number} does not begin with an account name: {forms.NAME_RULE}")
        if name in given:
            raise BadRequest(f"line {number} repeats an account")
        if not rest and _LIKE_A_SEED.search(first):
            raise BadRequest(f"line {number} seems to have a seed without a name")
        try:
            given[name] = seedtext.seed(rest[0]) if rest else None
        except ValueError as error:
            raise BadRequest(f"line {number}: {error}") from None
    if not given:
        raise BadRequest("the input has no account")
    return given

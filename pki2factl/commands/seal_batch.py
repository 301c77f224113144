"""`pki2factl seal-batch`: seals the seeds of many accounts to a host's key, for issuers."""

import argparse
import re

from pki2factl import arguments, ui
from pki2factl.issuing import sealed
from pki2fad.wire import forms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pki2fad.transfer.batch import Unsealed

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
    arguments.add_authenticator(parser, "the authenticator that it is for (default: main)")
    parser.add_argument("--out", required=True, metavar="FILE", help="write the sealed seeds there")
    parser.add_argument(
        "--uri-out", metavar="FILE", help="write the otpauth: URIs there, a line for each account"
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Seal them."""
    from pki2fad.crypto import masterkey, memory, rsakeys, sealing
    from pki2fad.host import files
    from pki2fad.transfer import batch

    memory.forbid_dumps()
    of = arguments.parameters(options)
    label, counter = arguments.label_and_counter(options)
    files.require_absent(options.out, options.uri_out)
    key = rsakeys.load_public(files.read(options.to), options.to)
    given = _given(ui.read_input(options.file, ui.MANY), short=options.short)
    if None in given.values() and not options.uri_out:
        options.usage_error("new seeds need --uri-out FILE: nobody would have them otherwise")
    unsealed = [
        batch.Unsealed(name, of, seed or sealing.new_seed(), label, counter) for name, seed in given.items()
    ]
    uris = _uris(unsealed) if options.uri_out else []
    version, lines = batch.version_of(unsealed), []
    for some in batch.split(unsealed, version):
        with masterkey.MasterKey() as master:
            packed = batch.pack(some, master.wrap(key), master, version)
        lines.append(sealing.sealed_to_text(packed))
    sealed.write(b"".join(lines), options.out, "\n".join([*uris, ""]).encode(), options.uri_out)
    new, fingerprint = [*given.values()].count(None), rsakeys.fingerprint(key)
    accounts = f"{ui.count(len(unsealed), 'account')}, {new} of them with new seeds"
    data = {"file": options.out, "accounts": len(unsealed), "new": new, "fingerprint": fingerprint}
    ui.result(f"made {options.out}: {accounts}, for {fingerprint}", data, as_json=options.json)
    return ui.DONE


def _uris(unsealed: "list[Unsealed]") -> list[str]:
    """Their otpauth: URIs. Raises `BadRequest`, which names the account that cannot have one."""
    from pki2fad.errors import BadRequest
    from pki2fad.rules import otp

    uris = []
    for one in unsealed:
        try:
            uris.append(otp.otpauth_uri(one.seed, one.parameters, one.name, one.counter))
        except ValueError as error:
            raise BadRequest(f"account {one.name!r}: {error}") from None
    return uris


def _given(text: bytes, *, short: bool) -> "dict[str, bytearray | None]":
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
            given[name] = seedtext.seed(rest[0], short=short) if rest else None
        except ValueError as error:
            raise BadRequest(f"line {number}: {error}") from None
    if not given:
        raise BadRequest("the input has no account")
    return given

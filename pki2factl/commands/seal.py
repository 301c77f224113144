"""`pki2factl seal`: seals a seed to a host's key, for issuers."""

import argparse

from pki2factl import arguments, ui
from pki2factl.issuing import sealed
from pki2fad.wire import forms

HELP = "seal a new seed, or one from standard input, to a host's public key"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the host's key, the seed, the files, and the account and parameters for both."""
    parser.add_argument("--to", required=True, metavar="PUBLIC.pem", help="the host's public key")
    parser.add_argument(
        "--seed-stdin", action="store_true", help="take the seed from standard input, as hex digits"
    )
    arguments.add_account_and_parameters(parser)
    arguments.add_authenticator(parser, "the authenticator that it is for (default: main)")
    parser.add_argument("--out", metavar="FILE", help="write the sealed seed there instead of printing it")
    parser.add_argument(
        "--uri-out", metavar="FILE", help="write the otpauth: URI there, for an authenticator"
    )


def run(options: argparse.Namespace) -> int:
    """Seal it."""
    from pki2factl.issuing import seedtext
    from pki2fad.crypto import masterkey, memory, rsakeys, sealing
    from pki2fad.errors import BadRequest
    from pki2fad.host import files
    from pki2fad.rules import otp
    from pki2fad.transfer import batch

    memory.forbid_dumps()
    of = arguments.parameters(options)
    label, counter = arguments.label_and_counter(options)
    account = "default" if options.account is None else options.account
    if not forms.is_name(account):
        raise BadRequest(forms.NAME_RULE)
    files.require_absent(options.out, options.uri_out)
    key = rsakeys.load_public(files.read(options.to), options.to)
    if options.seed_stdin:
        try:
            seed = seedtext.seed(ui.read_stdin(), short=options.short)
        except ValueError as error:
            raise BadRequest(str(error)) from None
    else:
        seed = sealing.new_seed()
    shown = options.uri_out or not options.seed_stdin
    try:
        uri = otp.otpauth_uri(seed, of, account, counter) if shown else ""
    except ValueError as error:
        raise BadRequest(str(error)) from None
    said = (options.account, options.label, options.counter, options.short or None)
    is_bound = said != (None,) * len(said) or bool(arguments.given(options))
    if is_bound:
        with masterkey.MasterKey() as master:
            unsealed = batch.Unsealed(account, of, seed, label, counter)
            sealed_seed = batch.pack([unsealed], master.wrap(key), master)
    else:
        sealed_seed = sealing.seal_seed(key, seed)
    text = sealing.sealed_to_text(sealed_seed)
    memory.wipe(seed)
    sealed.write(text, options.out, uri.encode() + b"\n", options.uri_out)
    data = {"sealed": text.decode().strip(), "fingerprint": rsakeys.fingerprint(key)}
    ui.result(options.out or data["sealed"], data, as_json=options.json)
    if is_bound and options.account is None:
        ui.hint("it is sealed for the account default; name another with --account")
    if not options.uri_out and not options.seed_stdin:
        ui.secret(
            uri,
            "the otpauth: URI is shown on a terminal only; write it with --uri-out FILE",
            as_json=options.json,
        )
    return ui.DONE

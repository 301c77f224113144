"""`pki2factl enroll`: lets users make the account of their own name, and add authenticators to it."""

import argparse
import contextlib
import os
import sys

from pki2factl import arguments, ui
from pki2factl.login import readiness, typed
from pki2fad.client import Client, Enrolment
from pki2fad.errors import (
    AccountExists,
    BadRequest,
    Forbidden,
    Locked,
    NoSuchAccount,
    NotReachable,
    Throttled,
)
from pki2fad.wire import forms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HELP = "make an account for yourself, or add an authenticator: shows a new seed, and asks for its first code"

# Failures after which there is certainly no account. After others it may have been stored.
_NOT_MADE = (AccountExists, BadRequest, Forbidden, Locked, NoSuchAccount, NotReachable, Throttled)

_ATTEMPTS = 3  # the wrong codes that the daemon takes without a wait


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what it is for, where the seed goes, and where the codes come from."""
    arguments.add_label(parser, "add an authenticator with this label (default: make an account, with main)")
    parser.add_argument("--account", metavar="NAME", help="for registrars: whose account (default: your own)")
    parser.add_argument(
        "--uri-out", metavar="FILE", help="write the otpauth: URI there instead of showing it"
    )
    parser.add_argument(
        "--stdin",
        action="store_true",
        help="read the codes from standard input, one in a line: for a new"
        " authenticator of an account first a code of another one, then its own first code",
    )
    parser.set_defaults(usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """Get a seed from the daemon, show it, and confirm it with its first code."""
    from pki2fad.crypto import memory
    from pki2fad.host import files

    if not options.uri_out and (options.json or not sys.stdout.isatty()):
        options.usage_error("the otpauth: URI is shown on a terminal only; write it with --uri-out FILE")
    if not options.stdin and not sys.stdin.isatty():
        options.usage_error("there is no terminal to ask on for the first code; use --stdin")
    memory.forbid_dumps()
    files.require_absent(options.uri_out)
    with Client(options.socket) as client:
        readiness.require(client)
        enrolment = _enroll(client, options)
        _hand_over(enrolment, options.uri_out)
        active = _confirm(client, options)
    name, label = enrolment.account, options.label
    if active:
        data = {"account": name, "active": True} | ({} if label is None else {"label": label})
        what = f"account {name}" if label is None else f"{name} {label}"
        ui.result(f"{what} is active", data, as_json=options.json)
        return ui.DONE
    what = f"there is no account {name}" if label is None else f"{name} has no authenticator {label}"
    message = f"no right code was given, so {what}"
    ui.error(message)
    ui.hint("check the authenticator's clock, and run this again for a new seed")
    ui.result("", ui.failure("invalid", message) if options.json else None, as_json=options.json)
    return ui.NOT_VALID


def _enroll(client: Client, options: argparse.Namespace) -> Enrolment:
    """The new seed. If the account exists, a code of it is asked for where that is needed."""
    of = {"account": options.account, "label": options.label}
    try:
        return client.enroll(**of)
    except AccountExists:
        if options.label is None:
            raise
    if options.stdin:
        given = ui.read_line()
    else:
        given = ui.ask("Code of an authenticator that it has, or a recovery code: ") or ""
    return client.enroll(**of, code=typed.code(given))


def _hand_over(enrolment: Enrolment, uri_out: str | None) -> None:
    """Show the URI, or write it to a file."""
    from pki2fad.crypto import memory
    from pki2fad.host import files
    from pki2fad.rules import otp

    parameters = otp.Parameters(enrolment.algorithm, enrolment.digits, enrolment.period)
    uri = otp.otpauth_uri(enrolment.seed, parameters, enrolment.account)
    memory.wipe(enrolment.seed)
    if uri_out:
        files.create(uri_out, uri.encode() + b"\n", files.PRIVATE)
    else:
        ui.secret(uri, "the otpauth: URI is not shown", as_json=False)
        ui.flush()
    minutes = enrolment.expires_in // 60
    ui.hint(f"add it to your authenticator and enter its code within {minutes} minutes; it is shown once")


def _confirm(client: Client, options: argparse.Namespace) -> bool:
    """True if a right code was given. If there is certainly no account, the file of its URI is removed."""
    certain, uri_out = True, options.uri_out
    try:
        for code in _codes(stdin=options.stdin):
            certain = False
            if client.enroll_confirm(code, options.account, label=options.label):
                return True
            certain = True
    except _NOT_MADE:
        certain = True
        raise
    finally:
        if uri_out and certain:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(uri_out)
    return False


def _codes(*, stdin: bool) -> "Iterator[str]":
    """The codes that are given, one after the other."""
    if stdin:
        yield typed.code(ui.read_stdin().decode("utf-8", "replace"))
        return
    attempts = _ATTEMPTS
    while attempts and (given := ui.ask("Code: ")) is not None:
        code = typed.code(given)
        if not forms.is_code(code):  # the daemon would refuse it, and not count it
            ui.hint(forms.CODE_RULE)
            continue
        yield code
        ui.hint("that is not its code")
        attempts -= 1

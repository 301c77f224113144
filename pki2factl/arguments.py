"""The arguments that several commands share: an account, and how its codes are made."""

import argparse

from pki2fad.errors import BadRequest
from pki2fad.wire import forms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pki2fad.rules.otp import Parameters


def add_account(
    parser: argparse.ArgumentParser, *, default: str | None = None, required: bool = False
) -> None:
    """Take the account as `NAME`, or as `--account NAME` like other commands, but not both."""
    parser.set_defaults(account=default)
    either = parser.add_mutually_exclusive_group(required=required)
    text = default and f"default: {default}"
    # With a default of its own the form that is missing would undo the other.
    either.add_argument(
        "account", nargs="?", default=argparse.SUPPRESS, metavar="ACCOUNT", help=text or "its name"
    )
    either.add_argument("--account", default=argparse.SUPPRESS, metavar="ACCOUNT", help="the same")


def add_label(parser: argparse.ArgumentParser, text: str) -> None:
    """Take the label of an authenticator."""
    parser.add_argument("--label", metavar="LABEL", help=text)


def add_account_and_parameters(parser: argparse.ArgumentParser) -> None:
    """Take an account, and the parameters of RFC 6238."""
    parser.add_argument("--account", metavar="NAME", help="default: default")
    add_parameters(parser)


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Take the parameters of RFC 6238 alone, for several accounts."""
    parser.add_argument("--algorithm", metavar="A", help="SHA1, SHA256 or SHA512 (default: SHA1)")
    parser.add_argument("--digits", type=int, metavar="N", help="6, 7 or 8 (default: 6)")
    parser.add_argument("--period", type=int, metavar="S", help="1 to 120 seconds (default: 30)")


def add_authenticator(parser: argparse.ArgumentParser, text: str) -> None:
    """Take the label and the kind of an authenticator, and what goes with it."""
    add_label(parser, text)
    parser.add_argument(
        "--kind",
        choices=("totp", "hotp"),
        help="hotp: a token with a button, which counts; it has no period (default: totp)",
    )
    parser.add_argument(
        "--counter",
        type=int,
        metavar="N",
        help="of a HOTP token: the next that it uses (default: 0)",
    )
    parser.add_argument("--short", action="store_true", help="take a seed of 80 to 127 bits too")


def label_and_counter(options: argparse.Namespace) -> "tuple[str, int]":
    """The label, and the counter of HOTP, 0 for others. Raises `BadRequest`."""
    from pki2fad.rules import otp

    label = forms.MAIN if options.label is None else options.label
    if not forms.is_label(label):
        raise BadRequest(forms.LABEL_RULE)
    if options.counter is None:
        return label, 0
    otp.require_counter(options.counter, kind=options.kind)
    return label, options.counter


def given(options: argparse.Namespace) -> "dict[str, Any]":
    """The parameters that were given, without defaults."""
    names = ("algorithm", "digits", "period", "kind")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def parameters(options: argparse.Namespace) -> "Parameters":
    """The parameters, with the defaults for those that were not given. Raises `BadRequest`."""
    from pki2fad.rules import otp

    return otp.parameters(given(options))

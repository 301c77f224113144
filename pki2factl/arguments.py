"""The arguments that several commands share: an account, and how its codes are made."""

import argparse

from pki2fad.errors import BadRequest

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


def given(options: argparse.Namespace) -> "dict[str, Any]":
    """The parameters that were given, without defaults."""
    names = ("algorithm", "digits", "period", "kind")
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def parameters(options: argparse.Namespace) -> "Parameters":
    """The parameters, with the defaults for those that were not given. Raises `BadRequest`."""
    from pki2fad.rules.otp import HOTP, Parameters

    usual = {"period": 0} if getattr(options, "kind", None) == HOTP else {}
    try:
        return Parameters(**usual | given(options))
    except ValueError as error:
        raise BadRequest(str(error)) from None

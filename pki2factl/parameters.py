"""How an account's codes are made, for the commands that are told."""

import argparse

from pki2fad.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pki2fad.rules.otp import Parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The account, and the parameters of RFC 6238."""
    parser.add_argument("--account", metavar="NAME", help="default: default")
    add_code_arguments(parser)


def add_code_arguments(parser: argparse.ArgumentParser) -> None:
    """The parameters alone, for codes of several accounts."""
    parser.add_argument("--algorithm", metavar="A", help="SHA1, SHA256 or SHA512 (default: SHA1)")
    parser.add_argument("--digits", type=int, metavar="N", help="6, 7 or 8 (default: 6)")
    parser.add_argument("--period", type=int, metavar="S", help="1 to 120 seconds (default: 30)")


def told(options: argparse.Namespace) -> "dict[str, Any]":
    """The parameters that the command was given."""
    names = ("algorithm", "digits", "period")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def given(options: argparse.Namespace) -> "Parameters":
    """The parameters, with the defaults for those that were not given. Raises `BadRequest`."""
    from pki2fad.rules.otp import Parameters

    try:
        return Parameters(**told(options))
    except ValueError as error:
        raise BadRequest(str(error)) from None

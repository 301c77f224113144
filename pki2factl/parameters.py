"""How an account's codes are made, for the commands that are told."""

import argparse

from pki2fad.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pki2fad.otp import Parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The account, and the parameters of RFC 6238."""
    parser.add_argument("--account", default="default", metavar="NAME", help="default: default")
    add_code_arguments(parser)


def add_code_arguments(parser: argparse.ArgumentParser) -> None:
    """The parameters alone, for codes of several accounts."""
    parser.add_argument(
        "--algorithm", default="SHA1", metavar="A", help="SHA1, SHA256 or SHA512 (default: SHA1)"
    )
    parser.add_argument("--digits", type=int, default=6, metavar="N", help="6, 7 or 8 (default: 6)")
    parser.add_argument("--period", type=int, default=30, metavar="S", help="1 to 120 seconds (default: 30)")


def given(options: argparse.Namespace) -> "Parameters":
    """The parameters. Raises `BadRequest`."""
    from pki2fad.otp import Parameters

    try:
        return Parameters(options.algorithm, options.digits, options.period)
    except ValueError as error:
        raise BadRequest(str(error)) from None

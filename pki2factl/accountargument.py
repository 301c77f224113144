"""The account that a command is about: `NAME`, or `--account NAME` as other commands have it."""

import argparse


def add(parser: argparse.ArgumentParser, *, default: str | None = None, required: bool = False) -> None:
    """Take it in either form, but not in both."""
    parser.set_defaults(account=default)
    either = parser.add_mutually_exclusive_group(required=required)
    text = default and f"default: {default}"
    # With a default of its own the form that is missing would undo the other.
    either.add_argument(
        "account", nargs="?", default=argparse.SUPPRESS, metavar="ACCOUNT", help=text or "its name"
    )
    either.add_argument("--account", default=argparse.SUPPRESS, metavar="ACCOUNT", help="the same")

"""What administrators see of an account and its authenticators: the rows of `accounts`."""

from typing import Any

from pki2fad.crypto import seedsizes
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import Authenticator, Successor
from pki2fad.wire.forms import MAIN


def listed(account: Account) -> dict[str, Any]:
    """The row of an account: its authenticator `main`, or the first, and then all of them."""
    main = account.authenticator(MAIN) or account
    return {
        "account": account.name,
        **_described(main),
        "id": account.account_id.hex(),
        "authenticators": [_authenticator(one) for one in account.authenticators],
        "recovery": None if account.recovery is None else account.recovery.left,
    }


def _authenticator(one: Authenticator) -> dict[str, Any]:
    fields = {
        "label": one.label,
        "kind": one.parameters.kind,
        **_described(one),
        "made": one.made,
        "short": one.seed_bytes < seedsizes.LEAST,
    }
    return fields | {"counter": one.last_step + 1, "inactive": one.is_lost} if one.is_hotp else fields


def _described(one: Authenticator) -> dict[str, Any]:
    return {
        **one.parameters.fields,
        "last_used": one.last_used,
        "offset": one.offset,
        "drift": one.drifts,
        "successor": None if one.successor is None else _successor(one.successor),
    }


def _successor(successor: Successor) -> dict[str, Any]:
    return {
        **successor.authenticator.parameters.fields,
        "deadline": successor.deadline,
        "cutover": successor.cutover,
    }

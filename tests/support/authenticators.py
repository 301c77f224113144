"""An account with several authenticators: what the tests of them do with it."""

from typing import Any

from pki2fad.rules.otp import Parameters
from support.agents import SEED, USUAL, reference_code, sealed
from support.host import Host

EIGHT = Parameters(digits=8)  # no two codes here are the same by chance
HOTP = Parameters(kind="hotp", period=0)


_FIELDS = ("account", "algorithm", "digits", "period", "last_used", "offset", "drift", "successor")


def main_of(row: dict[str, Any]) -> dict[str, Any]:
    """What a row of `accounts` says of `main`, in the fields that version 0.1.0 had."""
    return {name: row[name] for name in _FIELDS}


def seed_of(number: int) -> bytes:
    """A seed for each number."""
    return bytes([number]) * 20


def load(
    host: Host, label: str, seed: bytes = SEED, of: Parameters = USUAL, account: str = "default", **args: Any
) -> dict[str, Any]:
    """The answer to a `load` under this label."""
    period = {} if of.kind == "hotp" else {"period": of.period}
    result = host.call(
        "load",
        account=account,
        label=label,
        sealed=sealed(seed),
        kind=of.kind,
        algorithm=of.algorithm,
        digits=of.digits,
        **period,
        **args,
    )
    return dict(result)


def token_code(counter: int, seed: bytes = SEED, of: Parameters = HOTP) -> str:
    """What a token with a button shows at this counter."""
    return reference_code(seed, counter, of)


def is_good(host: Host, code: str, account: str = "default") -> bool:
    return bool(host.call("verify", account=account, code=code)["valid"])


def labels(host: Host, account: str = "default") -> list[str]:
    """Those of an account, as `accounts` lists them."""
    (row,) = host.call("accounts", match=account)
    return [one["label"] for one in row["authenticators"]]

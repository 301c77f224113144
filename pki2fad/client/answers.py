"""The results of calls: what both clients make of the daemon's answers.

This module is on the client's path.
"""

from pki2fad.errors import REFUSALS, Internal, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from pki2fad.wire.messages import Response

    T = TypeVar("T")

_ACCOUNT_FIELDS = (
    "account",
    "algorithm",
    "digits",
    "period",
    "last_used",
    "offset",
    "drift",
    "successor",
    "id",
    "authenticators",
    "recovery",
)


class Code:
    """A code, and for how long it is good. Its repr does not show it."""

    __slots__ = ("code", "step", "valid_for")

    def __init__(self, code: str, valid_for: int, step: int) -> None:
        self.code = code  # 6 to 8 digits
        self.valid_for = valid_for  # whole seconds, at least 1
        self.step = step  # T of RFC 6238

    def __repr__(self) -> str:
        return f"Code(valid_for={self.valid_for}, step={self.step})"


class Enrolment:
    """A seed that waits for its first code. Its repr does not show it."""

    __slots__ = ("account", "algorithm", "digits", "expires_in", "period", "seed")

    def __init__(
        self, account: str, seed: bytearray, algorithm: str, digits: int, period: int, *, expires_in: int
    ) -> None:
        self.account = account  # the one that it is for
        self.seed = seed
        self.algorithm = algorithm  # SHA1, SHA256 or SHA512
        self.digits = digits
        self.period = period  # seconds; 0 for HOTP
        self.expires_in = expires_in  # seconds for which it waits

    def __repr__(self) -> str:
        return f"Enrolment({self.account!r})"


class Account:
    """An account as the daemon lists it. Fields of one authenticator are those of `main`, or the first."""

    __slots__ = _ACCOUNT_FIELDS

    def __init__(
        self,
        account: str,
        algorithm: str,
        digits: int,
        period: int,
        last_used: int | None,
        *,
        offset: int,
        drift: "list[int]",
        successor: "dict[str, Any] | None",
        id: str,  # noqa: A002 - as it is called on the wire
        authenticators: "list[dict[str, Any]]",
        recovery: int | None,
    ) -> None:
        self.account = account
        self.algorithm = algorithm  # SHA1, SHA256 or SHA512
        self.digits = digits
        self.period = period  # seconds; 0 for HOTP
        self.last_used = last_used  # Unix time at which the last accepted step began, None if none was
        self.offset = offset  # steps by which the authenticator is ahead, as `resync` found
        self.drift = drift  # steps by which it was ahead at the last accepted codes, the latest last
        self.successor = successor  # algorithm, digits, period, deadline (Unix time or None) and cutover
        self.id = id  # hex digits; it stays when the account is removed and made again
        self.authenticators = authenticators  # all of them, as PROTOCOL.md describes
        self.recovery = recovery  # how many recovery codes are left, None if it has none

    def __repr__(self) -> str:
        return f"Account({self.account!r})"


def of(response: "Response") -> "Any":
    """The result in a response. Raises the daemon's `Refusal`, or `ProtocolError`."""
    if response.error is None:
        return response.result
    raise _refusal(response.error)


def converted(result: "Any", convert: "Callable[[Any], T]") -> "T":
    """What a method returns. Raises `ProtocolError` for a result of another form."""
    try:
        return convert(result)
    except (KeyError, TypeError, ValueError):
        raise ProtocolError("the daemon's answer is not of the form that PROTOCOL.md gives") from None


def code(result: "Any") -> Code:
    """The answer to `generate`."""
    return Code(result["code"], result["valid_for"], result["step"])


def is_valid(result: "Any") -> bool:
    """The answer to `verify` and `enroll_confirm`."""
    return result["valid"] is True


def accounts(result: "Any") -> list[Account]:
    """The answer to `accounts`."""
    return [Account(**{name: row[name] for name in _ACCOUNT_FIELDS}) for row in result]


def resynced(result: "Any") -> int:
    """The answer to `resync`."""
    return int(result["counter"] if "counter" in result else result["offset"])


def enrolment(result: "Any") -> Enrolment:
    """The answer to `enroll`."""
    return Enrolment(
        result["account"],
        bytearray.fromhex(result["seed"]),
        result["algorithm"],
        result["digits"],
        result["period"],
        expires_in=result["expires_in"],
    )


def recovery_codes(result: "Any") -> list[str]:
    """The answer to `recovery_create`."""
    codes: list[str] = result["codes"]
    if type(codes) is not list or any(type(code) is not str for code in codes):
        raise TypeError
    return codes


def batch(result: "Any") -> "dict[str, Any]":
    """The answer to `load_batch`, checked."""
    accounts, changed = result["accounts"], result["changed"]
    if (
        type(accounts) is not int
        or type(changed) is not list
        or any(type(name) is not str for name in changed)
    ):
        raise TypeError
    return {"accounts": accounts, "changed": changed}


def fields(result: "Any") -> "dict[str, Any]":
    """An answer that PROTOCOL.md describes, as a dict."""
    return {**result}


def _refusal(error: "Any") -> Exception:
    """The exception for an error as it came over the wire."""
    if type(error) is not list or len(error) < 2 or type(error[0]) is not str or type(error[1]) is not str:
        return ProtocolError("the daemon's error is not of the form that PROTOCOL.md gives")
    code, message = error[0], error[1]
    retry_after = error[2] if len(error) > 2 and type(error[2]) is int else None
    kind = REFUSALS.get(code, Internal)
    return kind(message.removeprefix(f"{code}: "), retry_after, is_answer=True)

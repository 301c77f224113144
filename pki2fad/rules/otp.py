"""Steps, counters, codes, windows and otpauth URIs: RFC 4226 and RFC 6238. The only module that uses pyotp.

pyotp makes only the URIs. For codes it takes twice as long, and keeps seeds as text, which cannot be wiped.
"""

import base64
import functools
import hashlib
import hmac
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pki2fad.crypto import seedsizes
from pki2fad.errors import BadRequest
from pki2fad.wire.forms import CODE_DIGITS

WINDOW = 1  # steps accepted on each side of the current one: RFC 6238 section 5.2 advises at most one
WINDOW_STEPS = 2 * WINDOW + 1  # the steps that a code is compared with
COUNTERS = 4  # HOTP: the next counter and three more, for presses of a token's button that were not used
LONGEST_PERIOD = 120  # seconds; pyotp takes no more
MAX_OFFSET = 10  # steps by which a prover may be off after `resync`: five minutes by the usual period
RESYNC_COUNTERS = 100  # HOTP: how far ahead `resync` looks (RFC 4226 section 7.4)
LAST_COUNTER = 2**53 - 1  # HOTP: that an authenticator may begin with; every client can send it

TOTP, HOTP = "totp", "hotp"  # the kinds of authenticators
KINDS = (TOTP, HOTP)

FIELDS = ("kind", "algorithm", "digits", "period")  # by which requests and commands say how codes are made

_HASHES: dict[str, Callable[..., Any]] = {
    "SHA1": hashlib.sha1,
    "SHA256": hashlib.sha256,
    "SHA512": hashlib.sha512,
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """How codes are made from a seed. Raises `ValueError`, which says what is allowed."""

    algorithm: str = "SHA1"
    digits: int = 6
    period: int = 30  # seconds; 0 for HOTP, which has counters in place of steps
    kind: str = TOTP

    def __post_init__(self) -> None:
        if self.algorithm not in _HASHES:
            raise ValueError(f"algorithm must be one of {', '.join(_HASHES)}")
        if type(self.digits) is not int or self.digits not in CODE_DIGITS:
            raise ValueError("digits must be 6, 7 or 8")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        if self.kind == HOTP:
            if self.period != 0:
                raise ValueError("an authenticator of the kind hotp has no period")
        elif type(self.period) is not int or not 1 <= self.period <= LONGEST_PERIOD:
            raise ValueError(f"period must be 1 to {LONGEST_PERIOD} seconds")

    @property
    def fields(self) -> dict[str, Any]:
        """Algorithm, digits and period by name, as messages and files have them; HOTP has the period 0."""
        return {"algorithm": self.algorithm, "digits": self.digits, "period": self.period}


def parameters(given: Mapping[str, Any]) -> Parameters:
    """The parameters that are given by the names of `FIELDS`, with the usual ones for others.

    Raises `BadRequest`.
    """
    usual: dict[str, Any] = {"period": 0} if given.get("kind") == HOTP else {}
    try:
        return Parameters(**usual | {name: given[name] for name in FIELDS if name in given})
    except ValueError as error:
        raise BadRequest(str(error)) from None


def require_counter(counter: int, *, kind: str | None) -> None:
    """Raise `BadRequest` unless an authenticator of this kind may begin with this counter."""
    if kind != HOTP:
        raise BadRequest("only an authenticator of the kind hotp has a counter")
    if not 0 <= counter <= LAST_COUNTER:
        raise BadRequest(f"counter must be 0 to {LAST_COUNTER}")


@functools.cache  # a million accounts share equal values
def text(algorithm: str, digits: int, period: int) -> bytes:
    """These parameters as a sealed seed is bound to them."""
    return f"{algorithm}\0{digits}\0{period}".encode("utf-8", "surrogateescape")


def step_at(wall: float, period: int) -> int:
    """The time step T of RFC 6238 section 4.2, with T0 = 0."""
    return int(wall // period)


def window(middle: int) -> range:
    """The steps of the window around a step, with which a code is compared."""
    return range(middle - WINDOW, middle + WINDOW + 1)


def window_end(wall: float, period: int) -> int:
    """The Unix time at which the last step of the window ends."""
    return (step_at(wall, period) + WINDOW + 1) * period


def valid_for(wall: float, period: int) -> int:
    """The whole seconds, 1 to `period`, until the next step begins."""
    return period - int(wall % period)


def make_code(seed: bytearray, parameters: Parameters, step: int) -> str:
    """The code of one step or counter (RFC 4226 section 5.3); an empty one for a step before 1970."""
    if step < 0:
        return ""
    hashed = hmac.digest(seed, step.to_bytes(8, "big"), parameters.algorithm)
    offset = hashed[-1] & 0xF
    number = int.from_bytes(hashed[offset : offset + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**parameters.digits).zfill(parameters.digits)  # half the time of a format


# Compares two codes, in constant time if their lengths are equal.
equal: Callable[[str, str], bool] = hmac.compare_digest


def otpauth_uri(seed: bytearray, parameters: Parameters, account: str, counter: int = 0) -> str:
    """The URI for authenticator applications. It has the seed in it. `counter` is the next one of HOTP.

    Raises `ValueError` for a seed for which there is none.
    """
    import pyotp  # only here: the daemon starts sooner

    if len(seed) < seedsizes.FOR_URI:
        raise ValueError(f"there is no otpauth: URI for a seed of less than {8 * seedsizes.FOR_URI} bits")
    secret = base64.b32encode(seed).decode().rstrip("=")
    digits, digest = parameters.digits, _HASHES[parameters.algorithm]
    whose = {"name": account, "issuer_name": "pki2fad"}
    if parameters.kind == HOTP:
        counted = pyotp.HOTP(secret, digits=digits, digest=digest)
        return counted.provisioning_uri(**whose, initial_count=counter)
    timed = pyotp.TOTP(secret, digits=digits, digest=digest, interval=parameters.period)
    return timed.provisioning_uri(**whose)


def seconds_until(wall: float, moment: float) -> int:
    """The whole seconds until `moment` has come, at least one."""
    return max(1, math.ceil(moment - wall))

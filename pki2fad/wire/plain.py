"""Requests in the form that most have, found in what arrived: no message is taken apart by itself.

That form is `verify` with an account and a code, or `generate` with an account, in the shortest encoding, as
the project's clients and most others write them. The same bytes mean the same to `wire.Decoder`, which takes
everything else. Bytes are handled as text in Latin-1, each a character.
"""

import functools
import re
from collections.abc import Iterable

from pki2fad.wire import messages
from pki2fad.wire.messages import Request

# A msgid as it was encoded, the account, and the code of a `verify` or None of a `generate`.
Plain = tuple[str, str, str | None]

# Bytes that no plain request is longer than, and of a read that is not left to the decoder as a whole: what
# is made of it takes six times the memory.
_LONGEST = 80
_AT_ONCE = 8 * 1024

_FIXSTR = 0xA0  # and the length, up to 31
_MSGID = "[\0-\x7f]|\xcc[\x80-\xff]|\xcd[\x01-\xff].|\xce(?!\0\0)...."  # each number in its one shortest way
_CODE = "\xa4code"
_NEXT = "(?:\x94|\\Z)"  # what a request may be followed by


def _string(lengths: Iterable[int], chars: str, then: str) -> str:
    """A string of one of these lengths, of such characters alone; `then` follows, and begins with others."""
    return f"(?:{'|'.join(f'{chr(_FIXSTR + n)}(?={chars}{{{n}}}{then})' for n in lengths)})({chars}+)"


_REQUEST = re.compile(
    f"\x94\0({_MSGID})(?:\xa6verify\x91(\x82)|\xa8generate\x91\x81)"
    f"\xa7account(?=.[^.@-]){_string(range(1, 32), '[A-Za-z0-9._@-]', f'(?(2){_CODE}|{_NEXT})')}"
    f"(?(2){_CODE}{_string(range(6, 9), '[0-9]', _NEXT)})",
    re.DOTALL,
)
_FULLMATCH = _REQUEST.fullmatch
_GROUPS = 1 + _REQUEST.groups


def alone(data: bytes) -> Plain | None:
    """The plain request that the data is, or None."""
    if len(data) > _LONGEST:
        return None
    found = _FULLMATCH(str(data, "latin-1"))
    return None if found is None else found.group(1, 3, 4)  # type: ignore[return-value]  # that many


def split(data: bytes) -> tuple[list[Plain], bytes]:
    """The plain requests that the data begins with, and what comes after them."""
    if len(data) > _AT_ONCE:
        return [], data
    parts = _REQUEST.split(str(data, "latin-1"))
    if any(parts[:-1:_GROUPS]):  # something else stands between them
        return [], data
    requests = list(zip(parts[1::_GROUPS], parts[3::_GROUPS], parts[4::_GROUPS], strict=True))
    return requests, parts[-1].encode("latin-1")


def request(plain: Plain) -> Request:
    """What `wire.Decoder` makes of it."""
    msgid, account, code = plain
    encoded = msgid.encode("latin-1")
    number = int.from_bytes(encoded[1:] or encoded, "big")
    if code is None:
        return Request(number, "generate", {"account": account})
    return Request(number, "verify", {"account": account, "code": code})


def code(msgid: str, code: str, valid_for: int, step: int) -> str:
    """The response of `generate`."""
    before, after = _around(len(code), valid_for, step)
    return f"{START}{msgid}{before}{code}{after}"


@functools.lru_cache(maxsize=256)
def _around(digits: int, valid_for: int, step: int) -> tuple[str, str]:
    """What stands between msgid and code and behind it, for all accounts of a period in a second."""
    blank = "0" * digits
    before, _, after = _response({"code": blank, "valid_for": valid_for, "step": step})[1].partition(blank)
    return before, after


def _response(result: dict[str, object]) -> tuple[str, str]:
    """What stands before the msgid and behind it."""
    text = messages.encode_response(0, None, result).decode("latin-1")
    return text[:2], text[3:]


# What stands before and behind the msgid in the response of `verify` to a code that is not good.
START, END_OF_INVALID = _response({"valid": False})

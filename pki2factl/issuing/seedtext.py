"""Reads seeds as people and programs write them: hex digits, in every form that is not ambiguous.

This is for seeds that are still to be sealed; inside a seal there is one form, which `sealing.open_seed`
checks. No message shows any of the text: it may be a seed in a form that is not read here.
"""

import codecs
import json
import re

from pki2factl import ui
from pki2fad.crypto import sealing, seedsizes

_BASE32 = re.compile("[A-Z2-7]{16,}=*")


def unmarked(data: bytes) -> bytes:
    """The text in UTF-8 without its byte order mark, converted if the mark says UTF-16.

    Raises `ValueError`.
    """
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(encoding).encode()
            except UnicodeDecodeError:
                raise ValueError("it begins like UTF-16, but is not UTF-16") from None
    return data.removeprefix(codecs.BOM_UTF8)


def seed(data: bytes, *, short: bool = False) -> bytearray:
    """Read the one seed in a text. Raises `ValueError`, which says what is wrong and shows none of it.

    A byte order mark, white space around it, `0x` before it and capital letters are allowed. The seed may
    also be the one value of a JSON object that can be a seed. With `short` it may have 80 to 127 bits.
    """
    least = seedsizes.SHORT if short else seedsizes.LEAST
    text = unmarked(data).decode("utf-8", "surrogateescape").strip()
    if text.startswith("{"):
        text = _value(text, least)
    problem = _problem(text, least)
    if problem:
        raise ValueError(f"{problem}; {_rule(least)}")
    return sealing.seed_from_hex(_digits(text).lower().encode(), least)


def _rule(least: int) -> str:
    return f"a seed is {2 * least} to {2 * seedsizes.MOST} hex digits, an even number"


def _value(text: str, least: int) -> str:
    """The value in a JSON object that is a seed, otherwise its only text."""
    try:
        members = json.loads(text, object_pairs_hook=list)  # a name may occur twice
    except (ValueError, RecursionError):
        raise ValueError("it begins with {, but is not a JSON object") from None
    texts = {value.strip() for _, value in members if isinstance(value, str)}
    seeds = [value for value in texts if not _problem(value, least)]
    if len(seeds) == 1:
        return seeds[0]
    if len(texts) == 1:
        return texts.pop()
    raise ValueError(
        f"{len(seeds) or 'none'} of the texts in the JSON object could be the seed; {_rule(least)}"
    )


def _digits(text: str) -> str:
    return text[2:] if text[:2] in ("0x", "0X") else text


def _problem(text: str, least: int) -> str:
    """The reason why a text is not a seed, empty if it is one."""
    digits = _digits(text)
    if not digits:
        return "there is no seed"
    for number, char in enumerate(digits, 1 + len(text) - len(digits)):
        if not (char.isascii() and char in "0123456789abcdefABCDEF"):
            like = ", and all of it looks like base32" if _BASE32.fullmatch(text.upper()) else ""
            return f"character {number} of {len(text)} is {_kind(char)}{like}"
    is_right = len(digits) in range(2 * least, 2 * seedsizes.MOST + 1, 2)
    return "" if is_right else f"it has {ui.count(len(digits), 'hex digit')}"


def _kind(char: str) -> str:
    if char in "\r\n":
        return "a line end"
    if char.isspace():
        return "a blank"
    if not char.isascii():
        return "not ASCII"
    if not char.isprintable():
        return "a control character"
    return "a letter after F" if char.isalpha() else "neither a digit nor a letter"

"""Seeds as text: what is wrong with one is said without showing any of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki2factl.issuing import seedtext

SEED = "31323334353637383930" * 2 + "abcdef0123456789abcdef01"

PROBLEMS = {
    "nothing": ("", "there is no seed; "),
    "blanks": (" \r\n", "there is no seed; "),
    "0x alone": ("0x", "there is no seed; "),
    "one digit": ("7", "it has 1 hex digit; "),
    "an odd number": (SEED[:-1], "it has 63 hex digits; "),
    "too short": (SEED[:30], "it has 30 hex digits; "),
    "too long": (SEED * 2 + "ab", "it has 130 hex digits; "),
    "a letter": (f"{SEED[:9]}g{SEED[10:]}", "character 10 of 64 is a letter after F; "),
    "a letter behind 0x": (f"0x{SEED[:9]}g", "character 12 of 12 is a letter after F; "),
    "a blank": (f"{SEED[:32]} {SEED[32:]}", "character 33 of 65 is a blank; "),
    "two lines": (f"{SEED}\n{SEED}\n", "character 65 of 129 is a line end; "),
    "a name before": (f"SEED={SEED}", "character 1 of 69 is a letter after F; "),
    "a hyphen": (f"ab-{SEED}", "character 3 of 67 is neither a digit nor a letter; "),
    "a control character": (f"{SEED}\x07", "character 65 of 65 is a control character; "),
    "full-width digits": (f"\N{FULLWIDTH DIGIT THREE}{SEED[1:]}", "character 1 of 64 is not ASCII; "),
    "base32": (
        "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        "character 1 of 32 is a letter after F, and all of it looks like base32; ",
    ),
    "half an object": ('{"seed": "', "it begins with {, but is not a JSON object"),
    "a deep object": ('{"a":' * 100_000, "it begins with {, but is not a JSON object"),
    "an object of nothing": ("{}", "none of the texts in the JSON object could be the seed; "),
    "an object of two": (
        f'{{"a": "{SEED}", "b": "{SEED[:32]}"}}',
        "2 of the texts in the JSON object could be the seed; ",
    ),
    "one name twice": (
        f'{{"seed": "{SEED}", "seed": "{SEED[:32]}"}}',
        "2 of the texts in the JSON object could be the seed; ",
    ),
    "an object of one that is none": (f'{{"seed": "{SEED[:31]}"}}', "it has 31 hex digits; "),
    "a seed further down": (f'{{"data": {{"seed": "{SEED}"}}}}', "none of the texts in the JSON object"),
}


@pytest.mark.parametrize(("text", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at below
        seedtext.seed(text.encode())
    assert str(caught.value).startswith(problem)


def test_half_of_utf_16_is_refused() -> None:
    with pytest.raises(ValueError, match="is not UTF-16"):
        seedtext.seed(SEED.encode("utf-16")[:-1])


@given(st.binary(min_size=16, max_size=64), st.integers(0, 127), st.characters(exclude_characters=" \t\r\n"))
def test_no_message_has_a_piece_of_the_text(seed: bytes, at: int, foreign: str) -> None:
    digits = seed.hex()
    text = digits[:at] + foreign + digits[at:]
    try:
        seedtext.seed(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        shown = str(error)
        assert not any(digits[begin : begin + 5] in shown for begin in range(len(digits) - 4))

"""The forms of account names and codes, which daemon and clients share."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki2fad.wire import forms


@pytest.mark.parametrize("code", ["000000", "123456", "1234567", "12345678"])
def test_six_to_eight_digits_may_be_a_code(code: str) -> None:
    assert forms.is_code(code)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "1",
        "12345",
        "123456789",
        "\uff11\uff12\uff13\uff14\uff15\uff16",  # full-width
        "12345\uff16",  # the last one full-width
        "\u0661\u0662\u0663\u0664\u0665\u0666",  # Arabic
        "\u00b2\u00b2\u00b2\u00b2\u00b2\u00b2",  # superscript: digits, but not decimal ones
        " 123456",
        "123456 ",
        "123 456",
        "123456\n",
        "\n123456",
        "123456\0",
        "+12345",
        "-12345",
        "12345.",
        "1e1000",
        "0x1234",
        "abcdef",
        "123_456",
        b"123456",
        123456,
        123456.0,
        None,
        True,
        ["123456"],
    ],
    ids=repr,
)
def test_nothing_else_may_be_a_code(code: object) -> None:
    assert not forms.is_code(code)


@given(text=st.text(max_size=9))
def test_whatever_may_be_a_code_is_ascii_digits_and_nothing_else(text: str) -> None:
    assert forms.is_code(text) == (6 <= len(text) <= 8 and set(text) <= set("0123456789"))


@given(st.text() | st.text("aZ0_.@-", max_size=66))
def test_an_account_name_is_one_to_64_of_its_characters_and_begins_as_a_word_does(name: str) -> None:
    pattern = r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}"
    assert forms.is_name(name) is (re.fullmatch(pattern, name, re.ASCII) is not None)

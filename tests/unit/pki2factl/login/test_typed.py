"""Codes as people type them."""

import pytest

from pki2factl.login import typed
from pki2fad.wire import forms


@pytest.mark.parametrize(
    "text",
    [
        "123456",
        "123 456",
        "123-456",
        "123 - 456",
        " 123456 ",
        "123456\n",
        "123 456\r\n",
        "12 34 56",
        "123\t456",
        "123\u00a0456",
        "123\u2009456",
    ],
)
def test_blanks_a_hyphen_between_digits_and_a_line_end_are_dropped(text: str) -> None:
    assert typed.code(text) == "123456"


@pytest.mark.parametrize(
    "text",
    [
        "12-34-56",
        "-123456",
        "123456-",
        "123--456",
        "123_456",
        "12a-456",
        "",
        "123\n456",
        "123456\n\n",
        "\uff11\uff12\uff13-456",
    ],
)
def test_nothing_else_is(text: str) -> None:
    assert typed.code(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "123456 234567",
        "123456\n234567\n",
        "123 456\r\n234 567",
        "\n123-456\n\n 234 567 \n",
        "123 456 234 567",
        "123-456 234-567\n",
    ],
)
def test_two_codes_are_on_two_lines_or_on_one(text: str) -> None:
    assert typed.two_codes(text) == ["123456", "234567"]


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("\n", 0), ("123456\n", 1), ("1\n2\n3\n", 3), ("123456 123457 123458", 3)]
)
def test_fewer_or_more_lines_are_as_many_codes(text: str, count: int) -> None:
    assert len(typed.two_codes(text)) == count


@pytest.mark.parametrize("code", ["123456", "123 456", "123-456", "123456 ", "12 34 56\r"])
@pytest.mark.parametrize("password", [b"", b"horse", b"horse ", b"horse1", b"horse-", b"\xff\xc3\xa9"])
def test_a_password_ends_where_the_last_digits_begin(password: bytes, code: str) -> None:
    assert typed.behind_password(password + code.encode(), 6) == (password, "123456")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("K7QM4-2XW9T", "K7QM4-2XW9T"),
        (" k7qm4 - 2xw9t\n", "k7qm4-2xw9t"),
        ("K7QM4 2XW9T", "K7QM42XW9T"),
        ("k7 qm4 2x w9t", "k7qm42xw9t"),
        ("01234-56789", "0123456789"),
        ("01234 56789", "0123456789"),
    ],
)
def test_a_recovery_code_is_passed_on(text: str, code: str) -> None:
    assert typed.code(text) == code
    assert forms.is_recovery_code(code)


@pytest.mark.parametrize("code", ["K7QM4-2XW9T", "k7qm4-2xw9t", "01234-56789", "ABCDE-FGHJK"])
@pytest.mark.parametrize("end", [b"", b" ", b"\r", b"\n"])
@pytest.mark.parametrize("password", [b"", b"horse", b"horse 1", b"horse-", b"\xff\xc3\xa9"])
@pytest.mark.parametrize("digits", [6, 7, 8])
def test_a_password_ends_where_a_recovery_code_with_its_hyphen_begins(
    password: bytes, code: str, end: bytes, digits: int
) -> None:
    assert typed.behind_password(password + code.encode() + end, digits) == (password, code)


@pytest.mark.parametrize("text", [b"horse12345", b"horse1234x6", b"", b"123 45"])
def test_with_too_few_digits_behind_a_password_there_is_no_code(text: bytes) -> None:
    _, code = typed.behind_password(text, 6)
    assert not (typed.is_digits(code) and len(code) == 6)

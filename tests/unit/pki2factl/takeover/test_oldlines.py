"""The lines of old services: which have a code, what they become, and what is shown of the others."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki2factl.takeover import oldlines

OURS = b"2026-01-31 12:34:00 - 2FA Code: 123456"

FORMS = [
    b"2026-01-31 12:34:00 - 2FA Code: 123456",
    b"2026-01-31 12:34:00 UTC - 2FA Code: 123456",
    b"2026-01-31 12:34:00 UTC 2FA Code: 123456",
    b"2026-01-31 12:34:00 2FA Code: 123456",
    b"2026-01-31 12:34:00 UTC - 123456",
    b"2026-01-31 12:34:00 - 123456",
    b"2026-01-31T12:34:00 2FA=123456",
    b"2026-01-31T12:34:00Z OTP=123456",
    b"2026-01-31T12:34:00Z - TOTP: 123456",
    b"2026-01-31 12:34:00 - 2fa code: 123456",
    b"2026-01-31 12:34:00 utc - 2fa code: 123456",
    b"2026-01-31t12:34:00z otp=123456",
    b"2026-01-31T12:34:00.123456+00:00 2FA Code: 123456",
    b"2026-01-31T18:04:00+05:30 code: 123456",
    b"2026-01-31 12:34:00 UTC - 2FA Code: 123456 \r",
]


@pytest.mark.parametrize("line", FORMS)
def test_a_line_with_time_and_code_gets_the_minute_logs_form(line: bytes) -> None:
    found = oldlines.read(line + b"\n")
    assert (found.content, found.codes, found.others, found.doubtful) == (OURS + b"\n", 1, [], [])


def test_the_machines_zone_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert oldlines.read(b"2026-01-31T12:34:00 2FA=123456").content == OURS
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("line", [b"123456", b" 012345\r"])
def test_a_code_alone_is_read_and_stays_as_it_is(line: bytes) -> None:
    assert oldlines.read(line) == (line, 1, [], [])


@pytest.mark.parametrize(
    "line",
    [
        b"Error: Seed not decrypted yet",
        b"2026-01-31 12:34:00 - Error: no seed",
        b"1234567",
        b"12345",
        b"\0\xff",
    ],
)
def test_a_line_without_a_code_is_kept_and_nothing_is_said_of_it(line: bytes) -> None:
    found = oldlines.read(b"\n" + line + b"\n" + OURS + b"\n")
    assert found.content == b"\n" + line + b"\n" + OURS + b"\n"
    assert (found.codes, found.doubtful) == (1, [])
    assert found.others == [(2, line)]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"2026-13-31 12:34:00 - 2FA Code: 123456", "line 2 is 2026-13-31 12:34:00 - 2FA Code: …"),
        (b"31.01.2026 12:34 code 123456 of default", "line 2 is 31.01.2026 12:34 code … of default"),
    ],
)
def test_a_line_that_seems_to_have_a_code_is_shown_without_it(line: bytes, shown: str) -> None:
    found = oldlines.read(OURS + b"\n" + line + b"\n" + line)
    assert found.content == OURS + b"\n" + line + b"\n" + line
    assert [str(one) for one in found.doubtful] == [shown]


def test_a_code_that_is_joined_to_a_word_is_not_shown() -> None:
    assert str(oldlines.Line(3, b"12:34 OTP123456x")) == "line 3 is 12:34 OTP…x"


@pytest.mark.parametrize(
    "text", [b"3132333435363738" * 4, b"seed: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", b"QUJD+/RE" * 50 + b"=="]
)
def test_what_may_be_a_seed_is_not_shown(text: bytes) -> None:
    assert str(oldlines.Line(1, text)).removeprefix("line 1 is ").removeprefix("seed: ") == "…"


def test_a_long_line_is_cut() -> None:
    assert len(str(oldlines.Line(1, b"no code " * 100))) < 100


@given(st.lists(st.sampled_from([*FORMS, b"Error", b"", b"123456", b"\xff"]), max_size=6))
def test_reading_what_was_read_changes_nothing(lines: list[bytes]) -> None:
    once = oldlines.read(b"\n".join(lines))
    assert oldlines.read(once.content) == once


@pytest.mark.parametrize("blank", [b" ", b"\t", b" - "])
def test_a_line_with_much_white_space_is_read_like_any_other(blank: bytes) -> None:
    """Divided in every way between four places, 64 KiB of it would take years: the test would not end."""
    line = b"2026-01-31 12:34:00" + blank + b" " * 65_536
    assert oldlines.read(line + b"123456").codes == 1
    assert oldlines.read(line + b"x").codes == 0

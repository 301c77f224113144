"""The old service's log: what it has in common with the minute log, and how much of it is read."""

import itertools
import operator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki2factl.takeover import oldlog
from pki2fad.errors import UnusablePath

LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"\n", b"ab\n", b"a\r\n", b"\0\xff\n"]), max_size=8)


@given(same=LINES, old=LINES, new=LINES, end=st.sampled_from([b"", b"a", b"ab"]), block=st.integers(1, 9))
def test_what_both_begin_with_is_whole_lines_whatever_the_blocks(
    same: list[bytes], old: list[bytes], new: list[bytes], end: bytes, block: int
) -> None:
    old, new = same + old, [*same, *new, *([end] if end else [])]
    common = sum(itertools.takewhile(bool, map(operator.eq, old, new)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oldlog, "_BLOCK", block)
        assert oldlog._common(b"".join(old), b"".join(new)) == len(b"".join(old[:common]))


def test_a_log_that_grows_while_it_is_read_is_read_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oldlog, "_LOG_LIMIT", 1024 * 1024)
    with (
        Path("/dev/zero").open("rb") as endless,
        pytest.raises(UnusablePath, match="larger than 1 megabytes"),
    ):
        oldlog._content(endless, "the log")


def test_a_log_of_just_the_limit_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(oldlog, "_LOG_LIMIT", 1024)
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1024)
    with path.open("rb") as file:
        assert oldlog._content(file, str(path)) == b"x" * 1024

"""The daemon's log: one line an event, whatever is in it, and what the journal needs to see."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pki2fad.host import log, sinks

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d "

ONE_OF_EACH = """
log.info("ready", accounts=2, socket="/run/pki2fad/socket")
log.warning("verify_waits", until=1700000000)
log.error("seed_ignored", reason="not base64")
"""

LINES_OF_EACH = [
    "ready accounts=2 socket=/run/pki2fad/socket",
    "verify_waits until=1700000000",
    'seed_ignored reason="not base64"',
]


@contextlib.contextmanager
def log_file() -> Iterator[Path]:
    """A file to which the log goes meanwhile."""
    before, log._sink = log._sink, None
    with tempfile.TemporaryDirectory() as directory:
        log.to_file(os.path.join(directory, "log"))
        try:
            yield Path(directory, "log")
        finally:
            assert log._sink is not None
            log._sink.close()
            log._sink = before


def logged(**fields: object) -> str:
    """The line of an event without its time."""
    with log_file() as path:
        log.info("event", **fields)
        text = path.read_bytes().decode("ascii")
    assert text.endswith("\n")
    return re.sub(f"^{TIME}", "", text[:-1])


def to_stderr(tmp_path: Path, script: str, journal: str | None = None) -> tuple[str, str]:
    """What a process writes to stdout and to stderr; `journal` is formatted with stderr's numbers."""
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    path = tmp_path / "stderr"
    with path.open("wb") as stderr:
        if journal is not None:
            status = os.fstat(stderr.fileno())
            environment["JOURNAL_STREAM"] = journal.format(device=status.st_dev, inode=status.st_ino)
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"from pki2fad.host import log\nlog.to_stderr()\n{script}"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            text=True,
            check=False,
        )
    assert done.returncode == 0, path.read_text()
    return done.stdout, path.read_text()


def is_control(character: str) -> bool:
    """True for what moves the cursor, ends a line or is nothing that can be seen."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


@given(fields=st.dictionaries(st.sampled_from(["account", "reason", "path"]), st.text()))
@example(fields={"reason": "a\nready accounts=1\r\n"})
@example(fields={"reason": '" account=root "'})
@example(fields={"reason": "\x1b]0;title\x07\x7f\x85\u2028\u202e\udcff\0"})
def test_an_event_is_one_line_without_control_characters_whatever_is_in_it(fields: dict[str, str]) -> None:
    line = logged(**fields)
    assert not any(is_control(character) for character in line)
    # Read from the left, each value is a plain word, or ends with the first quote that is not escaped.
    values = r"".join(rf' {name}=("(?:[^"\\]|\\.)*"|[^\s"=]+)' for name in fields)
    assert re.fullmatch("event" + values, line)


@given(word=st.text("abcXYZ0189._@/:+-", min_size=1))
def test_a_plain_word_stands_as_it_is(word: str) -> None:
    assert logged(account=word) == f"event account={word}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"),
        (1.5, "1.5"),
        (None, "None"),
        ("", '""'),
        ("two words", '"two words"'),
        ("it's", '"it\'s"'),
        ('a "word"', r'"a \"word\""'),
        ("a=b", '"a=b"'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nend", r'"line\nend"'),
        ("\u00e4", r'"\u00e4"'),
        (ValueError("no such thing"), '"no such thing"'),
    ],
)
def test_a_value_is_written_so(value: object, expected: str) -> None:
    assert logged(value=value) == f"event value={expected}"


@given(value=st.text("'\"\\nu0\n\x1b\x7f\xe4\udcff ", min_size=1))
@example(value="\\'")
@example(value="\\\"'")
@example(value="\\u007f")
def test_a_value_in_quotes_is_read_back_as_a_string_of_json(value: str) -> None:
    written = logged(reason=value).removeprefix("event reason=")
    assert (json.loads(written) if written.startswith('"') else written) == value


def test_lines_for_people_begin_with_the_time(tmp_path: Path) -> None:
    stdout, stderr = to_stderr(tmp_path, ONE_OF_EACH)
    assert stdout == ""
    lines = stderr.splitlines()
    assert [re.sub(f"^{TIME}", "", line) for line in lines] == LINES_OF_EACH
    assert all(re.match(TIME, line) for line in lines)


def test_lines_for_the_journal_begin_with_their_priority(tmp_path: Path) -> None:
    _, stderr = to_stderr(tmp_path, ONE_OF_EACH, journal="{device}:{inode}")
    assert stderr.splitlines() == [
        f"<{priority}>{line}" for priority, line in zip((6, 4, 3), LINES_OF_EACH, strict=True)
    ]


@pytest.mark.parametrize("journal", ["", "{device}", "{inode}:{device}", "{device}:{inode}0", "1:1", "x"])
def test_the_journal_of_another_stream_is_not_ours(journal: str, tmp_path: Path) -> None:
    _, stderr = to_stderr(tmp_path, ONE_OF_EACH, journal=journal)
    assert all(re.match(TIME, line) for line in stderr.splitlines())


FAILURE = """
try:
    {}["missing"]
except KeyError as error:
    log.failure("request_failed", error, method="verify")
"""


def test_a_failure_is_an_event_with_the_traceback_behind_it(tmp_path: Path) -> None:
    _, stderr = to_stderr(tmp_path, FAILURE)
    first, second, *_, last = stderr.splitlines()
    assert re.fullmatch(TIME + "request_failed method=verify", first)
    assert (second, last) == ("Traceback (most recent call last):", "KeyError: 'missing'")


def test_every_line_of_a_traceback_has_its_priority_in_the_journal(tmp_path: Path) -> None:
    _, stderr = to_stderr(tmp_path, FAILURE, journal="{device}:{inode}")
    lines = stderr.splitlines()
    assert lines[0] == "<3>request_failed method=verify"
    assert lines[-1] == "<3>KeyError: 'missing'"
    assert all(line.startswith("<3>") for line in lines)


def test_a_failure_without_an_exception_is_just_the_event(tmp_path: Path) -> None:
    _, stderr = to_stderr(tmp_path, 'log.failure("loop_failed", None)', journal="{device}:{inode}")
    assert stderr == "<3>loop_failed\n"


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\r", "\x85", "\x7f", "\udcff", "\u202e"], ids=ascii)
def test_the_text_of_an_exception_brings_no_control_character_into_the_log(text: str) -> None:
    with log_file() as path:
        log.failure("request_failed", ValueError(f"before{text}after"))
        written = path.read_bytes().decode()
    assert "request_failed" in written
    assert "before" in written
    assert not any(is_control(character) for character in written.replace("\n", ""))


def test_an_event_before_the_log_has_a_place_goes_nowhere() -> None:
    script = "from pki2fad.host import log\nlog.info('event', account='deploy')"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_log_goes_to_one_place_and_to_no_other_logger(tmp_path: Path) -> None:
    file = tmp_path / "log"
    stdout, stderr = to_stderr(
        tmp_path,
        f"""
import logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.DEBUG)
log.info("before")
log.to_file({str(file)!r})
log.info("after")
""",
    )
    assert stdout == ""
    assert re.fullmatch(TIME + "before\n", stderr)
    assert re.fullmatch(TIME + "after\n", file.read_text())


def test_a_log_file_that_was_rotated_away_is_opened_again() -> None:
    with log_file() as path:
        log.info("first")
        path.rename(path.with_suffix(".1"))
        log.info("second")
        log.info("third")
        assert path.with_suffix(".1").read_text().split()[-1] == "first"
        assert [line.split()[-1] for line in path.read_text().splitlines()] == ["second", "third"]


def test_a_log_file_whose_place_is_gone_takes_its_lines_until_there_is_another(tmp_path: Path) -> None:
    with log_file() as path:
        log.info("first")
        path.parent.rename(tmp_path / "away")
        log.info("second")
        path.parent.mkdir()
        log.info("third")
        assert [line.split()[-1] for line in (tmp_path / "away" / "log").read_text().splitlines()] == [
            "first",
            "second",
        ]
        assert path.read_text().split()[-1] == "third"


def test_a_log_file_is_appended_to() -> None:
    with log_file() as path:
        log.info("first")
        log.to_file(str(path))
        log.info("second")
        assert [line.split()[-1] for line in path.read_text().splitlines()] == ["first", "second"]


@contextlib.contextmanager
def log_to(descriptor: int, *, prefixed: bool) -> Iterator[None]:
    before, log._sink = log._sink, sinks.Descriptor(descriptor, prefixed=prefixed)
    try:
        yield
    finally:
        log._sink = before


def test_what_may_wait_is_written_together_at_the_next_flush() -> None:
    with log_file() as path:
        for line in ("one a=1", "two a=2", "three"):
            log.later(line)
        assert path.read_text() == ""
        log.flush()
        log.flush()
        lines = path.read_text().splitlines()
    assert [re.sub(f"^{TIME}", "", line) for line in lines] == ["one a=1", "two a=2", "three"]


def test_what_may_wait_is_written_before_the_next_event_of_another_kind() -> None:
    with log_file() as path:
        log.later("one")
        log.later("two")
        log.warning("three")
        lines = path.read_text().splitlines()
    assert [re.sub(f"^{TIME}", "", line) for line in lines] == ["one", "two", "three"]


def test_each_line_that_may_wait_has_its_priority_in_the_journal() -> None:
    reading, writing = os.pipe()
    with log_to(writing, prefixed=True):
        log.later("one")
        log.later("two")
        log.flush()
    assert os.read(reading, 100) == b"<6>one\n<6>two\n"
    os.close(reading)
    os.close(writing)

"""Where the log goes: nothing there makes the daemon wait, and what is lost is counted."""

import contextlib
import fcntl
import os
import pty
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agents import fill_disk, small_disk
from support.peers import require_root

from pki2fad.host import sinks
from pki2fad.host.sinks import INFO, NOTICE, Descriptor

FULL = 2_000_000  # bytes: more than any pipe, socket or terminal takes


class Channel:
    """Both ends of what a log is written to."""

    def __init__(self, reading: int, writing: int, *, joined: str = "\n") -> None:
        self.reading, self.writing = reading, writing
        self._joined = joined.encode()
        self._sinks: list[Descriptor] = []

    def sink(self, *, prefixed: bool) -> Descriptor:
        """What writes to it."""
        self._sinks.append(Descriptor(self.writing, prefixed=prefixed))
        return self._sinks[-1]

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
        os.close(self.reading)
        os.close(self.writing)

    def read(self) -> bytes:
        """All that is there now, as it was written."""
        found = bytearray()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.reading, 65536):
                found += data
        return bytes(found).replace(self._joined, b"\n")


def a_pipe() -> Channel:
    return Channel(*os.pipe())


def a_stream() -> Channel:
    """As the journal's is."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(*(end.detach() for end in ends))


def a_terminal() -> Channel:
    return Channel(*pty.openpty(), joined="\r\n")


@pytest.fixture(params=[a_pipe, a_stream, a_terminal])
def channel(request: pytest.FixtureRequest) -> Iterator[Channel]:
    channel: Channel = request.param()
    os.set_blocking(channel.reading, False)
    yield channel
    channel.close()


def info(sink: Descriptor, *lines: str) -> None:
    sink.write(INFO, lines)


def filled(sink: Descriptor, line: str = "x" * 100) -> int:
    """Write until lines are dropped; returns how many were written in all."""
    for number in range(FULL // len(line)):
        info(sink, line)
        if sink.dropped:
            return number + 1
    raise AssertionError("it is never full")


def told(lines: list[str]) -> int:
    """How many lines were dropped, as the log itself says."""
    return sum(int(line.partition("count=")[2]) for line in lines if "lines_dropped" in line)


def test_nothing_waits_for_a_reader_and_each_dropped_line_is_counted(channel: Channel) -> None:
    sink = channel.sink(prefixed=True)
    written = filled(sink)
    for _ in range(50):
        info(sink, "x" * 100, "x" * 100)
    got = channel.read()
    info(sink, "next")
    lines = (got + channel.read()).decode().splitlines()
    ordinary = [line for line in lines if "lines_dropped" not in line]
    assert lines[-2].startswith("<4>lines_dropped count=")
    assert told(lines) == sink.dropped >= 50
    assert ordinary == ["<6>" + "x" * 100] * (written + 100 - sink.dropped) + ["<6>next"]


def test_what_was_dropped_is_told_once_and_counted_for_good(channel: Channel) -> None:
    sink = channel.sink(prefixed=True)
    filled(sink)
    lines = channel.read().decode().splitlines()
    for number in range(3):
        info(sink, f"after {number}")
        lines += channel.read().decode().splitlines()
    assert told(lines) == sink.dropped > 0
    assert lines[-3:] == [f"<6>after {number}" for number in range(3)]


def test_a_line_that_matters_waits_for_room_and_comes_before_what_is_written_later(channel: Channel) -> None:
    sink = channel.sink(prefixed=True)
    filled(sink)
    backup = f"backup accounts=3 to={'k' * 5000}"
    sink.write(NOTICE, [backup])
    info(sink, "lost")
    got = channel.read()
    assert b"lost" not in got
    while not sink.drain():
        got += channel.read()
    info(sink, "next")
    lines = (got + channel.read()).decode().splitlines()
    assert told(lines) == sink.dropped
    assert lines.index(f"<5>{backup}") < lines.index("<6>next")


def test_lines_that_matter_are_kept_up_to_a_limit_and_then_counted(channel: Channel) -> None:
    sink = channel.sink(prefixed=True)
    filled(sink)
    dropped = sink.dropped
    for _ in range(30):
        sink.write(NOTICE, ["y" * 50_000])
    kept = sink._kept.count(b"y\n")
    assert 0 < len(sink._kept) <= 1024 * 1024
    assert sink.dropped == dropped + 30 - kept


def test_a_line_of_which_a_part_was_written_is_ended_before_the_next(channel: Channel) -> None:
    sink = channel.sink(prefixed=True)
    long = "z" * 500_000
    info(sink, long, "behind it")
    assert sink.dropped == 1
    sink.write(NOTICE, ["matters"])
    got = b""
    while not sink.drain():
        got += channel.read()
    info(sink, "next")
    got += channel.read()
    assert got.decode().splitlines() == [f"<6>{long}", "<5>matters", "<4>lines_dropped count=1", "<6>next"]


def test_the_flags_of_a_descriptor_that_others_share_stay_as_they_are(channel: Channel) -> None:
    before = fcntl.fcntl(channel.writing, fcntl.F_GETFL)
    sink = channel.sink(prefixed=False)
    filled(sink)
    assert fcntl.fcntl(channel.writing, fcntl.F_GETFL) == before
    assert not before & os.O_NONBLOCK


def test_a_stopped_terminal_is_not_waited_for() -> None:
    reading, writing = pty.openpty()
    try:
        termios.tcflow(writing, termios.TCOOFF)  # as Ctrl-S does
        sink = Descriptor(writing, prefixed=False)
        info(sink, "one")
        assert sink.dropped == 1
        termios.tcflow(writing, termios.TCOON)
        info(sink, "two")
        assert b"lines_dropped count=1" in os.read(reading, 1000)
        sink.close()
    finally:
        os.close(reading)
        os.close(writing)


def test_a_pipe_without_a_reader_costs_lines_and_no_more() -> None:
    reading, writing = os.pipe()
    sink = Descriptor(writing, prefixed=False)
    os.close(reading)
    info(sink, "one")
    assert sink.dropped == 1
    sink.close()
    os.close(writing)


# Writes as another user to a pipe that only its maker may open.
FOREIGN = """
import os, sys
from pki2fad.host import sinks
os.setresuid(4242, 4242, 4242)
sink = sinks.Descriptor(2, prefixed=True)
for number in range(30_000):
    sink.write(sinks.INFO, ["x" * 100])
print(sink.dropped, flush=True)
sys.stdin.read(1)
while sink._told < sink.dropped:
    sink.write(sinks.INFO, ["last"])
print(sink.dropped)
"""


def test_a_pipe_that_may_not_be_opened_is_not_waited_for_either() -> None:
    require_root()
    with subprocess.Popen(
        [sys.executable, "-P", "-c", FOREIGN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        dropped = int(child.stdout.readline())
        assert dropped > 0
        output, errors = child.communicate("\n", timeout=60)
    assert child.returncode == 0
    lines = errors.splitlines()
    assert (lines[-1], told(lines)) == ("<6>last", int(output))
    assert lines.count("<6>" + "x" * 100) == 30_000 - dropped


def test_a_full_disk_costs_lines_and_merges_none(tmp_path: Path) -> None:
    require_root()
    with small_disk(tmp_path) as disk:
        sink = sinks.File(str(disk / "log"))
        sink.write(INFO, ["first"])
        fill_disk(disk / "filler")
        for number in range(1000):
            sink.write(INFO, [f"number={number} {'x' * 100}"])
        assert sink.dropped > 0
        (disk / "filler").unlink()
        sink.write(INFO, ["last"])
        lines = [line.split(" ", 1)[1] for line in (disk / "log").read_text().splitlines()]
        assert lines[0] == "first"
        assert lines[-2:] == [f"lines_dropped count={sink.dropped}", "last"]
        assert all(line.endswith(" " + "x" * 100) for line in lines[1:-2])
        assert len(lines) == 1003 - sink.dropped
        sink.close()


def test_the_rest_of_a_line_does_not_begin_the_file_after_a_rotation(tmp_path: Path) -> None:
    require_root()
    with small_disk(tmp_path) as disk:
        sink = sinks.File(str(disk / "log"))
        sink.write(INFO, ["first"])
        fill_disk(disk / "filler")
        while not sink._cut:
            sink.write(INFO, ["x" * 1000])
        (disk / "filler").unlink()
        (disk / "log").rename(disk / "log.1")
        sink.write(INFO, ["next"])
        lines = [line.split(" ", 1)[1] for line in (disk / "log").read_text().splitlines()]
        assert lines == [f"lines_dropped count={sink.dropped}", "next"]
        sink.close()


@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to(path.with_name("other")),
        lambda path: (path.with_name("other").touch(), path.hardlink_to(path.with_name("other"))),
    ],
    ids=["fifo", "directory", "link", "hard link"],
)
def test_a_log_file_is_a_regular_file_of_one_name(tmp_path: Path, put: Callable[[Path], object]) -> None:
    put(tmp_path / "log")
    with pytest.raises(OSError, match=r"log|regular|directory"):
        sinks.File(str(tmp_path / "log"))


def test_a_fifo_in_the_place_of_a_log_file_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = sinks.File(str(path))
    sink.write(INFO, ["one"])
    path.rename(tmp_path / "old")
    os.mkfifo(path)
    sink.write(INFO, ["two"])
    assert len((tmp_path / "old").read_text().splitlines()) == 2
    sink.close()

"""A log that nobody reads: the daemon answers, stops, and says how many lines it lost."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, wait_until

SEED = b"the seed of the unread log tests"

REQUESTS = 2000  # a pipe takes 64 KiB, some 700 lines


class Pipe:
    """A pipe that is the daemon's stderr."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._path = path
        self.text = ""

    def read(self) -> str:
        """All that has come out of it."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.reading, 65536):
                self.text += data.decode()
        return self.text

    def fill(self) -> None:
        writing = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4095 + b"\n")
        os.close(writing)


@pytest.fixture
def pipe(daemon: Daemon) -> Iterator[Pipe]:
    pipe = Pipe(daemon.stderr)
    yield pipe
    daemon.close()
    os.close(pipe.reading)


@pytest.fixture
def running(daemon: Daemon, pipe: Pipe, seal: Callable[[bytes], bytes]) -> Daemon:  # noqa: ARG001 - stderr
    daemon.deliver("default", seal(SEED))
    return daemon.start()


def told(lines: list[str]) -> int:
    """How many lines were lost, as the log says."""
    return sum(int(line.partition(" count=")[2]) for line in lines if " lines_dropped count=" in line)


def test_requests_are_answered_and_the_lost_lines_counted(running: Daemon, pipe: Pipe) -> None:
    with running.client() as client:
        for _ in range(REQUESTS):
            client.generate()
        wait_until(lambda: client.status()["log_dropped"], "nothing is lost")
        pipe.read()
        client.generate()

        def is_complete() -> bool:
            lines = pipe.read().splitlines()
            return sum(" generate " in line for line in lines) == REQUESTS + 1 - told(lines)

        wait_until(is_complete, "lines are missing that are not counted")
        status, metrics = client.status(), client.metrics()
    lines = pipe.text.splitlines()
    assert told(lines) == status["log_dropped"] == metrics["log_dropped"] > 0
    assert f"{told(lines)} lines dropped" in running.ctl("status").stdout
    assert f"pki2fad_log_dropped_lines_total {told(lines)}" in running.ctl("metrics").stdout


def test_a_change_is_in_the_log_as_soon_as_it_is_read(running: Daemon, pipe: Pipe) -> None:
    with running.client() as client:
        for _ in range(REQUESTS):
            client.generate()
        wait_until(lambda: client.status()["log_dropped"], "nothing is lost")
        client.lock()
    assert "audit=locked" not in pipe.read()
    wait_until(lambda: "audit=locked" in pipe.read(), "the line does not come")


def test_a_full_pipe_keeps_the_daemon_neither_from_starting_nor_from_stopping(
    daemon: Daemon, pipe: Pipe
) -> None:
    daemon.stdout = daemon.stderr
    pipe.fill()
    daemon.start()
    assert daemon.ctl("status").returncode == 0
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begun < 10


def test_a_start_that_fails_ends_though_nobody_reads_why(daemon: Daemon, pipe: Pipe) -> None:
    daemon.configure("no toml")
    pipe.fill()
    daemon.spawn()
    assert daemon.wait() == 1


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_detached_daemon_logs_to_a_regular_file_alone(daemon: Daemon, kind: str) -> None:
    daemon.log_dir.mkdir()
    path = daemon.log_dir / "pki2fad.log"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(daemon.root / "elsewhere")
    assert f"cannot write {path}: " in daemon.fail_to_start("--detach")


def test_a_fifo_in_the_place_of_the_minute_log_stops_nothing_and_is_told(running: Daemon) -> None:
    running.codes_log.unlink(missing_ok=True)
    os.mkfifo(running.codes_log)
    with running.client() as client:
        wait_until(lambda: client.status()["trouble"], "nobody says so")
        (trouble,) = client.status()["trouble"]
    assert trouble["what"] == "minute_log"
    assert str(running.codes_log) in trouble["reason"]
    assert running.ctl("status", "--check").returncode == 6
    running.codes_log.unlink()
    with running.client() as client:
        wait_until(lambda: not client.status()["trouble"], "it stays wrong")
    assert json.loads(running.ctl("status", "--json").stdout)["trouble"] == []

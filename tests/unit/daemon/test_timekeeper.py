"""When the timekeeper writes what is known of the clock, and what it says."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import fill_disk, logged, small_disk
from support.stores import one_by_one

from pki2fad.daemon.timekeeper import Timekeeper
from pki2fad.errors import UnusableState
from pki2fad.rules import clock
from pki2fad.rules.changes import Change, WatchEdit
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.outcomes import KEPT, NotKept
from pki2fad.server.commit import Settled
from pki2fad.state.store import Store

START = 1_700_000_000.0
HOUR = 3600.0


class Clocks:
    """Two clocks, a timekeeper that reads them, and the marks that it has written."""

    def __init__(self) -> None:
        self.reading = Reading(START, 100.0)
        self.watch = Watch(None, (), (), self.reading)
        self.written: list[float] = []
        self.trouble = ""
        self.timekeeper = Timekeeper(self.watch, self.keep, lambda: self.reading)

    def look(self, passed: float = 1.0, by: float = 0.0) -> int:
        """Look when so much time has passed and the clock was set by so much; returns how often it wrote."""
        before = len(self.written)
        self.reading = Reading(self.reading.wall + passed + by, self.reading.boot + passed)
        self.timekeeper.look()
        return len(self.written) - before

    def keep(self, change: Change, settled: Settled) -> None:
        assert isinstance(change, WatchEdit)
        if self.trouble:
            settled(NotKept(UnusableState(self.trouble)))
        else:
            self.written.append(change.mark)
            settled(KEPT)


@pytest.fixture
def clocks() -> Clocks:
    """After the first look."""
    clocks = Clocks()
    clocks.look(0.0)
    return clocks


@pytest.fixture
def lines() -> Iterator[list[str]]:
    with logged() as lines:
        yield lines


# What is written


def test_the_first_look_writes() -> None:
    clocks = Clocks()
    assert clocks.written == []
    clocks.look(0.0)
    assert clocks.written == [START]


def test_the_mark_is_written_each_time_it_has_risen_by_five_minutes(clocks: Clocks) -> None:
    written = [clocks.look() for _ in range(900)]
    assert [second for second, times in enumerate(written, 1) if times] == [300, 600, 900]
    assert clocks.written[1:] == [START + 300, START + 600, START + 900]


@pytest.mark.parametrize("by", [HOUR, -HOUR, 10.0, -10.0])
def test_each_step_is_written_at_once(clocks: Clocks, by: float) -> None:
    clocks.look(250.0)
    assert clocks.look(by=by) == 1
    assert clocks.look() == 0


def test_a_slew_is_not_written(clocks: Clocks) -> None:
    assert [clocks.look(by=-1.5) for _ in range(10)] == [0] * 10


def test_an_accepted_clock_is_written_at_once_and_from_there_on(clocks: Clocks) -> None:
    clocks.look(1000.0)
    clocks.look(by=-500.0)
    clocks.watch.accept(clocks.reading.wall, None)
    assert clocks.look() == 1
    assert clocks.written[-1] == START + 502
    assert [clocks.look(100.0) for _ in range(3)] == [0, 0, 1]  # long before the mark that it had


# What is said


def test_a_clock_that_was_set_is_said_with_the_sign(clocks: Clocks, lines: list[str]) -> None:
    clocks.look(by=HOUR)
    clocks.look(by=-10.0)
    clocks.look()
    assert lines == ['clock_set by="+3600 s"', 'clock_set by="-10 s"']


def test_a_clock_that_is_behind_is_said_once_and_once_that_it_is_not(
    clocks: Clocks, lines: list[str]
) -> None:
    clocks.look(by=-100.0)
    for _ in range(10):
        clocks.look()
    (_, behind) = lines
    assert behind.startswith("clock_behind ")
    assert 'by="99 s"' in behind
    clocks.look(100.0)
    clocks.look()
    assert lines[2:] == ["clock_caught_up"]


def test_a_clock_that_is_behind_at_the_start_is_said(lines: list[str]) -> None:
    reading = Reading(START - HOUR, 1.0)
    Timekeeper(Watch(START, (), (), reading), lambda _, settled: settled(KEPT), lambda: reading).look()
    (behind,) = lines
    assert "clock_behind" in behind


def test_a_clock_that_is_less_than_a_window_behind_is_not_said(clocks: Clocks, lines: list[str]) -> None:
    clocks.look(by=-30.0)
    assert [line.split()[0] for line in lines] == ["clock_set"]


def test_after_it_is_accepted_the_clock_has_caught_up(clocks: Clocks, lines: list[str]) -> None:
    clocks.look(by=-HOUR)
    clocks.watch.accept(clocks.reading.wall, None)
    clocks.look()
    assert lines[2:] == ["clock_caught_up"]


# A store that cannot be written


def test_a_store_that_cannot_be_written_is_said_once_and_tried_again(
    clocks: Clocks, lines: list[str]
) -> None:
    clocks.trouble = "no space"
    for _ in range(400):
        clocks.look()
    assert lines == ['clock_not_kept reason="no space"']
    clocks.trouble = "it is gone"
    clocks.look()
    assert lines[1:] == ['clock_not_kept reason="it is gone"']
    clocks.trouble = ""
    assert clocks.look() == 1
    assert clocks.written[-1] == START + 402
    assert [clocks.look() for _ in range(299)] == [0] * 299
    clocks.trouble = "it is gone"
    clocks.look()
    assert len(lines) == 3  # since it had worked again


def test_nothing_more_is_written_while_the_store_has_not_answered(clocks: Clocks) -> None:
    asked: list[tuple[Change, Settled]] = []
    timekeeper = Timekeeper(clocks.watch, lambda *one: asked.append(one), lambda: clocks.reading)
    timekeeper.look()
    clocks.look(by=HOUR)
    timekeeper.look()
    ((_, settled),) = asked
    settled(NotKept(UnusableState("no space")))
    timekeeper.look()
    (_, (again, settled)) = asked
    assert isinstance(again, WatchEdit)
    assert again.last == clocks.reading
    settled(KEPT)
    timekeeper.look()
    assert len(asked) == 2


def test_each_look_writes_while_the_state_is_failing(clocks: Clocks) -> None:
    is_failing = True
    timekeeper = Timekeeper(clocks.watch, clocks.keep, lambda: clocks.reading, is_failing=lambda: is_failing)
    for _ in range(3):
        timekeeper.look()
    is_failing = False
    timekeeper.look()
    assert len(clocks.written) == 1 + 3


def test_a_step_that_could_not_be_written_is_written_later(clocks: Clocks) -> None:
    clocks.trouble = "no space"
    clocks.look(by=HOUR)
    clocks.trouble = ""
    assert clocks.look() == 1


def test_a_full_disk_ends_nothing_and_the_record_is_the_last_that_fitted(
    tmp_path: Path, lines: list[str]
) -> None:
    reading = Reading(START, 100.0)
    with small_disk(tmp_path) as disk:
        with contextlib.closing(Store(str(disk / "state.db"))) as store:
            watch = store.watch(reading)
            Timekeeper(watch, one_by_one(store), lambda: reading).look()
            fill_disk(disk / "filler")
            later = Reading(START + 400, 500.0)
            timekeeper = Timekeeper(watch, one_by_one(store), lambda: later)
            for _ in range(1000):  # what is left of the write-ahead log is used up at some time
                timekeeper.look()
                watch.accept(later.wall, None)
            assert [line.split()[0] for line in lines] == ["clock_not_kept"]
        (disk / "filler").unlink()
        with contextlib.closing(Store(str(disk / "state.db"))) as store:
            assert store.watch(reading).mark in (START, START + 400)


# The loop


def test_it_looks_on_from_the_running_loop_until_it_is_stopped(clocks: Clocks) -> None:
    async def run() -> None:
        looked = asyncio.Event()
        looks = 0

        def read() -> Reading:
            nonlocal looks
            looks += 1
            if looks == 3:
                looked.set()
            return clocks.reading

        timekeeper = Timekeeper(clocks.watch, clocks.keep, read)
        timekeeper.start()
        assert looks == 1
        async with asyncio.timeout(30):
            await looked.wait()
        written = len(clocks.written)
        timekeeper.stop()
        assert len(clocks.written) == written + 1
        assert timekeeper._timer is not None
        assert timekeeper._timer.cancelled()

    asyncio.run(run())


def test_a_clock_is_synchronised_while_timesyncds_file_is_there(
    clocks: Clocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "synchronized"
    monkeypatch.setattr(clock, "_SYNCHRONISED", str(file))
    clocks.look(by=HOUR)
    assert clocks.watch.synchronised is None
    assert clocks.watch.mark < START + HOUR
    file.touch()
    clocks.look()
    assert clocks.watch.synchronised is True
    assert clocks.watch.mark > START + HOUR

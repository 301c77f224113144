"""The minute log, under a clock that the tests set."""

import calendar
import os
import re
import resource
import stat
import statistics
import subprocess
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, code_of, wait_until
from support.peers import require
from support.preload import Clock, environment
from support.raw import Seal

SEED = b"a seed of the minute log tests.."
BASE = calendar.timegm((2026, 1, 31, 12, 30, 0))  # a whole minute
NO_CODE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - (?!2FA Code)\S.*")
CODE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) - 2FA Code: (\d{6})")


def oathtool(moment: float) -> str:
    """The code of the seed at this time, as another implementation makes it."""
    command = [require("oathtool"), "--totp", "-N", f"@{int(moment)}", SEED.hex()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def lines(*files: Path) -> list[str]:
    return [line for file in files if file.exists() for line in file.read_text().splitlines()]


def codes(*files: Path) -> dict[int, str]:
    """The codes in the files, by Unix time; no two in one second."""
    matches = [match for match in map(CODE.fullmatch, lines(*files)) if match]
    times = [calendar.timegm(time.strptime(match[1], "%Y-%m-%d %H:%M:%S")) for match in matches]
    assert len(set(times)) == len(times)
    return dict(zip(times, [match[2] for match in matches], strict=True))


def others(*files: Path) -> list[str]:
    """The lines that are no codes."""
    return [line for line in lines(*files) if not CODE.fullmatch(line)]


@pytest.fixture
def running(daemon: Daemon, clock: Clock, seal: Seal) -> Daemon:
    """A daemon at 20 seconds after BASE, which has written its first line."""
    daemon.deliver("default", seal(SEED))
    clock.set(BASE + 20)
    daemon.start(**environment(clock))
    wait_until(lambda: codes(daemon.codes_log), "there is no first line")
    return daemon


def pass_minute(daemon: Daemon, clock: Clock, number: int) -> float:
    """Go to just before this minute after BASE, and wait for its line; returns how late it was."""
    before = len(codes(daemon.codes_log))
    # Not nearer: the daemon looks at the clock once a second, and has to see this time to be on time.
    clock.set(BASE + number * 60 - 1.2)
    wait_until(lambda: len(codes(daemon.codes_log)) > before, f"there is no line for minute {number}")
    return clock.shown_at(daemon.codes_log.stat().st_mtime) - (BASE + number * 60)


@pytest.mark.slow
def test_ten_minutes_with_a_rotation_and_a_step_back(running: Daemon, clock: Clock) -> None:
    log, rotated = running.codes_log, running.log_dir / "codes.log.1"
    late = [pass_minute(running, clock, number) for number in range(1, 6)]
    log.rename(rotated)
    late.append(pass_minute(running, clock, 6))
    for stepped_back in (3.5, 4.5, 5.5, 6.5):  # the mark is minute 6
        clock.set(BASE + stepped_back * 60)
        clock.wait_for_a_look()
    late += [pass_minute(running, clock, number) for number in range(7, 11)]

    written = codes(rotated, log)
    (first, *rest) = written
    assert BASE + 20 <= first < BASE + 60
    assert rest == [BASE + number * 60 for number in range(1, 11)]
    assert written == {moment: oathtool(moment) for moment in written}
    assert statistics.median(late) < 0.05  # 50 ms are promised; of the others a busy machine may have more
    (said,) = others(rotated, log)
    assert NO_CODE.fullmatch(said)
    assert "back" in said
    assert lines(log).index(said) == 1  # after minute 6
    for file in (log, rotated):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_minutes_that_were_missed_are_not_made_up(running: Daemon, clock: Clock) -> None:
    clock.set(BASE + 5 * 60 + 17)
    wait_until(lambda: len(codes(running.codes_log)) == 2, "there is no line for minute 5")
    pass_minute(running, clock, 6)
    first, jumped, last = codes(running.codes_log)
    assert first < BASE + 60
    assert BASE + 5 * 60 + 17 <= jumped < BASE + 5 * 60 + 59  # as soon as it is seen, with its real second
    assert last == BASE + 6 * 60
    assert others(running.codes_log) == []


@pytest.mark.slow
def test_a_restart_in_the_same_minute_writes_no_second_line(running: Daemon, clock: Clock) -> None:
    before = running.codes_log.read_text()
    for end in (running.stop, running.kill):
        end()
        clock.set(BASE + 30)
        running.start(**environment(clock))
        clock.wait_for_a_look()
        assert running.codes_log.read_text() == before
    pass_minute(running, clock, 1)
    assert list(codes(running.codes_log))[1:] == [BASE + 60]


@pytest.mark.slow
def test_a_restart_before_the_last_code_says_so_once(running: Daemon, clock: Clock) -> None:
    pass_minute(running, clock, 1)
    for _ in range(2):
        running.stop()
        clock.set(BASE - 600)
        running.start(**environment(clock))
        clock.wait_for_a_look()
    (said,) = others(running.codes_log)
    assert "back" in said
    pass_minute(running, clock, 2)
    assert len(codes(running.codes_log)) == 3


def test_why_there_is_no_code_is_said_once_and_is_not_the_minutes_line(
    daemon: Daemon, clock: Clock, seal: Seal
) -> None:
    log = daemon.codes_log
    clock.set(BASE + 20)
    daemon.start(**environment(clock))
    wait_until(lambda: lines(log), "there is no first line")
    clock.set(BASE + 80)
    clock.wait_for_a_look()
    (said,) = lines(log)
    assert NO_CODE.fullmatch(said)
    assert "no_such_account" in said
    with daemon.client() as client:
        client.load(seal(SEED))
        wait_until(lambda: codes(log), "there is no line for the new account")
        client.remove()
    ((moment, code),) = codes(log).items()
    assert BASE + 80 <= moment < BASE + 120  # when it appeared, in a minute that was said to have no code
    assert code == oathtool(moment)
    clock.set(BASE + 140)
    wait_until(lambda: len(lines(log)) == 3, "it is not said again")
    assert [line.partition(" - ")[2] for line in others(log)] == [said.partition(" - ")[2]] * 2


def test_an_unfinished_line_is_finished_first(running: Daemon, clock: Clock) -> None:
    with running.codes_log.open("a") as file:
        file.write("half a line")
    pass_minute(running, clock, 1)
    first, half, last = lines(running.codes_log)
    assert CODE.fullmatch(first)
    assert half == "half a line"
    assert CODE.fullmatch(last)


def test_a_file_that_is_no_file_gets_no_codes(daemon: Daemon, clock: Clock, seal: Seal) -> None:
    target = daemon.root / "target"
    target.touch()
    daemon.log_dir.mkdir()
    daemon.codes_log.symlink_to(target)
    daemon.deliver("default", seal(SEED))
    clock.set(BASE + 20)
    daemon.start(**environment(clock))
    wait_until(lambda: "minute_log_failed" in daemon.log(), "nothing is said")
    (said,) = [line for line in daemon.log().splitlines() if "minute_log_failed" in line]
    assert str(daemon.codes_log) in said
    assert target.read_text() == ""
    daemon.codes_log.unlink()
    pass_minute(daemon, clock, 1)


def test_a_list_of_no_accounts_switches_it_off(daemon: Daemon, clock: Clock, seal: Seal) -> None:
    daemon.configure("[minute_log]\naccounts = []\n")
    daemon.deliver("default", seal(SEED))
    clock.set(BASE + 59)
    daemon.start(**environment(clock))
    wait_until(lambda: clock.now() > BASE + 61, "the clock does not go on")
    clock.wait_for_a_look()
    assert not list(daemon.log_dir.glob("*"))
    assert "minute log" not in daemon.stdout.read_text()


def test_two_accounts_have_a_file_each(daemon: Daemon, clock: Clock, seal: Seal) -> None:
    daemon.configure('[minute_log]\naccounts = ["default", "deploy"]\n')
    other = b"another seed of the same tests.."
    daemon.deliver("default", seal(SEED))
    daemon.deliver("deploy", seal(other))
    clock.set(BASE + 20)
    daemon.start(**environment(clock))
    wait_until(lambda: daemon.stdout.read_text().count("minute log") == 2, "two files are not announced")
    announced = [line for line in daemon.stdout.read_text().splitlines() if "minute log" in line]
    for line, account, seed in zip(announced, ("default", "deploy"), (SEED, other), strict=True):
        file = Path(line.removeprefix("pki2fad: minute log "))
        assert account in file.name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        ((moment, code),) = codes(file).items()
        assert code == code_of(seed, moment // 30)


def test_another_path_is_used_from_a_reload_on(running: Daemon) -> None:
    before = running.codes_log.read_text()
    path = running.root / "elsewhere" / "minutes.log"
    running.configure(f'[minute_log]\npath = "{path}"\n')
    running.reload()
    wait_until(lambda: codes(path), "there is no line in the new file")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running.codes_log.read_text() == before


def test_codes_go_to_no_other_output(running: Daemon, clock: Clock) -> None:
    pass_minute(running, clock, 1)
    with running.client() as client:
        assert client.verify(client.generate().code)
    running.stop()
    said = running.log() + running.stdout.read_text()
    for code in codes(running.codes_log).values():
        assert not re.search(rf"\b{code}\b", said)


def test_a_line_is_written_whole_or_not_at_all(running: Daemon, clock: Clock) -> None:
    limit = os.path.getsize(running.codes_log) + 10
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    clock.set(BASE + 60 + 20)
    clock.wait_for_a_look()
    assert len(lines(running.codes_log)) == 1
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, unlimited)
    wait_until(lambda: len(codes(running.codes_log)) == 2, "it does not go on when there is room")
    assert others(running.codes_log) == []

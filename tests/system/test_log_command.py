"""`pki2factl log`: what the daemon decided, readable, and followed over rotation."""

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import PATIENCE, PKI2FACTL, Daemon, as_user, code_of, ctl, environment, wait_until

SEED = b"a seed of the log command tests."

LINES = """\
2026-01-31 23:59:58,123 ready version=0.1.0 socket=/run/pki2fad/socket accounts=2
2026-01-31 23:59:59,001 verify uid=0 pid=12 account=deploy valid=True
2026-02-01 00:00:00,500 verify uid=0 pid=13 account=default valid=False reason=wrong
2026-02-01 00:00:01,000 remove uid=0 pid=14 account=default audit=removed
2026-02-01 00:00:02,000 failed
Traceback (most recent call last):
LookupError: of no account
"""

SHOWN = """\
-- 2026-01-31
23:59:58  ready     version 0.1.0  socket /run/pki2fad/socket  accounts 2
23:59:59  verify    root (uid 0)  account deploy  valid
-- 2026-02-01
00:00:00  verify    root (uid 0)  account default  invalid  wrong
00:00:01  remove    root (uid 0)  account default  audit removed
00:00:02  failed
          Traceback (most recent call last):
          LookupError: of no account
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The log of a daemon that was detached."""
    path = tmp_path / "pki2fad.log"
    path.write_text(LINES)
    return path


def shown(log: Path, *arguments: str) -> str:
    done = ctl(log.parent, "log", "--file", str(log), *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_log_is_shown_in_readable_form(log: Path) -> None:
    assert shown(log) == SHOWN


def test_only_the_last_lines_are_shown(log: Path) -> None:
    assert shown(log, "-n", "4") == "-- 2026-02-01\n" + "".join(SHOWN.splitlines(keepends=True)[-4:])


def test_one_account_can_be_picked(log: Path) -> None:
    assert shown(log, "--account", "default").splitlines() == [
        "-- 2026-02-01",
        "00:00:00  verify    root (uid 0)  account default  invalid  wrong",
        "00:00:01  remove    root (uid 0)  account default  audit removed",
    ]


def test_changes_can_be_picked(log: Path) -> None:
    assert shown(log, "--audit").splitlines()[1:] == [
        "00:00:01  remove    root (uid 0)  account default  audit removed"
    ]


def test_as_json_each_line_is_a_value(log: Path) -> None:
    values = [json.loads(line) for line in shown(log, "--json").splitlines()]
    assert values[1] == {
        "time": "2026-01-31 23:59:59",
        "event": "verify",
        "uid": 0,
        "pid": 12,
        "account": "deploy",
        "valid": True,
    }
    assert values[-1] == {"time": None, "text": "LookupError: of no account"}


def test_a_line_moves_no_cursor(log: Path) -> None:
    log.write_text('2026-01-31 23:59:58,123 refused method="\\u001b[2J" reason="a\\nb"\n\x1b[2Jgarbage\n')
    text = shown(log)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3


def test_a_log_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        for follow in ([], ["-f"]):
            done = ctl(tmp_path, "log", "--file", str(path), *follow)
            assert (done.returncode, done.stdout) == (7, "")
            assert str(path) in done.stderr


@pytest.mark.parametrize("lines", ["-1", "x", "+3", ""])
def test_lines_are_a_number(log: Path, lines: str) -> None:
    assert ctl(log.parent, "log", "--file", str(log), f"--lines={lines}").returncode == 2


def test_an_empty_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    done = ctl(tmp_path, "log", "--file", str(tmp_path / "empty"))
    assert (done.returncode, done.stdout) == (0, "")
    assert f"nothing in {tmp_path}/empty" in done.stderr


class Follower:
    """A `log -f` that runs."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        self.process = process
        self._stdout = process.stdout.fileno()
        self._read = b""

    def line(self) -> str:
        """The next line, as soon as it is there."""
        while b"\n" not in self._read:
            assert select.select([self._stdout], [], [], PATIENCE)[0], "nothing comes"
            read = os.read(self._stdout, 4096)
            assert read, "it has ended"
            self._read += read
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()


@contextmanager
def following(log: Path, *arguments: str) -> Iterator[Follower]:
    # coverage has a lock while it looks at a function for the first time: an interrupt then stops all.
    unmeasured = {name: of for name, of in environment(log.parent).items() if not name.startswith("COV")}
    with subprocess.Popen(
        [PKI2FACTL, "log", "-f", "--file", str(log), *arguments],
        env=unmeasured,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield Follower(process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_what_comes_is_followed_over_rotation(log: Path) -> None:
    with following(log, "-n", "1") as follower:
        assert follower.line() == "          LookupError: of no account"
        append(log, "2026-02-01 00:01:00,000 lock uid=0 pid=1 audit=locked\n")
        assert follower.line() == "-- 2026-02-01"
        assert follower.line() == "00:01:00  lock      root (uid 0)  audit locked"
        log.rename(log.with_suffix(".log.1"))
        log.write_text("2026-02-01 00:02:00,000 unlock uid=0 pid=1 audit=unlocked\n")
        assert follower.line() == "00:02:00  unlock    root (uid 0)  audit unlocked"
    assert follower.process.returncode == 130


def test_the_last_ten_come_first_when_following(log: Path) -> None:
    log.write_text(
        "".join(f"2026-02-01 00:00:{second:02},000 ready accounts={second}\n" for second in range(30))
    )
    with following(log) as follower:
        assert follower.line() == "-- 2026-02-01"
        assert [follower.line() for _ in range(10)] == [
            f"00:00:{second}  ready     accounts {second}" for second in range(20, 30)
        ]


def test_the_child_is_gone_with_the_command(log: Path) -> None:
    with following(log) as follower:
        follower.line()
        children = (
            Path(f"/proc/{follower.process.pid}/task/{follower.process.pid}/children").read_text().split()
        )
        assert len(children) == 1
    assert not Path("/proc", children[0]).exists()


def test_with_its_reader_gone_it_ends_at_the_next_line(log: Path) -> None:
    with following(log) as follower:
        follower.line()
        assert follower.process.stdout is not None
        assert follower.process.stderr is not None
        follower.process.stdout.close()
        append(log, "2026-02-01 00:01:00,000 lock uid=0 pid=1 audit=locked\n")
        assert follower.process.wait(PATIENCE) == 7
        assert follower.process.stderr.read() == b""


@pytest.fixture
def detached(daemon: Daemon, seal: Callable[[bytes], bytes]) -> Iterator[Daemon]:
    """A daemon whose log is a file."""
    daemon.deliver("default", seal(SEED))
    daemon.spawn("--detach")
    assert daemon.wait() == 0, daemon.log()
    yield daemon
    pid = int((daemon.state_dir / "lock").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not Path("/proc", str(pid)).exists(), "it does not end")


def test_a_detached_daemons_decisions_are_shown_and_no_code(detached: Daemon) -> None:
    code = code_of(SEED, int(time.time()) // 30)
    for candidate in (code, "0000000"):
        detached.ctl("verify", candidate)
    text = detached.ctl("log", "--file", str(detached.log_dir / "pki2fad.log")).stdout
    uid = os.geteuid()
    assert re.search(
        rf"^\d\d:\d\d:\d\d  verify    \S+ \(uid {uid}\)  account default  valid$", text, re.MULTILINE
    )
    assert re.search(r"account default  invalid  wrong$", text, re.MULTILINE)
    assert code not in text


def test_a_users_own_log_is_found(log: Path, short_path: Path) -> None:
    user = as_user(4242)
    own = short_path / ".local/state/pki2fad/log"
    own.mkdir(parents=True)
    (own / log.name).write_text(LINES)
    for path in (short_path, *short_path.rglob("*")):
        os.chown(path, 4242, 4242)
    assert ctl(short_path, "log", command=user).stdout == SHOWN

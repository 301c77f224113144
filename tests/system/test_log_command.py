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
2026-01-31T23:59:58.123+01:00 ready version=0.1.0 socket=/run/pki2fad/socket accounts=2
2026-01-31T23:59:59.001+01:00 verify uid=0 pid=12 account=deploy valid=True
2026-02-01T00:00:00.500+01:00 verify uid=0 pid=13 account=default valid=False reason=wrong
2026-02-01T00:00:01.000+01:00 remove uid=0 pid=14 account=default audit=removed
2026-02-01T00:00:02.000+01:00 failed
Traceback (most recent call last):
LookupError: of no account
"""

SHOWN = """\
2026-01-31T23:59:58+01:00  ready     version 0.1.0  socket /run/pki2fad/socket  accounts 2
2026-01-31T23:59:59+01:00  verify    root (uid 0)  account deploy  valid
2026-02-01T00:00:00+01:00  verify    root (uid 0)  account default  invalid  wrong
2026-02-01T00:00:01+01:00  remove    root (uid 0)  account default  audit removed
2026-02-01T00:00:02+01:00  failed
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
    for count in (1, 4, 7, 8):
        assert shown(log, "-n", f"{count}") == "".join(SHOWN.splitlines(keepends=True)[7 - min(count, 7) :])


def test_one_account_can_be_picked(log: Path) -> None:
    assert shown(log, "--account", "default").splitlines() == [
        "2026-02-01T00:00:00+01:00  verify    root (uid 0)  account default  invalid  wrong",
        "2026-02-01T00:00:01+01:00  remove    root (uid 0)  account default  audit removed",
    ]


def test_changes_can_be_picked(log: Path) -> None:
    assert shown(log, "--audit").splitlines() == [
        "2026-02-01T00:00:01+01:00  remove    root (uid 0)  account default  audit removed"
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("-n", "2", "--account", "deploy"),
            "none of the last 2 lines is about account deploy; without -n all lines are searched",
        ),
        (("-n2", "--audit"), "none of the last 2 lines is a change; without -n all lines are searched"),
        (("--account=none",), "no line in {log} is about account none"),
        (("--account=deploy", "--audit"), "no line in {log} is a change about account deploy"),
    ],
)
def test_where_no_line_is_picked_it_says_so(log: Path, options: tuple[str, ...], said: str) -> None:
    done = ctl(log.parent, "log", "--file", str(log), *options)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"pki2factl: hint: {said.format(log=log)}\n"


def test_as_json_each_line_is_a_value(log: Path) -> None:
    values = [json.loads(line) for line in shown(log, "--json").splitlines()]
    assert values[1] == {
        "time": "2026-01-31T23:59:59+01:00",
        "event": "verify",
        "uid": 0,
        "pid": 12,
        "account": "deploy",
        "valid": True,
    }
    assert values[-1] == {"time": None, "text": "LookupError: of no account"}


def test_a_line_moves_no_cursor(log: Path) -> None:
    log.write_text(
        '2026-01-31T23:59:58.123+01:00 refused method="\\u001b[2J" reason="a\\nb"\n\x1b[2Jgarbage\n'
    )
    text = shown(log)
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2


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
    assert f"{tmp_path}/empty is empty" in done.stderr


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
def following(log: "Path | Daemon", *arguments: str) -> Iterator[Follower]:
    """Of a file, or of what a daemon says."""
    # coverage has a lock while it looks at a function for the first time: an interrupt then stops all.
    unmeasured = {name: value for name, value in environment(Path("/")).items() if not name.startswith("COV")}
    of = ["log", "--file", str(log)] if isinstance(log, Path) else ["--socket", str(log.socket), "log"]
    with subprocess.Popen(
        [PKI2FACTL, *of, "-f", *arguments],
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
        assert follower.line() == " " * 27 + "LookupError: of no account"
        append(log, "2026-02-01T00:01:00.000+01:00 lock uid=0")
        append(log, " pid=1 audit=locked\n")
        assert follower.line() == "2026-02-01T00:01:00+01:00  lock      root (uid 0)  audit locked"
        log.rename(log.with_suffix(".log.1"))
        log.write_text("2026-02-01T00:02:00.000+01:00 unlock uid=0 pid=1 audit=unlocked\n")
        assert follower.line() == "2026-02-01T00:02:00+01:00  unlock    root (uid 0)  audit unlocked"
        log.write_text("2026-02-01T00:03:00.000+01:00 stopping\n")  # emptied, and written anew
        assert follower.line() == "2026-02-01T00:03:00+01:00  stopping"
    assert follower.process.returncode == 130


def test_the_last_ten_come_first_when_following(log: Path) -> None:
    log.write_text(
        "".join(f"2026-02-01T00:00:{second:02}.000+01:00 ready accounts={second}\n" for second in range(30))
    )
    with following(log) as follower:
        assert [follower.line() for _ in range(10)] == [
            f"2026-02-01T00:00:{second}+01:00  ready     accounts {second}" for second in range(20, 30)
        ]


def test_with_its_reader_gone_it_ends_at_the_next_line(log: Path) -> None:
    with following(log) as follower:
        follower.line()
        assert follower.process.stdout is not None
        assert follower.process.stderr is not None
        follower.process.stdout.close()
        append(log, "2026-02-01T00:01:00.000+01:00 lock uid=0 pid=1 audit=locked\n")
        assert follower.process.wait(PATIENCE) == 7
        assert follower.process.stderr.read() == b""


def test_lines_from_before_times_had_an_offset_get_that_of_here(log: Path) -> None:
    log.write_text("2026-01-31 23:59:58,123 stopping\n2026-07-31 23:59:58,123 stopping\n")
    done = ctl(log.parent, "log", "--file", str(log), env={"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"})
    assert done.stdout.splitlines() == [
        "2026-01-31T23:59:58+01:00  stopping",
        "2026-07-31T23:59:58+02:00  stopping",
    ]


def test_a_log_may_come_from_a_pipe(log: Path) -> None:
    done = ctl(log.parent, "log", "--file", "/dev/stdin", "-n", "4", input=LINES)
    assert done.stdout == "".join(SHOWN.splitlines(keepends=True)[-4:])


USER = 4242


@pytest.fixture
def detached(daemon: Daemon, seal: Callable[[bytes], bytes]) -> Iterator[Daemon]:
    """A daemon of another user than root, whose log is a file."""
    daemon.deliver("default", seal(SEED))
    daemon.give_to(USER)
    daemon.spawn("--detach", command=as_user(USER))
    assert daemon.wait() == 0, daemon.log()
    yield daemon
    pid = int((daemon.state_dir / "lock").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not Path("/proc", str(pid)).exists(), "it does not end")


@pytest.fixture
def own_log(detached: Daemon) -> Path:
    return detached.log_dir / "pki2fad.log"


def test_a_detached_daemon_says_where_its_log_is_and_no_code_is_there(detached: Daemon) -> None:
    code = code_of(SEED, int(time.time()) // 30)
    for candidate in (code, "0000000"):
        detached.ctl("verify", candidate)
    for user in ([], as_user(USER)):
        text = detached.ctl("log", command=user).stdout
        time_of = r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
        assert re.search(rf"{time_of}  verify    root \(uid 0\)  account default  valid$", text, re.MULTILINE)
        assert re.search(r"account default  invalid  wrong$", text, re.MULTILINE)
        assert code not in text


def test_others_are_not_told_where_it_logs(daemon: Daemon) -> None:
    daemon.root.chmod(0o755)
    daemon.start()
    done = daemon.ctl("log", command=as_user(USER + 1))
    assert (done.returncode, done.stdout) == (4, "")
    assert "only root and the daemon's user" in done.stderr


def test_it_is_the_log_of_the_daemon_that_answers(detached: Daemon, log: Path) -> None:
    home = detached.root / ".local/state/pki2fad/log"  # where a daemon without options would log
    home.mkdir(parents=True)
    (home / "pki2fad.log").write_text(log.read_text())
    assert "  ready  " in detached.ctl("log").stdout
    assert "account deploy" not in detached.ctl("log").stdout


def test_its_log_is_followed_over_rotation(detached: Daemon, own_log: Path) -> None:
    with following(detached, "-n", "1") as follower:
        follower.line()  # it has opened the file
        detached.ctl("lock")
        assert follower.line().endswith("  audit locked")
        own_log.rename(own_log.with_suffix(".1"))
        detached.ctl("unlock")
        assert follower.line().endswith("  audit unlocked")


@pytest.mark.parametrize("kind", ["link", "linked directory", "fifo", "another's", "another"])
def test_what_is_not_the_daemons_file_is_not_opened(detached: Daemon, own_log: Path, kind: str) -> None:
    secret = detached.root / "secret"
    secret.mkdir()
    (secret / own_log.name).write_text("2026-01-31T00:00:00.000+00:00 secret\n")
    if kind == "linked directory":
        own_log.parent.rename(detached.root / "moved")
        own_log.parent.symlink_to(secret)
    else:
        own_log.rename(own_log.with_suffix(".1"))
    if kind == "link":
        own_log.symlink_to(secret / own_log.name)
    elif kind == "fifo":
        os.mkfifo(own_log)
    elif kind != "linked directory":
        own_log.write_bytes((secret / own_log.name).read_bytes())
        os.chown(own_log, USER + (kind == "another's"), USER)
        own_log.chmod(0o400)
    done = detached.ctl("log")
    assert (done.returncode, done.stdout) == (7, "")
    assert own_log.name in done.stderr


def test_where_lines_go_to_a_file_by_redirection_that_is_shown(daemon: Daemon) -> None:
    daemon.start()
    assert "  ready  " in daemon.ctl("log").stdout
    daemon.stderr.rename(daemon.root / "renamed")
    daemon.stderr.write_text(LINES)
    assert "account deploy" not in daemon.ctl("log").stdout


def test_of_a_daemon_in_a_terminal_it_is_said_that_the_lines_are_there(daemon: Daemon) -> None:
    shell, terminal = os.openpty()
    path = os.ttyname(terminal)
    daemon.stderr.symlink_to(path)
    try:
        daemon.start()
        done = daemon.ctl("log")
    finally:
        daemon.stderr.unlink()
        daemon.close()
        os.close(shell)
        os.close(terminal)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"the terminal {path}" in done.stderr


def test_without_a_daemon_it_says_where_to_look(daemon: Daemon) -> None:
    done = daemon.ctl("log")
    assert (done.returncode, done.stdout) == (3, "")
    assert "journalctl" in done.stderr
    assert "--file" in done.stderr

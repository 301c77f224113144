"""What somebody without any role could try to stop the daemon, hide in its log or fill its disk."""

import fcntl
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import peers
from support.daemon import Daemon, ctl, wait_until
from support.raw import REQUEST, RawPeer, connect

pytestmark = pytest.mark.slow  # crowds

SEED = bytes(range(32))


def test_a_lock_on_the_sockets_directory_keeps_no_daemon_from_starting(daemon: Daemon) -> None:
    descriptor = os.open(daemon.root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        daemon.start()
    finally:
        os.close(descriptor)
    assert daemon.ctl("status").returncode == 0


def test_more_connections_than_descriptors_are_survived_with_a_short_log(daemon: Daemon) -> None:
    daemon.start(command=[peers.require("prlimit"), "--nofile=320:320"])
    crowd = []
    try:
        for _ in range(500):
            crowd.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            crowd[-1].connect(str(daemon.socket))
    finally:
        for connection in crowd:
            connection.close()
    wait_until(lambda: daemon.ctl("status").returncode == 0, "it does not recover")
    assert len(daemon.log().splitlines()) < 100
    assert "Traceback" not in daemon.log()


def test_what_one_uid_does_wrong_is_logged_in_part_and_what_is_left_out_is_counted(daemon: Daemon) -> None:
    daemon.start()
    began = time.monotonic()

    def counts() -> tuple[int, int]:
        """Lines written, and lines left out as the log says."""
        left_out = re.findall(r"not_logged uid=\d+ warnings=(\d+)", daemon.log())
        return daemon.log().count("refused method="), sum(map(int, left_out))

    with connect(daemon.socket) as peer:
        for _ in range(20):
            peer.send(*([REQUEST, msgid, "\U0001f512" * 64, []] for msgid in range(100)))
            assert [peer.receive()[1] for _ in range(100)] == list(range(100))

        def is_counted() -> bool:  # a second's count is written with the first warning of a later one
            peer.send([REQUEST, 1, "nonsense", []])
            peer.receive()
            return sum(counts()) >= 2000

        wait_until(is_counted, "not all that was left out is counted")
    written, left_out = counts()
    assert left_out > 1000
    assert written <= 20 * (time.monotonic() - began + 2)  # 20 in each second that it touched
    assert all(len(line) < 1500 for line in daemon.log().splitlines())


def test_a_log_that_cannot_be_written_costs_no_answer(daemon: Daemon, seal: Callable[[bytes], bytes]) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.spawn("--detach")
    assert daemon.wait() == 0
    try:
        daemon.log_dir.rename(daemon.root / "moved")
        code = daemon.ctl("generate")
        assert code.returncode == 0, code.stderr
        assert daemon.ctl("verify", code.stdout.strip()).stdout == "valid\n"
        assert daemon.ctl("verify", code.stdout.strip()).stdout == "invalid\n"
    finally:
        pid = int((daemon.state_dir / "lock").read_text())
        exited = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it does not end")
        os.close(exited)


def test_a_state_directory_that_others_can_write_is_refused(daemon: Daemon) -> None:
    daemon.state_dir.mkdir()
    daemon.state_dir.chmod(0o777)
    assert str(daemon.state_dir) in daemon.fail_to_start()
    assert list(daemon.state_dir.iterdir()) == []


def test_a_minute_log_that_belongs_to_somebody_else_gets_no_code(
    daemon: Daemon, seal: Callable[[bytes], bytes]
) -> None:
    peers.require_root()
    daemon.deliver("default", seal(SEED))
    daemon.log_dir.mkdir()
    daemon.codes_log.touch()
    os.chown(daemon.codes_log, 4242, 4242)
    daemon.start()
    wait_until(lambda: "minute_log_failed" in daemon.log(), "nothing says why there is no log")
    assert daemon.codes_log.read_bytes() == b""
    assert daemon.codes_log.stat().st_uid == 4242


def test_a_user_that_may_be_anybody_runs_no_daemon(daemon: Daemon) -> None:
    peers.require_root()
    daemon.give_to(65534)
    nobody = [peers.require("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
    if not os.access(sys.executable, os.X_OK) or os.path.realpath(sys.executable).startswith("/root/"):
        peers.missing("an interpreter that other users can run")
    assert "65534" in daemon.fail_to_start(command=nobody)


@pytest.mark.parametrize("option", ["--state-dir", "--config-dir", "--socket", "--key", "--config"])
def test_an_empty_path_is_a_usage_error_and_not_this_directory(daemon: Daemon, option: str) -> None:
    daemon.spawn(f"{option}=")
    assert daemon.wait() == 2
    assert not (daemon.root / "state.db").exists()


def test_a_directory_whose_name_is_no_text_is_as_good_as_any(daemon: Daemon) -> None:
    daemon.state_dir = daemon.root / os.fsdecode(b"st\xffte%?")
    for _ in range(2):
        daemon.start()
        assert daemon.ctl("status").returncode == 0
        daemon.stop()


def test_what_a_server_says_moves_no_cursor_and_forges_no_hint(short_path: Path) -> None:
    path = short_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        pid = os.fork()
        if not pid:
            accepted, _ = listening.accept()
            peer = RawPeer(accepted)
            _, msgid, _, _ = peer.receive()
            forged = "forbidden: \x1b[2J\npki2factl: hint: run rm"
            peer.send([1, msgid, ["forbidden", forged], None])
            os._exit(0)
        done = ctl(short_path, "--socket", str(path), "status")
        os.waitpid(pid, 0)
    assert done.returncode == 4
    assert done.stderr == "pki2factl: error: forbidden: \\x1b[2J\\npki2factl: hint: run rm\n"

"""The socket: who may have its path, and who may connect."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, as_user
from support.paths import mode
from support.peers import require_root

UID = 4242


@pytest.fixture
def second(daemon: Daemon) -> Iterator[Daemon]:
    """Another daemon with the same key and no more in common, until a test says what."""
    root = daemon.root / "2"
    root.mkdir()
    second = Daemon(root)
    second.install_key((daemon.config_dir / "host.pem").read_bytes())
    yield second
    second.close()


def test_a_path_on_which_a_daemon_answers_is_refused_with_its_pid(daemon: Daemon, second: Daemon) -> None:
    daemon.start()
    second.socket = daemon.socket
    error = second.fail_to_start()
    assert str(daemon.socket) in error
    assert f"pid {daemon.pid}" in error
    assert f"pid {daemon.pid}" in daemon.ctl("status").stdout


def test_a_state_that_a_daemon_uses_is_refused_with_its_pid(daemon: Daemon, second: Daemon) -> None:
    daemon.start()
    second.state_dir = daemon.state_dir
    error = second.fail_to_start()
    assert str(daemon.state_dir) in error
    assert f"pid {daemon.pid}" in error
    assert not second.socket.exists()
    assert daemon.ctl("status").returncode == 0


def test_a_socket_that_a_killed_daemon_left_is_replaced(daemon: Daemon) -> None:
    daemon.start()
    daemon.kill()
    assert daemon.socket.is_socket()
    daemon.start()
    assert daemon.ctl("status").returncode == 0


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_not_a_socket_is_left_where_it_is(daemon: Daemon, kind: str) -> None:
    target = daemon.root / "target"
    if kind == "directory":
        daemon.socket.mkdir()
    elif kind == "link":
        target.write_text("precious")
        daemon.socket.symlink_to(target)
    else:
        daemon.socket.write_text("precious")
    before = daemon.socket.lstat()
    assert f"{daemon.socket} is in the way" in daemon.fail_to_start()
    after = daemon.socket.lstat()
    assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)


def padded(root: Path, length: int) -> Path:
    """A path of this length in a directory where the other sockets of root's daemon have shorter ones."""
    directory = root / "new"
    return directory / ("s" * (length - len(f"{directory}/")))


def test_a_path_of_107_bytes_serves(daemon: Daemon) -> None:
    daemon.socket = padded(daemon.root, 107)
    assert len(os.fsencode(daemon.socket)) == 107
    daemon.start()
    assert daemon.ctl("status").returncode == 0


def test_a_longer_path_is_refused_by_name(daemon: Daemon) -> None:
    daemon.socket = padded(daemon.root, 108)
    error = daemon.fail_to_start()
    assert str(daemon.socket) in error
    assert "107" in error
    assert not daemon.socket.parent.exists()


def test_everybody_may_connect_to_a_daemon_of_root(daemon: Daemon) -> None:
    require_root()
    daemon.start()
    assert mode(daemon.socket) == 0o666


def test_nobody_else_may_connect_to_a_daemon_of_a_user(daemon: Daemon) -> None:
    user = as_user(UID)
    daemon.give_to(UID)
    daemon.start(command=user)
    assert mode(daemon.socket) == 0o600


# What the manager sets for a service with User=, RuntimeDirectory= and Type=notify.
MANAGER = """
import os, sys
os.environ |= {
    "INVOCATION_ID": "0" * 32, "SYSTEMD_EXEC_PID": str(os.getpid()), "RUNTIME_DIRECTORY": sys.argv[1],
    "JOURNAL_STREAM": "1:1",
}
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_everybody_may_connect_to_a_service_of_systemd(daemon: Daemon) -> None:
    user = as_user(UID)
    daemon.give_to(UID)
    daemon.start(command=[sys.executable, "-c", MANAGER, str(daemon.root), *user])
    assert mode(daemon.socket) == 0o666


def test_no_other_daemons_socket_is_removed_at_the_end(daemon: Daemon) -> None:
    daemon.start()
    daemon.socket.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as another:
        another.bind(str(daemon.socket))
        assert daemon.stop() == 0
    assert daemon.socket.is_socket()


def test_what_a_failed_start_bound_is_removed(daemon: Daemon) -> None:
    (daemon.config_dir / "host.pem").unlink()
    daemon.fail_to_start()
    assert not daemon.socket.exists()

"""`pki2fad --detach`: the command ends when the daemon is ready, and says why it is not."""

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE, PKI2FAD, Daemon, environment, wait_until
from support.peers import require_root

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

SEED = b"a seed of the detach tests......"


def detach(daemon: Daemon, *instead: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end; with other options than the daemon's own, if there are any."""
    return subprocess.run(
        [PKI2FAD, "--detach", *(instead or daemon.arguments())],
        env=environment(daemon.root),
        cwd=daemon.root,
        stdin=subprocess.DEVNULL,
        capture_output=True,  # ends only when the daemon has let go of both
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def end(pid: int, number: int = signal.SIGTERM) -> None:
    """Send a signal that ends it, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, number)
            assert select.select([descriptor], [], [], PATIENCE)[0], "it does not end"
        finally:
            os.close(descriptor)


@pytest.fixture
def pid(daemon: Daemon, seal: Callable[[bytes], bytes]) -> Iterator[int]:
    """The pid of a detached daemon, as it says itself."""
    daemon.deliver("default", seal(SEED))
    done = detach(daemon)
    try:
        assert (done.returncode, done.stderr) == (0, "")
        pid, *places = done.stdout.splitlines()
        assert places == [
            f"pki2fad: socket {daemon.socket}",
            f"pki2fad: minute log {daemon.codes_log}",
            f"pki2fad: log {daemon.log_dir / 'pki2fad.log'}",
        ]
        with daemon.client() as client:
            assert pid == f"pki2fad: pid {client.status()['pid']}"
        yield json.loads(daemon.ctl("status", "--json").stdout)["pid"]
    finally:
        end(int((daemon.state_dir / "lock").read_text()))


def test_a_daemon_that_starts_locked_says_so_and_how_to_unlock_it(
    daemon: Daemon, host_key: PrivateKey
) -> None:
    daemon.install_key(rsakeys.private_pem(host_key, b"correct horse, battery"))
    done = detach(daemon)
    try:
        said = "pki2fad: locked; it answers with codes after: pki2factl unlock"
        assert said in done.stdout.splitlines()
    finally:
        end(int((daemon.state_dir / "lock").read_text()))


def test_it_answers_when_the_command_has_ended(daemon: Daemon, pid: int) -> None:
    assert os.path.basename(PKI2FAD).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert daemon.ctl("generate").returncode == 0


def test_it_is_alone_in_a_session_and_holds_no_terminal(pid: int) -> None:
    # After the name, which is in brackets: state, parent, group, session, terminal.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    _, parent, _, session, terminal = fields[:5]
    assert int(parent) != os.getpid()
    assert int(session) != os.getsid(0)
    assert int(session) != pid  # not its leader: it cannot take a terminal again
    assert terminal == "0"


def test_it_holds_no_directory_and_reads_and_prints_nothing(daemon: Daemon, pid: int) -> None:
    require_root()  # as a process that cannot be traced, it shows this to nobody else
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    streams = [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)]
    assert streams == ["/dev/null", "/dev/null", str(daemon.log_dir / "pki2fad.log")]


def test_a_stop_leaves_no_socket(daemon: Daemon, pid: int) -> None:
    end(pid)
    assert not daemon.socket.exists()


def test_its_log_is_private_and_opened_again_after_a_rotation(daemon: Daemon, pid: int) -> None:
    log = daemon.log_dir / "pki2fad.log"
    assert "ready" in log.read_text()
    log.rename(log.with_suffix(".log.1"))
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: log.exists() and "reloaded" in log.read_text(), "the log is not opened again")
    for path in (log, log.with_suffix(".log.1")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_code_is_in_its_log(daemon: Daemon, pid: int) -> None:
    code = daemon.ctl("generate").stdout.strip()
    assert daemon.ctl("verify", code).stdout == "valid\n"
    end(pid)
    log = (daemon.log_dir / "pki2fad.log").read_text()
    assert "verify" in log
    assert code not in log.replace("=", " ").split()


def refused(daemon: Daemon) -> str:
    done = detach(daemon)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("pki2fad: error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_missing_key_is_said_by_the_command_and_by_the_log(daemon: Daemon) -> None:
    key = daemon.config_dir / "host.pem"
    key.unlink()
    assert str(key) in refused(daemon)
    assert str(key) in (daemon.log_dir / "pki2fad.log").read_text()
    assert not daemon.socket.exists()


def test_a_socket_that_is_in_use_is_said_with_the_pid(daemon: Daemon, pid: int) -> None:
    other = Daemon(daemon.root / "other")
    other.root.mkdir()
    other.install_key((daemon.config_dir / "host.pem").read_bytes())
    other.socket = daemon.socket
    assert str(pid) in refused(other)  # it was never started here: there is nothing to close
    assert daemon.ctl("status").returncode == 0


def test_another_one_on_its_state_is_refused_with_the_pid(daemon: Daemon, pid: int) -> None:
    daemon.socket = daemon.root / "another"
    assert str(pid) in refused(daemon)


def test_a_wrong_configuration_is_said_before_it_detaches(daemon: Daemon) -> None:
    daemon.configure("typo = 1")
    assert "typo" in refused(daemon)
    assert not daemon.log_dir.exists()


def test_a_log_that_cannot_be_written_is_said(daemon: Daemon) -> None:
    log = daemon.log_dir / "pki2fad.log"
    log.mkdir(parents=True)
    assert str(log) in refused(daemon)


def test_it_needs_no_standard_streams(daemon: Daemon) -> None:
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", PKI2FAD, "--detach", *daemon.arguments()]
    done = subprocess.run(command, env=environment(daemon.root), timeout=PATIENCE, check=False)
    try:
        assert done.returncode == 0
        assert daemon.ctl("status").returncode == 0
    finally:
        end(int((daemon.state_dir / "lock").read_text()))


def test_paths_are_those_of_where_the_command_was_run(daemon: Daemon) -> None:
    done = detach(daemon, "--state-dir=state", "--log-dir=log", "--socket=socket", "--config-dir=config")
    try:
        assert done.returncode == 0
        assert daemon.ctl("status").returncode == 0
    finally:
        end(int((daemon.state_dir / "lock").read_text()))

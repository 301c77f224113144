"""SIGHUP: the whole new configuration, or the old one and why."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from support.daemon import PATIENCE, Daemon, as_user
from support.peers import require, require_root

from pki2fad.client import Client
from pki2fad.errors import ConnectionLost

SEED = b"a seed of the reload tests......"
UID = 4242

# For each line on stdin asks for a code over one connection, and prints how that went.
ASK = """
import sys
from pki2fad.client import Client
from pki2fad.errors import Forbidden
with Client(sys.argv[1]) as client:
    for line in sys.stdin:
        try:
            client.generate()
            print("code", flush=True)
        except Forbidden:
            print("forbidden", flush=True)
"""


@pytest.fixture
def ask(daemon: Daemon, seal: Callable[[bytes], bytes]) -> Iterator[Callable[[], str]]:
    """Another user's process, with one connection for all that it asks."""
    daemon.root.chmod(0o755)
    daemon.deliver("default", seal(SEED))
    daemon.start()
    command = [*as_user(UID), sys.executable, "-P", "-c", ASK, str(daemon.socket)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask_once() -> str:
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield ask_once


def status(daemon: Daemon) -> str:
    """What `status` shows where something is wrong."""
    done = daemon.ctl("status", "--check")
    assert done.returncode == 6
    return done.stdout


def test_reloading_is_announced_with_its_time_in_one_datagram(daemon: Daemon) -> None:
    daemon.start()
    before = time.monotonic_ns() // 1000
    daemon.signal(signal.SIGHUP)
    lines = daemon.wait_for("RELOADING=1")
    (moment,) = [line for line in lines if line.startswith("MONOTONIC_USEC=")]
    assert before <= int(moment.partition("=")[2]) <= time.monotonic_ns() // 1000
    assert "STATUS=0 accounts, unlocked, clock not set by systemd-timesyncd" in daemon.wait_for("READY=1")


def test_access_changes_for_connections_that_are_open(daemon: Daemon, ask: Callable[[], str]) -> None:
    assert ask() == "forbidden"
    daemon.configure(f'[[access]]\nrole = "generate"\nwho = [{UID}]\n')
    daemon.reload()
    assert ask() == "code"
    daemon.configure("")
    daemon.reload()
    assert ask() == "forbidden"


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ("typo = 1\n", "typo: there is no such setting"),
        ("[\n", "not TOML"),
        ('[[access]]\nrole = "verify"\nwho = ["no-such-user"]\n', "no-such-user"),
        ('[[access]]\nrole = "verify"\nwho = ["@no-such-group"]\n', "no-such-group"),
    ],
)
def test_a_wrong_configuration_changes_nothing_and_status_and_log_say_why(
    daemon: Daemon, ask: Callable[[], str], mistake: str, reason: str
) -> None:
    good = f'[[access]]\nrole = "generate"\nwho = [{UID}]\n'
    daemon.configure(good)
    daemon.reload()
    daemon.configure(mistake)
    (told,) = [line for line in daemon.reload() if line.startswith("STATUS=")]
    assert "reload failed" in told
    assert reason in status(daemon)
    (logged,) = [line for line in daemon.log().splitlines() if "reload_failed" in line]
    assert reason in logged
    assert ask() == "code"
    daemon.configure(good)
    assert "STATUS=1 account, unlocked, clock not set by systemd-timesyncd" in daemon.reload()


def test_a_minute_log_that_cannot_be_made_keeps_the_old_configuration(daemon: Daemon) -> None:
    daemon.start()
    daemon.configure(f'[minute_log]\npath = "{daemon.stdout}/codes.log"\n')
    daemon.reload()
    assert str(daemon.stdout) in status(daemon)


def test_new_seed_files_are_taken(daemon: Daemon, seal: Callable[[bytes], bytes]) -> None:
    daemon.start()
    daemon.deliver("deploy", seal(SEED))
    assert "STATUS=1 account, unlocked, clock not set by systemd-timesyncd" in daemon.reload()
    assert daemon.ctl("generate", "deploy").returncode == 0


def test_a_wrong_configuration_keeps_no_seed_file_out(daemon: Daemon, seal: Callable[[bytes], bytes]) -> None:
    daemon.start()
    daemon.configure("typo = 1")
    daemon.deliver("deploy", seal(SEED))
    daemon.reload()
    assert daemon.ctl("generate", "deploy").returncode == 0


def test_what_needs_a_restart_is_said_and_goes_on_as_it_was(daemon: Daemon) -> None:
    daemon.start()
    daemon.configure(f'key = "{daemon.root}/new.pem"\n')
    daemon.reload()
    (said,) = [line for line in daemon.log().splitlines() if "restart_needed" in line]
    assert "setting=key" in said
    assert daemon.ctl("status").returncode == 0


def test_a_file_that_the_command_line_names_is_read_again(daemon: Daemon) -> None:
    file = daemon.root / "settings.toml"
    file.write_text("")
    daemon.start(f"--config={file}")
    file.write_text("typo = 1\n")
    daemon.reload()
    assert str(file) in status(daemon)


def connections(daemon: Daemon, count: int) -> int:
    """How many of so many connections, which are all open at once, are served."""
    served = 0
    with contextlib.ExitStack() as clients:
        for _ in range(count):
            client = clients.enter_context(Client(str(daemon.socket), PATIENCE))
            with contextlib.suppress(ConnectionLost):
                client.status()
                served += 1
    return served


@pytest.mark.parametrize("cap", ["max_connections", "max_connections_per_uid"])
def test_the_caps_change(daemon: Daemon, cap: str) -> None:
    daemon.configure(f"[server]\n{cap} = 2\n")
    daemon.start()
    reserve = connections(daemon, 40) - 2  # none, but for root
    assert reserve < 38
    daemon.configure(f"[server]\n{cap} = 5\n")
    daemon.reload()
    assert connections(daemon, 40) == 5 + reserve


def test_a_reload_that_is_asked_for_during_a_start_comes_after_it(
    daemon: Daemon, seal: Callable[[bytes], bytes]
) -> None:
    daemon.start()
    daemon.stop()
    daemon.deliver("default", seal(SEED))
    with contextlib.closing(sqlite3.connect(daemon.state_file, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")  # the start is to store the seed, and waits for us
        daemon.spawn()
        daemon.wait_for("EXTEND_TIMEOUT_USEC=60000000")
        daemon.signal(signal.SIGHUP)
        database.execute("ROLLBACK")
    daemon.wait_for("READY=1")
    daemon.wait_for("RELOADING=1")
    daemon.wait_for("READY=1")


def test_several_reloads_in_a_row_are_each_answered(daemon: Daemon) -> None:
    daemon.start()
    for _ in range(3):
        assert "STATUS=0 accounts, unlocked, clock not set by systemd-timesyncd" in daemon.reload()


def test_a_name_service_that_hangs_holds_up_neither_requests_nor_a_stop(daemon: Daemon) -> None:
    require_root()
    daemon.configure('[[access]]\nrole = "verify"\nwho = ["daemon"]\n')
    daemon.start(command=[require("unshare"), "--mount", "--"])
    fifo = daemon.root / "passwd"
    os.mkfifo(fifo)  # nobody writes to it: every reader of /etc/passwd waits
    inside = [require("nsenter"), "--mount", f"--target={daemon.pid}", "--"]
    subprocess.run([*inside, "mount", "--bind", str(fifo), "/etc/passwd"], check=True)
    daemon.signal(signal.SIGHUP)
    assert "RELOADING=1" in daemon.wait_for("RELOADING=1")
    with daemon.client() as client:
        assert client.status()["ready"]
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log()

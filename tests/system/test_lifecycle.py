"""Start and stop, and what systemd hears of it."""

import contextlib
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.activation import activated, listening
from support.daemon import PATIENCE, Daemon, ctl, wait_until
from support.peers import require, require_root

from pki2fad import __version__
from pki2fad.wire import messages

SEED = b"a seed of the lifecycle tests..."


def test_it_is_ready_when_it_says_so_and_says_how_many_accounts_there_are(
    daemon: Daemon, seal: Callable[[bytes], bytes]
) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.spawn()
    lines = daemon.wait_for("READY=1")
    assert "STATUS=1 account, unlocked, clock not set by systemd-timesyncd" in lines
    with daemon.client() as client:
        assert client.status()["pid"] == daemon.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_leaves_no_socket(daemon: Daemon, number: int) -> None:
    daemon.start()
    daemon.signal(number)
    daemon.wait_for("STOPPING=1")
    assert daemon.wait() == 0
    assert not daemon.socket.exists()
    assert not Path(f"{daemon.socket}.lock").exists()
    assert "Traceback" not in daemon.log()


def test_clients_that_never_read_do_not_hold_up_a_stop(daemon: Daemon) -> None:
    daemon.start()
    request = messages.encode_request(1, "status", {})
    clients = []
    for _ in range(3):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        clients.append(client)
        client.connect(str(daemon.socket))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # so many that the answers fill all buffers
                client.send(request * 1000)
        assert select.select([client], [], [], PATIENCE)[0]  # the daemon has begun to answer
    daemon.signal(signal.SIGTERM)
    assert daemon.process is not None
    # Two seconds are promised; a slow reader has ten while the daemon runs.
    assert daemon.process.wait(timeout=8) == 0
    for client in clients:
        client.close()


def test_the_watchdog_is_pinged_from_the_start(daemon: Daemon) -> None:
    daemon.start(WATCHDOG_USEC="100000")
    for _ in range(3):
        daemon.wait_for("WATCHDOG=1")


def test_a_notification_socket_that_nobody_reads_does_not_hang_it(daemon: Daemon) -> None:
    path = daemon.root / "unread"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unread,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
    ):
        unread.bind(str(path))
        sender.connect(str(path))
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # until its queue is full
                sender.send(b"X=1")
        daemon.spawn(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="1000")
        wait_until(lambda: b"pki2fad: socket" in daemon.stdout.read_bytes(), "it does not start")
        assert daemon.ctl("status").returncode == 0
        assert daemon.stop() == 0


def test_it_serves_on_the_socket_that_it_inherits_and_leaves_its_path(daemon: Daemon) -> None:
    path = daemon.root / "activated"
    with listening(path) as inherited:
        daemon.start(command=activated("", inherited), pass_fds=[inherited.fileno()])
        assert ctl(daemon.root, "--socket", str(path), "status").returncode == 0
        assert not daemon.socket.exists()
        assert daemon.stop() == 0
    assert path.is_socket()


def test_it_serves_all_sockets_of_a_name(daemon: Daemon) -> None:
    places = [daemon.root / name for name in ("one", "two")]
    with listening(places[0]) as one, listening(places[1]) as two:
        daemon.start(
            command=activated("pki2fad.socket:pki2fad.socket", one, two),
            pass_fds=[one.fileno(), two.fileno()],
        )
        for place in places:
            assert ctl(daemon.root, "--socket", str(place), "status").returncode == 0


def not_listening(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    return bound


def of_the_network(_path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    return bound


@pytest.mark.parametrize(
    ("names", "make", "reason"),
    [
        ("pki2fad.socket:pki2fad.socket", not_listening, "descriptor 4 does not listen: the socket unit"),
        (
            "pki2fad.socket:pki2fad.socket",
            of_the_network,
            "descriptor 4 is no Unix stream socket",
        ),
        ("pki2fad.socket:other.socket", listening, "descriptor 4 has the name 'other.socket'"),
        ("pki2fad.socket:", listening, "descriptor 4 has the name ''"),
    ],
)
def test_a_passed_socket_that_cannot_be_served_stops_the_start(
    daemon: Daemon, names: str, make: Callable[[Path], socket.socket], reason: str
) -> None:
    with listening(daemon.root / "one") as one, make(daemon.root / "two") as other:
        command = activated(names, one, other)
        error = daemon.fail_to_start(command=command, pass_fds=[one.fileno(), other.fileno()])
    assert reason in error
    assert "descriptor 3" not in error


def test_a_connection_in_place_of_a_socket_stops_the_start_and_names_accept_once(daemon: Daemon) -> None:
    one, other = socket.socketpair()
    with one, other:
        error = daemon.fail_to_start(command=activated("pki2fad.socket", one), pass_fds=[one.fileno()])
    assert error.count("Accept=yes") == 1


ONE_OF_TWO = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.closerange(4, 10)
names = "pki2fad.socket:pki2fad.socket"
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": names}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_passed_socket_that_is_missing_stops_the_start(daemon: Daemon) -> None:
    with listening(daemon.root / "one") as one:
        command = [sys.executable, "-c", ONE_OF_TWO, str(one.fileno())]
        error = daemon.fail_to_start(command=command, pass_fds=[one.fileno()])
    assert "descriptor 4 is missing" in error


@pytest.mark.parametrize(("descriptors", "starts"), [(303, False), (304, True)])
def test_a_limit_of_descriptors_that_leaves_too_few_connections_stops_the_start(
    daemon: Daemon, descriptors: int, starts: bool
) -> None:
    command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
    if starts:
        daemon.start(command=command)
        wait_until(lambda: "fewer_connections wanted=16384 possible=128" in daemon.log(), "it says nothing")
    else:
        error = daemon.fail_to_start(command=command)
        assert "the limit of descriptors is 303, and the daemon needs at least 304: raise it with" in error


@pytest.mark.parametrize(("limit", "warns"), [("300M", True), ("1G", False)])
def test_a_limit_of_memory_that_is_too_low_is_said_at_the_start(
    daemon: Daemon, limit: str, warns: bool
) -> None:
    require_root()
    group = daemon.root / "groups" / "pki2fad.service"
    group.mkdir(parents=True)
    size = int(limit[:-1]) << (20 if limit.endswith("M") else 30)
    (group / "memory.max").write_text(f"{size}\n")
    (daemon.root / "cgroup").write_text("0::/pki2fad.service\n")
    script = f"""
mount --bind {daemon.root}/groups /sys/fs/cgroup
mount --bind {daemon.root}/cgroup /proc/$$/cgroup
exec "$@"
"""
    daemon.start(command=[require("unshare"), "--mount", "--", "sh", "-ec", script, "sh"])
    assert ("memory_limit allowed=300M needed=384M" in daemon.log()) == warns


def test_sockets_that_were_passed_to_another_process_are_not_taken(daemon: Daemon) -> None:
    path = daemon.root / "activated"
    with listening(path) as inherited:
        daemon.start(pass_fds=[inherited.fileno()], LISTEN_PID="1", LISTEN_FDS="1")
        assert daemon.ctl("status").returncode == 0


def test_in_the_foreground_it_prints_where_socket_and_minute_log_are(daemon: Daemon) -> None:
    daemon.start()
    wait_until(lambda: len(daemon.stdout.read_text().splitlines()) == 3, "it prints something else")
    assert daemon.stdout.read_text().splitlines() == [
        f"pki2fad: pid {daemon.pid}",
        f"pki2fad: socket {daemon.socket}",
        f"pki2fad: minute log {daemon.codes_log}",
    ]


def test_it_can_leave_no_core(daemon: Daemon) -> None:
    daemon.start()
    limits = Path(f"/proc/{daemon.pid}/limits").read_text().splitlines()
    (core,) = [line.split()[4:6] for line in limits if line.startswith("Max core file size")]
    assert core == ["0", "0"]


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=oct)
def test_modes_do_not_depend_on_the_umask(daemon: Daemon, seal: Callable[[bytes], bytes], umask: int) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.socket = daemon.root / "run" / "socket"
    daemon.start(umask=umask)
    assert daemon.ctl("status").returncode == 0
    wait_until(daemon.codes_log.exists, "there is no minute log")
    root = os.geteuid() == 0
    expected = {
        daemon.state_dir: 0o700,
        daemon.log_dir: 0o700,
        daemon.codes_log: 0o600,
        daemon.socket.parent: 0o755 if root else 0o700,
        daemon.socket: 0o666 if root else 0o600,
    }
    expected |= dict.fromkeys(daemon.state_dir.iterdir(), 0o600)
    assert daemon.state_file in expected
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in expected}
    assert modes == expected


def run(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    """The command itself, which ends at once: status, stdout, stderr."""
    process = daemon.spawn(*arguments)
    status = process.wait(30)
    return status, daemon.stdout.read_text(), daemon.log()


def test_the_version_is_that_of_the_package(daemon: Daemon) -> None:
    assert run(daemon, "--version") == (0, f"pki2fad {__version__}\n", "")


def test_a_good_configuration_is_said_to_be_valid_and_nothing_is_started(daemon: Daemon) -> None:
    daemon.configure('[[access]]\nrole = "verify"\nwho = ["root", 1000]\n[minute_log]\naccounts = []\n')
    (daemon.config_dir / "host.pem").unlink()
    said = "the settings are valid; key and directories were not looked at\n"
    assert run(daemon, "--check-config") == (0, said, "")
    assert not daemon.state_dir.exists()
    assert not daemon.log_dir.exists()


@pytest.mark.parametrize(
    ("toml", "key", "expected"),
    [
        ('socket = "relative"', "socket", "an absolute path"),
        ("[server]\nmax_connections = 0", "server.max_connections", "a whole number"),
        ("[minute_log]\naccounts = 'default'", "minute_log.accounts", "a list"),
        ('[[access]]\nrole = "owner"\nwho = [0]', "access.role", '"verify"'),
        ('[[access]]\nrole = "verify"\nwho = ["no-such-user"]', "access", "no-such-user"),
        ("typo = 1", "typo", "there is no such setting"),
        ("[", "pki2fad.toml", "not TOML"),
    ],
)
@pytest.mark.parametrize("arguments", [["--check-config"], []], ids=["check", "start"])
def test_a_bad_configuration_is_refused_with_file_key_and_what_was_expected(
    daemon: Daemon, toml: str, key: str, expected: str, arguments: list[str]
) -> None:
    daemon.configure(toml)
    error = daemon.fail_to_start(*arguments)
    assert str(daemon.config_dir / "pki2fad.toml") in error
    assert key in error
    assert expected in error
    assert not daemon.socket.exists()


def test_a_configuration_file_that_is_named_has_to_exist(daemon: Daemon) -> None:
    error = daemon.fail_to_start(f"--config={daemon.root / 'missing.toml'}")
    assert str(daemon.root / "missing.toml") in error


def test_a_wrong_option_is_a_usage_error(daemon: Daemon) -> None:
    status, _, error = run(daemon, "--sock=/tmp/short")
    assert status == 2
    assert "--sock" in error


@pytest.mark.parametrize("there", [True, False], ids=["with uvloop", "without"])
def test_it_serves_with_uvloop_and_without(daemon: Daemon, there: bool) -> None:
    require_root()  # to see what is mapped into a process that cannot be traced
    hidden = daemon.root / "hidden"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text("raise ImportError('there is none here')\n")
    daemon.start(**({} if there else {"PYTHONPATH": str(hidden)}))
    assert ("uvloop" in Path(f"/proc/{daemon.pid}/maps").read_text()) is there
    with daemon.client() as client:
        assert client.status()["ready"]
    assert daemon.stop() == 0

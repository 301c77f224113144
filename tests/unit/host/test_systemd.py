"""What systemd passes and hears, on real descriptors and real datagram sockets."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import open_below
from support.paths import no_descriptor_stays_open

from pki2fad.host.systemd import Notifier, own_group, passed_sockets, watchdog_period

# A process as systemd starts it: sockets from descriptor 3 on, named in the environment.
PASSED = """
import json, os, socket, sys

count = int(sys.argv[1])
directory, *settings = sys.argv[2:]
sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
for number, each in enumerate(sockets):
    each.bind(f"{directory}/{number}")
# Out of the way first, since they may be what they have to become.
moved = [os.dup2(each.fileno(), 100 + number) for number, each in enumerate(sockets)]
for number, descriptor in enumerate(moved):
    os.dup2(descriptor, 3 + number)
os.environ.update(setting.split("=", 1) for setting in settings)
if os.environ.get("LISTEN_PID") == "ours":
    os.environ["LISTEN_PID"] = str(os.getpid())

from pki2fad.host.systemd import passed_sockets

passed = passed_sockets()
print(json.dumps({
    "passed": [[descriptor - 3, name] for descriptor, name in passed],
    "left": sorted(name for name in os.environ if name.startswith("LISTEN_")),
    "again": passed_sockets(),
}))
"""


def passed(directory: Path, count: int, **settings: str) -> dict[str, Any]:
    """What a process makes of `count` sockets and this environment."""
    arguments = [str(count), str(directory), *(f"{name}={value}" for name, value in settings.items())]
    done = subprocess.run(
        [sys.executable, "-P", "-c", PASSED, *arguments], check=True, capture_output=True, text=True
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


# Sockets


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("pki2fad.socket", ["pki2fad.socket", "", ""]),
        ("a:pki2fad.socket:a", ["a", "pki2fad.socket", "a"]),
        ("a:b:c:d", ["a", "b", "c"]),
        ("", ["", "", ""]),
    ],
)
def test_every_socket_that_was_passed_has_its_name(short_path: Path, names: str, expected: list[str]) -> None:
    answer = passed(short_path, 3, LISTEN_PID="ours", LISTEN_FDS="3", LISTEN_FDNAMES=names)
    assert answer["passed"] == [[number, name] for number, name in enumerate(expected)]
    assert (answer["left"], answer["again"]) == ([], [])


@pytest.mark.parametrize(
    "settings",
    [
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "pki2fad.socket"},
        {"LISTEN_PID": "", "LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "pki2fad.socket"},
        {"LISTEN_PID": "ours"},
        {"LISTEN_PID": "ours", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "ours", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "ours", "LISTEN_FDS": "one"},
        {"LISTEN_PID": "ours", "LISTEN_FDS": "0", "LISTEN_FDNAMES": "pki2fad.socket"},
    ],
    ids=str,
)
def test_what_was_passed_to_another_process_or_not_at_all_is_not_taken(
    short_path: Path, settings: dict[str, str]
) -> None:
    answer = passed(short_path, 1, **settings)
    assert (answer["passed"], answer["left"]) == ([], [])


def test_outside_systemd_there_is_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert passed_sockets() == []


# Notifications


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The socket on which systemd listens, with its address in the environment."""
    path = str(short_path / "notify")
    abstract = request.param == "abstract"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{path}" if abstract else path)
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if abstract else path)
        yield manager


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    assert manager.fileno() >= 0
    notifier = Notifier()
    yield notifier
    notifier.close()


def heard(manager: socket.socket) -> list[str]:
    """The lines of the next datagram, which is the only one."""
    lines = manager.recv(4096).decode("ascii").split("\n")
    with pytest.raises(BlockingIOError):
        manager.recv(1)
    return lines


def test_each_message_is_one_datagram(manager: socket.socket, notifier: Notifier) -> None:
    notifier.ready("2 accounts")
    assert heard(manager) == ["READY=1", "STATUS=2 accounts"]
    notifier.stopping()
    assert heard(manager) == ["STOPPING=1", "STATUS=stopping"]
    notifier.watchdog()
    assert heard(manager) == ["WATCHDOG=1"]


def test_a_reload_says_when_it_began_in_the_same_datagram(manager: socket.socket, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    reloading, began = heard(manager)
    assert reloading == "RELOADING=1"
    name, _, usec = began.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(usec) <= after


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("caf\u00e9 \u2192 \U0001f512", "caf? ? ?"),
        ("one\nREADY=1\ntwo", "one READY=1 two"),
        ("\udcff", "?"),
        ("", ""),
    ],
)
def test_a_status_is_one_line_of_ascii(
    manager: socket.socket, notifier: Notifier, status: str, told: str
) -> None:
    notifier.ready(status)
    assert heard(manager) == ["READY=1", f"STATUS={told}"]


def test_a_manager_that_does_not_read_blocks_nothing(manager: socket.socket, notifier: Notifier) -> None:
    def talk() -> None:
        for number in range(2000):  # a queue holds some 10 to 500 datagrams
            notifier.ready(str(number))

    # In a thread of its own: sdnotify would swallow what ends a test that hangs.
    talking = threading.Thread(target=talk, daemon=True)
    talking.start()
    talking.join(30)
    assert not talking.is_alive()
    assert manager.recv(4096) == b"READY=1\nSTATUS=0"


def test_a_manager_that_went_away_breaks_nothing(manager: socket.socket, notifier: Notifier) -> None:
    manager.close()
    notifier.ready("nobody hears")
    notifier.watchdog()


# sdnotify drops a socket that it cannot connect, and leaves closing it to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_address_where_nobody_listens_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notifier = Notifier()
    notifier.ready("nobody hears")
    notifier.close()
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("address", [None, ""])
def test_outside_systemd_nothing_is_said(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    with no_descriptor_stays_open():
        notifier = Notifier()
        notifier.ready("nobody hears")
        notifier.reloading()
    notifier.close()


# Watchdog


@pytest.mark.parametrize(
    ("usec", "pid", "period"),
    [
        ("30000000", None, 15.0),
        ("30000000", "ours", 15.0),
        ("1", None, 0.000_000_5),
        ("30000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("-1", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_pings_are_due_at_half_of_what_systemd_allows(
    usec: str | None, pid: str | None, period: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "ours" else value)
    assert watchdog_period() == period


# Control group


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (b"0::/system.slice/pki2fad.service\n", "/system.slice/pki2fad.service"),
        (b"1:name=systemd:/old\n0::/a b\n", "/a b"),
        (b"0::/\n", "/"),
        (b"0::/caf\xe9.service\n", "/caf\ufffd.service"),
        (b"1:name=systemd:/old\n", None),
        (b"", None),
    ],
)
def test_our_control_group_is_that_of_version_2(tmp_path: Path, groups: bytes, expected: str | None) -> None:
    (tmp_path / "cgroup").write_bytes(groups)
    assert own_group(str(tmp_path / "cgroup")) == expected


def test_without_control_groups_we_are_in_none(tmp_path: Path) -> None:
    assert own_group(str(tmp_path / "none")) is None

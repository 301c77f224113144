"""Codes as credentials of other units: what whoever asks as systemd does is answered, and who else is not.

The real systemd asks in `test_booted_*.py`.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.activation import activated, listening
from support.daemon import PATIENCE, Daemon, as_user, wait_until
from support.peers import require_root
from support.raw import Seed

from pki2fad.crypto.rsakeys import PrivateKey

RULES = """
[[credential]]
unit = "backup.service"
account = "deploy"

[[credential]]
unit = "backup.service"
account = "other"
credential = "second"

[[credential]]
unit = "report.service"
account = "nobody"
"""
SYSTEMD_TAKES = 1024 * 1024  # bytes for a credential; what is longer fails the unit

ASK = r"""
import socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.bind(b"\0abcd/unit/backup.service/otp")
    asking.connect(sys.argv[1])
    sys.stdout.write(repr(asking.recv(64)))
"""


class Asked:
    """A daemon whose socket for credentials was passed to it, and its accounts' seeds."""

    def __init__(self, daemon: Daemon, key: PrivateKey) -> None:
        self.daemon = daemon
        self.key = key
        self.path = daemon.root / "credential.sock"
        self.seeds = {"deploy": Seed(period=2), "other": Seed()}
        daemon.configure(RULES)
        with listening(self.path) as passed, listening(daemon.socket) as main:
            command = activated("pki2fad-credential.socket:pki2fad.socket", passed, main)
            daemon.start(command=command, pass_fds=[passed.fileno(), main.fileno()])
        with daemon.client() as client:
            for name, seed in self.seeds.items():
                client.load(seed.sealed(key), name, **seed.parameters)

    def ask(self, unit: str = "backup.service", credential: str = "otp", start: bytes = b"") -> bytes:
        """What systemd reads for a unit, up to what it takes and one byte more."""
        address = start or b"\0" + os.urandom(8).hex().encode()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(PATIENCE)
            asking.bind(address + f"/unit/{unit}/{credential}".encode())
            asking.connect(str(self.path))
            asking.shutdown(socket.SHUT_WR)
            answer = b""
            while len(answer) <= SYSTEMD_TAKES and (data := asking.recv(65536)):
                answer += data
            return answer

    def connections(self) -> int:
        """How many ask at the moment: what the daemon has accepted there."""
        lines = Path("/proc/net/unix").read_text().splitlines()
        return sum(line.endswith(str(self.path)) and line.split()[5] == "03" for line in lines)

    def refusal(self) -> str:
        """The last refusal in the log."""
        lines = [line for line in self.daemon.log().splitlines() if "credential_refused" in line]
        return lines[-1]


@pytest.fixture
def asked(daemon: Daemon, host_key: PrivateKey) -> Asked:
    require_root()  # systemd is
    return Asked(daemon, host_key)


def test_a_unit_that_is_allowed_gets_the_current_code_and_nothing_else(asked: Asked) -> None:
    seed = asked.seeds["other"]
    before = seed.code()
    code = asked.ask(credential="second").decode()
    assert code in (before, seed.code())
    with asked.daemon.client() as client:
        assert client.verify(code, "other")
    (line,) = [line for line in asked.daemon.log().splitlines() if " credential " in f" {line} "]
    assert line.endswith("credential unit=backup.service credential=second account=other")


def test_no_two_get_the_same_code(asked: Asked) -> None:
    codes = [asked.ask() for _ in range(3)]  # of steps of two seconds
    assert len(set(codes)) == 3


@pytest.mark.parametrize(
    ("unit", "credential", "reason"),
    [
        ("other.service", "otp", "no [[credential]]"),
        ("backup.service", "third", "no [[credential]]"),
        ("backup.service.evil", "otp", "no [[credential]]"),
        ("report.service", "otp", "there is no account"),
    ],
)
def test_what_is_not_allowed_or_missing_fails_the_unit_and_the_log_says_why(
    asked: Asked, unit: str, credential: str, reason: str
) -> None:
    assert len(asked.ask(unit, credential)) > SYSTEMD_TAKES
    assert f"unit={unit} " in asked.refusal()
    assert reason in asked.refusal()


def test_while_the_daemon_is_locked_a_unit_fails(asked: Asked) -> None:
    assert asked.daemon.ctl("lock").returncode == 0
    assert len(asked.ask()) > SYSTEMD_TAKES
    assert "locked" in asked.refusal()
    assert asked.daemon.ctl("unlock").returncode == 0
    assert len(asked.ask()) == 6


def test_a_reload_takes_new_rules(asked: Asked) -> None:
    asked.daemon.configure(RULES.replace("backup.service", "restore.service"))
    asked.daemon.reload()
    assert len(asked.ask()) > SYSTEMD_TAKES
    assert len(asked.ask("restore.service")) == 6


@pytest.mark.parametrize(
    "start",
    [
        lambda root: f"{root}/named".encode(),
        lambda _root: b"\0no-hex",
        lambda _root: b"\0" + b"ab/unit/backup.service",
    ],
    ids=["a path", "no random part", "a part too many"],
)
def test_an_address_that_is_not_systemds_is_answered_nothing(
    asked: Asked, start: Callable[[Path], bytes]
) -> None:
    if start(asked.daemon.root).startswith(b"/"):
        Path(f"{asked.daemon.root}/named/unit/backup.service").mkdir(parents=True)
    assert asked.ask(start=start(asked.daemon.root)) == b""
    assert "only systemd is answered here" in asked.refusal()


def test_who_is_not_root_is_answered_nothing(asked: Asked) -> None:
    asked.daemon.root.chmod(0o755)
    asked.path.chmod(0o666)
    done = subprocess.run(
        [*as_user(4711), sys.executable, "-c", ASK, str(asked.path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stdout in ("", "b''")
    wait_until(lambda: "uid=4711" in asked.daemon.log(), "nothing is logged")


def test_a_unit_that_waits_when_the_daemon_stops_fails(asked: Asked) -> None:
    seed = Seed(period=120)
    with asked.daemon.client() as client:
        client.load(seed.sealed(asked.key), "deploy", replace=True, **seed.parameters)
    asked.ask()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(asked.ask)
        wait_until(waiting.running, "it does not ask")
        wait_until(lambda: asked.connections() > 0, "it is not connected")
        assert asked.daemon.stop() == 0
        assert len(waiting.result()) > SYSTEMD_TAKES
    assert "the daemon stops" in asked.refusal()


def test_an_account_with_another_period_gives_codes_again(asked: Asked, host_key: PrivateKey) -> None:
    assert len(asked.ask()) == 6
    seed = Seed(period=3)
    with asked.daemon.client() as client:
        client.load(seed.sealed(host_key), "deploy", replace=True, **seed.parameters)
    assert len(asked.ask()) == 6


def test_a_code_is_in_no_log(asked: Asked) -> None:
    codes = [asked.ask().decode(), asked.ask(credential="second").decode()]
    assert not [code for code in codes if code in asked.daemon.log()]

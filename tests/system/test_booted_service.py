"""The service under a running systemd: started, stopped, reloaded, killed and stuck."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from support.daemon import wait_until
from support.installed import SERVICE, Installed

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

SOCKET = "pki2fad.socket"
INFO, NOTICE, ERROR = "6", "5", "3"

# Asks over a new connection each time, until its standard input ends; prints how many answers there were.
LOAD = """
import select, sys
from pki2fad.client import Client
answers = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with Client() as client:
        client.generate()
    answers += 1
print(answers)
"""


@contextlib.contextmanager
def load(host: Installed) -> Iterator[Callable[[], int]]:
    """A client that asks all the time; what is yielded ends it, and returns how many answers it had."""
    with host.popen("/opt/pki2fad/bin/python", "-c", LOAD) as client:

        def end() -> int:
            answers, errors = client.communicate(timeout=60)
            assert errors == ""
            return int(answers)

        yield end


@pytest.fixture
def quick(host: Installed) -> Installed:
    """The host, whose daemon is started again at once, and watched closely."""
    host.drop_in("[Service]\nRestartSec=0\nWatchdogSec=1s\n")
    return host


def spend(host: Installed) -> str:
    """A code that was accepted."""
    code = host.ctl("generate")
    assert host.ctl("verify", code) == "valid"
    return code


def test_the_first_connection_starts_it(host: Installed) -> None:
    host.systemctl("start", SOCKET)
    assert host.show("ActiveState") == "inactive"
    assert len(host.ctl("generate")) == 6
    assert host.show("ActiveState") == "active"


def test_what_is_enabled_runs_after_a_boot(host: Installed) -> None:
    host.systemctl("enable", SOCKET, SERVICE)
    host.reboot()
    assert (host.show("ActiveState"), host.show("ActiveState", SOCKET)) == ("active", "active")
    assert host.show("StatusText").startswith("1 account")


def test_a_stop_is_clean_and_leaves_the_socket(host: Installed) -> None:
    host.systemctl("start")
    host.systemctl("stop")
    assert (host.show("Result"), host.show("ExecMainStatus")) == ("success", "0")
    assert host.path("/run/pki2fad/socket").is_socket()
    assert "pki2fad.service: Deactivated successfully." in host.messages()
    assert len(host.ctl("generate")) == 6
    assert host.show("ActiveState") == "active"


def test_no_connection_is_refused_and_no_code_good_again_over_restarts(host: Installed) -> None:
    host.systemctl("start")
    code = spend(host)
    with load(host) as end:
        for _ in range(3):
            host.systemctl("restart")
            assert host.ctl("verify", code, check=False) == "invalid"
        assert end() > 3


def test_it_is_started_again_after_a_kill_and_has_lost_nothing(quick: Installed) -> None:
    quick.systemctl("start")
    code, killed = spend(quick), quick.pid
    quick.systemctl("kill", "--signal=KILL", SERVICE)
    quick.wait_until_running(killed)
    assert quick.show("NRestarts") == "1"
    assert quick.ctl("verify", code, check=False) == "invalid"


def test_a_stuck_loop_is_ended_by_the_watchdog_and_started_again(quick: Installed) -> None:
    quick.systemctl("start")
    stuck = quick.pid
    quick.systemctl("kill", "--kill-whom=main", "--signal=STOP", SERVICE)
    quick.wait_until_running(stuck)
    assert any("Watchdog timeout" in line for line in quick.messages())
    assert "result 'watchdog'" in "\n".join(quick.messages())
    assert len(quick.ctl("generate")) == 6


def test_a_reload_takes_new_settings_and_speaks_the_whole_protocol(host: Installed) -> None:
    host.systemctl("start")
    host.run("useradd", "deploy")
    asked = ["runuser", "-u", "deploy", "--", "pki2factl", "generate"]
    assert host.run(*asked, check=False).returncode == 4
    host.write("/etc/pki2fad/pki2fad.toml", '[[access]]\nrole = "generate"\nwho = ["deploy"]\n')
    before = host.pid
    host.run("systemctl", "log-level", "debug")
    host.systemctl("reload")
    wait_until(lambda: host.logged("Got notification.*STATUS="), "no READY=1 came")
    host.run("systemctl", "log-level", "info")
    reloading, ready = host.logged("Got notification.*(RELOADING|READY)=1")
    assert "RELOADING=1, MONOTONIC_USEC=" in reloading
    assert "READY=1, STATUS=1 account" in ready
    assert host.logged("Changed running -> reload")
    assert host.logged("Changed reload -> running")
    assert host.run(*asked).returncode == 0
    assert (host.pid, host.show("ActiveState")) == (before, "active")


def test_a_reload_with_bad_settings_fails_and_changes_nothing(host: Installed) -> None:
    host.systemctl("start")
    before = host.pid
    host.write("/etc/pki2fad/pki2fad.toml", "[server]\nmax_connection = 1\n")
    done = host.systemctl("reload", check=False)
    assert done.returncode == 1
    assert "Job for pki2fad.service failed" in done.stderr
    (said,) = [line for line in host.messages() if "max_connection" in line]
    assert said.startswith("pki2fad: error: /etc/pki2fad/pki2fad.toml: ")
    assert (host.pid, host.show("ActiveState")) == (before, "active")
    assert len(host.ctl("generate")) == 6


def test_a_bad_reload_without_systemctl_shows_in_the_status(host: Installed) -> None:
    host.systemctl("start")
    host.write("/etc/pki2fad/pki2fad.toml", "[server]\nmax_connection = 1\n")
    host.systemctl("kill", "--kill-whom=main", "--signal=HUP", SERVICE)
    wait_until(lambda: "reload failed" in host.show("StatusText"), "the status does not say so")
    assert "max_connection" not in host.show("StatusText")  # everybody can read it
    assert "max_connection" in host.ctl("status", "--check", check=False)
    assert host.show("ActiveState") == "active"


def test_journal_entries_have_the_priority_of_what_they_say(host: Installed) -> None:
    host.write("/etc/pki2fad/seeds.d/broken.sealed", "no seal")
    host.systemctl("start")
    code = spend(host)
    host.ctl("verify", "000000" if code != "000000" else "000001", check=False)
    entries = [entry for entry in host.journal() if entry["_SYSTEMD_UNIT"] == SERVICE]
    priorities = {entry["MESSAGE"].partition(" ")[0]: entry["PRIORITY"] for entry in entries}
    assert {event: priorities[event] for event in ("ready", "seed_loaded", "generate", "seed_ignored")} == {
        "ready": INFO,
        "seed_loaded": NOTICE,
        "generate": INFO,
        "seed_ignored": ERROR,
    }
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"pki2fad"}
    assert not [entry for entry in entries if entry["MESSAGE"].startswith("<") or code in entry["MESSAGE"]]


def test_drop_ins_change_the_service_and_its_socket(host: Installed) -> None:
    host.run("groupadd", "staffers")
    host.run("useradd", "--groups=staffers", "staffer")
    host.run("useradd", "somebody")
    host.write(
        f"/etc/systemd/system/{SOCKET}.d/test.conf", "[Socket]\nSocketMode=0660\nSocketGroup=staffers\n"
    )
    for name in ("host.pem", "seeds.d/default.sealed"):
        text = host.path(f"/etc/pki2fad/{name}").read_text()
        host.write(f"/srv/agent/{name}", text, mode=0o600 if name == "host.pem" else 0o644)
        host.path(f"/etc/pki2fad/{name}").unlink()
    host.drop_in(
        "[Service]\nExecStart=\nExecStart=/opt/pki2fad/bin/pki2fad --config-dir /srv/agent\n"
        "LoadCredential=host.pem:/srv/agent/host.pem\n"
    )
    host.systemctl("start")
    assert len(host.ctl("generate")) == 6
    status = ["pki2factl", "status"]
    assert host.run("runuser", "-u", "staffer", "--", *status).returncode == 0
    assert host.run("runuser", "-u", "somebody", "--", *status, check=False).returncode == 3


def test_without_a_key_it_goes_on_trying_and_serves_when_there_is_one(quick: Installed) -> None:
    key = quick.path("/etc/pki2fad/host.pem")
    pem = key.read_text()
    key.unlink()
    assert quick.systemctl("start", check=False).returncode == 1
    assert any("status=243/CREDENTIALS" in line for line in quick.messages())
    quick.write("/etc/pki2fad/host.pem", pem, mode=0o600)
    wait_until(lambda: quick.show("ActiveState") == "active", "it does not try again")
    assert len(quick.ctl("generate")) == 6

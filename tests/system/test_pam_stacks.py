"""The shipped PAM stacks, as pamtester, sudo, sshd and ssh see them."""

import subprocess
from collections.abc import Iterator

import pytest
from support.daemon import Daemon, as_user
from support.logins import NEVER, PASSWORD, Host, host_with, shown
from support.peers import require
from support.raw import Seal

pytestmark = pytest.mark.slow  # logins through sshd and sudo

CROWD = [f"user{number}" for number in range(20)]
DENIED = "alice@127.0.0.1: Permission denied (keyboard-interactive)."


@pytest.fixture
def host(daemon: Daemon, seal: Seal) -> Iterator[Host]:
    with host_with(daemon, seal, "alice") as host:
        daemon.start()
        yield host


@pytest.fixture
def sshd(host: Host) -> Host:
    host.start_sshd()
    return host


# sudo and login


def test_sudo_takes_a_code_in_the_place_of_the_password(host: Host) -> None:
    code = host.code("alice")
    assert host.pamtester("sudo", "alice", code) == "in"
    assert host.pamtester("sudo", "alice", code) == "Authentication failure"
    assert host.pamtester("sudo", "alice", PASSWORD) == "Authentication failure"


@pytest.mark.parametrize("how", [[], ["-i"]], ids=["sudo", "sudo -i"])
def test_the_real_sudo_takes_a_code_and_no_password(host: Host, how: list[str]) -> None:
    command = [*host.mounts.enter, *as_user(5100), require("sudo"), "-k", "-S", *how, "id", "-u"]

    def sudo(code: str) -> str:
        done = subprocess.run(
            command, input=f"{code}\n", capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout.strip()

    code = host.code("alice")
    assert [sudo(code), sudo(code), sudo(PASSWORD)] == ["0", "", ""]


def test_login_takes_the_password_with_the_code_behind_it(host: Host) -> None:
    code = host.code("alice")
    assert host.pamtester("login", "alice", PASSWORD) == "Authentication failure"
    assert host.pamtester("login", "alice", code) == "Authentication failure"
    assert host.pamtester("login", "alice", PASSWORD + code) == "in"


def test_root_comes_in_at_the_console_without_a_daemon_and_nobody_else(host: Host) -> None:
    assert host.daemon.stop() == 0
    assert host.pamtester("login", "root", PASSWORD) == "in"
    assert host.pamtester("login", "root", "wrong") == "Authentication failure"
    assert host.pamtester("login", "alice", PASSWORD) == "Authentication failure"
    for service in ("login", "sudo", "sshd"):
        refused = "System error" if service == "sshd" else "Authentication failure"
        assert host.pamtester(service, "alice", PASSWORD + host.code("alice")) == refused


# sshd and ssh


def test_a_code_logs_in_behind_the_key_and_only_once(sshd: Host) -> None:
    code = sshd.code("alice")
    assert sshd.ssh("alice", code) == "in"
    assert sshd.ssh("alice", code) == DENIED
    assert "reason=replayed" in sshd.daemon.log()


def test_whatever_is_wrong_the_client_is_told_the_same_and_the_log_what_it_is(sshd: Host) -> None:
    seen = [sshd.ssh("alice", typed) for typed in (NEVER, "000000x", *[NEVER] * 4)]
    assert sshd.daemon.ctl("lock").returncode == 0
    seen.append(sshd.ssh("alice", sshd.code("alice")))
    assert sshd.daemon.stop() == 0
    seen.append(sshd.ssh("alice", sshd.code("alice")))
    assert set(seen) == {DENIED}
    log = sshd.log("no daemon answers")
    for reason in ("the code is not valid", "not a code", "throttled: ", "locked: ", "no daemon answers"):
        assert reason in log
    assert NEVER not in log


def test_after_a_restart_of_the_daemon_logins_go_on(sshd: Host) -> None:
    code = sshd.code("alice")
    assert sshd.ssh("alice", code) == "in"
    sshd.daemon.kill()
    assert sshd.ssh("alice", sshd.code("alice", 1)) == DENIED
    sshd.daemon.start()
    assert sshd.ssh("alice", code) == DENIED
    assert sshd.ssh("alice", sshd.code("alice", 1)) == "in"


def test_who_guesses_from_one_address_keeps_nobody_out_at_another(sshd: Host) -> None:
    for _ in range(6):
        assert sshd.ssh("alice", NEVER, "127.0.0.2") == DENIED
    assert sshd.ssh("alice", sshd.code("alice"), "127.0.0.2") == DENIED
    assert 'rhost=127.0.0.2 service=sshd reason="throttled: ' in sshd.log("throttled")
    assert sshd.ssh("alice", sshd.code("alice"), "127.0.0.1") == "in"


def test_sshd_hands_no_code_of_root_on_unless_root_may_log_in_by_password(sshd: Host) -> None:
    assert "Permission denied" in sshd.ssh("root", "123456")
    assert "not a code" in sshd.log("user=root")


def test_twenty_log_in_at_once(daemon: Daemon, seal: Seal) -> None:
    with host_with(daemon, seal, *CROWD) as host:
        daemon.start()
        host.start_sshd()
        clients = [host.begin_ssh(user, host.code(user, 1)) for user in CROWD]
        assert [shown(client) for client in clients] == ["in"] * len(CROWD)


def test_of_twenty_logins_at_once_with_one_code_one_succeeds(sshd: Host) -> None:
    code = sshd.code("alice", 1)
    clients = [sshd.begin_ssh("alice", code) for _ in CROWD]
    assert sorted(shown(client) for client in clients) == [DENIED] * (len(CROWD) - 1) + ["in"]

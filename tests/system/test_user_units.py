"""The units of `systemd/user`, run by a user's own manager."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clones import Cloned
from support.documents import MANUAL, block

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

UID = 4242


@pytest.fixture(scope="module")
def host(packages: Path) -> Iterator[Cloned]:
    """A host with the units installed, and a user with a manager."""
    with Cloned(packages) as host:
        host.install()
        host.sh(f"useradd --uid {UID} --create-home ada; install -d -m 0700 -o ada /run/user/{UID}")
        manager = ["--unit=manager", "--uid=ada", "--property=Delegate=yes", "--property=Type=notify"]
        run_time = f"--setenv=XDG_RUNTIME_DIR=/run/user/{UID}"
        host.run(
            "systemd-run", *manager, run_time, "--setenv=HOME=/home/ada", "/lib/systemd/systemd", "--user"
        )
        yield host


def as_ada(host: Cloned, script: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a script as in a login of the user."""
    variables = f"HOME=/home/ada XDG_RUNTIME_DIR=/run/user/{UID} PATH=/usr/local/bin:/usr/bin:/bin"
    ids = f"setpriv --reuid={UID} --regid={UID} --clear-groups"
    return host.sh(f"cd /home/ada; {ids} env -i {variables} bash -euc {shlex.quote(script)}", check=check)


def test_one_user_has_an_agent_of_their_own(host: Cloned) -> None:
    printed = as_ada(host, block(MANUAL, "command: user")).stdout
    assert re.search(r"^\d{6}$", printed, re.MULTILINE)
    assert "/home/ada/.config/pki2fad/host.pem" in printed
    shown = as_ada(host, "systemctl --user show --value --property=ActiveState,StatusText pki2fad").stdout
    assert "active" in shown.split()
    assert "1 account" in shown
    places = f"/run/user/{UID}/pki2fad/socket /home/ada/.local/state/pki2fad/state.db"
    assert host.sh(f"stat --format='%U %a' {places}").stdout.split("\n")[:2] == ["ada 600", "ada 600"]
    assert host.sh("systemctl is-active pki2fad.socket || true").stdout == "inactive\n"


def test_it_reloads_and_comes_back_with_what_it_knew(host: Cloned) -> None:
    as_ada(host, "test -e ~/.config/pki2fad/host.pem || pki2factl init")
    as_ada(host, "systemctl --user start pki2fad.service && systemctl --user reload pki2fad.service")
    code = as_ada(host, "pki2factl generate").stdout.strip()
    as_ada(host, f"pki2factl verify {code}")
    as_ada(host, "systemctl --user restart pki2fad.service")
    assert as_ada(host, f"pki2factl verify {code}", check=False).stdout == "invalid\n"


def test_it_can_do_less_than_its_user(host: Cloned) -> None:
    as_ada(host, "test -e ~/.config/pki2fad/host.pem || pki2factl init")
    pid = as_ada(
        host,
        "systemctl --user start pki2fad.service;"
        " systemctl --user show --value --property=MainPID pki2fad.service",
    ).stdout.strip()
    status = dict(
        line.split(":\t", 1)
        for line in host.sh(f"cat /proc/{pid}/status").stdout.splitlines()
        if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # a filter
    assert int(status["Seccomp_filters"]) > 3
    assert host.sh(f"grep 'Max core file size' /proc/{pid}/limits").stdout.split()[4:6] == ["0", "0"]

"""`systemd/install` on a booted host: the first time, again, and as an upgrade."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import peers
from support.clones import Cloned
from support.daemon import wait_until
from support.documents import MANUAL, block

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

# Clients that ask one after the other, each over a connection of its own; ends with its standard input.
LOAD = """
import select, sys
from pki2fad.client import Client
from pki2fad.errors import ConnectionLost, NotReachable

answered = refused = 0
print("asking", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        with Client() as client:
            client.generate()
        answered += 1
    except NotReachable:
        refused += 1
    except ConnectionLost:  # it was open when the daemon stopped
        pass
print(answered, refused)
"""


@pytest.fixture(scope="module")
def _running(packages: Path) -> Iterator[Cloned]:
    with Cloned(packages) as host:
        host.install_and_start()
        yield host


@pytest.fixture
def running(_running: Cloned) -> Cloned:
    """A host on which it was installed from the clone and runs; the tests share it."""
    _running.sh("systemctl start pki2fad.socket pki2fad.service")
    return _running


def watermark(host: Cloned) -> int:
    (account,) = json.loads(host.ctl("accounts", "--json"))
    return int(account["last_used"])


def spend(host: Cloned) -> str:
    """A code that was accepted once."""
    codes = []

    def is_accepted() -> bool:  # the one of this step may be spent by the test before
        codes.append(host.ctl("generate"))
        return host.run("pki2factl", "verify", codes[-1], check=False).stdout == "valid\n"

    wait_until(is_accepted, "no code is accepted", patience=60)
    return codes[-1]


def is_spent(host: Cloned, code: str) -> bool:
    return host.run("pki2factl", "verify", code, check=False).stdout == "invalid\n"


def venvs(host: Cloned) -> set[str]:
    return set(host.sh("ls -d /opt/pki2fad/venv-*").stdout.split())


def test_the_commands_of_the_readme_lead_to_a_code(clone: Cloned) -> None:
    first, _, rest = block(MANUAL, "command: install").partition("\n")
    clone.install(*first.split()[2:])
    printed = clone.sh(rest)
    assert re.search(r"^\d{6}$", printed.stdout, re.MULTILINE)
    assert "hint: now run: systemctl enable --now pki2fad.socket\n" in printed.stderr
    assert clone.sh("systemctl is-enabled pki2fad.socket").stdout == "enabled\n"


def test_man_pages_and_completions_are_where_they_are_looked_for(running: Cloned) -> None:
    for command in ("man", "fish", "zsh"):
        peers.require(command)
    if not Path("/usr/share/bash-completion/bash_completion").exists():
        peers.missing("bash-completion (apt-get install bash-completion)")
    for page in ("pki2fad", "pki2factl", "pki2fad.toml"):
        assert running.run("man", "--where", page).stdout.startswith("/usr/local/")
    done = running.sh("fish --command \"complete --do-complete 'pki2factl gen'\"")
    assert done.stdout.startswith("generate\t")
    script = "source /usr/share/bash-completion/bash_completion; _completion_loader pki2factl || complete -p"
    assert "pki2factl" in running.run("bash", "-c", f"{script} pki2factl").stdout
    running.run("zsh", "-fc", "autoload -U compinit; compinit -D; [[ -n $_comps[pki2factl] ]]")


def is_state(line: str) -> bool:
    """True for what a daemon that goes on, or is started again, changes."""
    return "state.db" in line or ".log" in line or "/lock " in line


def test_installed_again_it_is_as_before(running: Cloned) -> None:
    def without_venvs() -> list[str]:
        return [line for line in running.tree() if "/venv-" not in line and "/current " not in line]

    running.install()
    before, venvs_before, code = without_venvs(), venvs(running), spend(running)
    running.install()
    assert [line for line in without_venvs() if not is_state(line)] == [
        line for line in before if not is_state(line)
    ]
    assert len(venvs(running)) == len(venvs_before) == 2  # the one in use, and the one before
    assert is_spent(running, code)


def test_an_upgrade_under_load_refuses_nobody_and_forgets_no_code(running: Cloned) -> None:
    running.sh("mkdir -p /etc/systemd/system/pki2fad.service.d")
    running.sh("printf '[Service]\\nNice=5\\n' >/etc/systemd/system/pki2fad.service.d/override.conf")
    running.sh("echo '[minute_log]' >>/etc/pki2fad/pki2fad.toml")
    settings = running.sh("cat /etc/pki2fad/pki2fad.toml").stdout
    running.edit("pki2fad/__init__.py", '"0.', '"99.')
    running.edit("systemd/pki2fad.service", "RestartSec=2s", "RestartSec=3s")
    code, mark, pid = spend(running), watermark(running), running.pid()
    with running.popen("/opt/pki2fad/bin/python", "-I", "-c", LOAD) as load:
        assert load.stdout is not None
        assert load.stdout.readline() == "asking\n"
        running.install()
        answered, refused = map(int, load.communicate("stop")[0].split())
    assert answered > 0
    assert refused == 0
    assert running.pid() not in ("0", pid)
    assert running.ctl("--version").startswith("pki2factl 99.")
    assert json.loads(running.ctl("status", "--json"))["version"].startswith("99.")
    assert watermark(running) == mark
    assert is_spent(running, code)
    shown = running.sh("systemctl show --property=RestartUSec,Nice pki2fad").stdout
    assert set(shown.split()) == {"RestartUSec=3s", "Nice=5"}
    assert running.sh("cat /etc/pki2fad/pki2fad.toml").stdout == settings


def test_a_socket_that_is_another_one_now_is_restarted_too(running: Cloned) -> None:
    running.edit("systemd/pki2fad.socket", "SocketMode=0666", "SocketMode=0660")
    said = running.install().stdout
    assert "restart pki2fad.service pki2fad.socket\n" in said
    assert running.sh("stat --format=%a /run/pki2fad/socket").stdout == "660\n"
    assert re.fullmatch(r"\d{6}", running.ctl("generate"))


# pki2fad.socket and the units beside it as version 0.1.0 had them.
ONE_SOCKET = """
cd /usr/local/lib/systemd/system
systemctl stop pki2fad.service pki2fad.socket pki2fad-root.socket pki2fad-verify.socket
rm -f pki2fad-root.socket pki2fad-verify.socket /run/pki2fad/*
sed -i '/^Wants=/d; /^Backlog=/d; s/^Also=pki2fad-root.*//' pki2fad.socket
sed -i '/^Wants=/d; s/^After=.*/After=pki2fad.socket/' pki2fad.service
systemctl daemon-reload
systemctl start pki2fad.socket pki2fad.service
"""


def test_an_upgrade_of_a_host_with_one_socket_brings_the_other_two(running: Cloned) -> None:
    running.sh(ONE_SOCKET)
    assert running.sh("ls /run/pki2fad").stdout.split() == ["socket"]
    running.install()
    assert running.sh("ls /run/pki2fad").stdout.split() == ["root.sock", "socket", "verify.sock"]
    code = running.ctl("--socket", "/run/pki2fad/root.sock", "generate")
    verified = running.run("pki2factl", "--socket", "/run/pki2fad/verify.sock", "verify", code, check=False)
    assert verified.stdout in {"valid\n", "invalid\n"}  # it may have been spent by another test
    assert running.sh("stat --format=%a /run/pki2fad/root.sock").stdout == "600\n"


def test_an_upgrade_starts_nothing_that_was_stopped(running: Cloned) -> None:
    running.sh("systemctl stop pki2fad.socket pki2fad.service")
    said = running.install().stdout
    assert "restart" not in said
    assert running.state_of("pki2fad.service") == running.state_of("pki2fad.socket") == "inactive"


@pytest.mark.parametrize(
    "trouble", ["no packages", "a syntax error", "settings it does not take", "settings it cannot read"]
)
def test_an_upgrade_that_fails_leaves_what_runs(running: Cloned, trouble: str) -> None:
    variables = {}
    pid, before = running.pid(), venvs(running)
    if trouble == "no packages":
        variables["PIP_FIND_LINKS"] = "/nowhere"
    elif trouble == "a syntax error":
        running.edit("pki2fad/__main__.py", "import argparse\n", "import argparse(\n")
    elif trouble == "settings it cannot read":
        running.sh("chmod 0600 /etc/pki2fad/pki2fad.toml")
    else:
        running.sh("cp /etc/pki2fad/pki2fad.toml /root/; echo 'nonsense = 1' >>/etc/pki2fad/pki2fad.toml")
    done = running.install(check=False, **variables)
    if trouble == "a syntax error":
        running.edit("pki2fad/__main__.py", "import argparse(\n", "import argparse\n")
    elif trouble == "settings it does not take":
        running.sh("mv /root/pki2fad.toml /etc/pki2fad/")
    running.sh("chmod 0644 /etc/pki2fad/pki2fad.toml")
    assert done.returncode == 1
    assert "nothing has changed" in done.stderr
    assert (running.pid(), venvs(running)) == (pid, before)
    assert re.fullmatch(r"\d{6}", running.ctl("generate"))


def test_what_root_tried_first_is_taken_over(clone: Cloned) -> None:
    # What README.md says first.
    pip = "PIP_NO_INDEX=1 PIP_FIND_LINKS=/run/share/wheels PIP_CONFIG_FILE=/dev/null .venv/bin/pip"
    clone.sh(f"cd /root; /usr/bin/python3 -m venv .venv; {pip} install /run/share/clone")
    clone.sh("/root/.venv/bin/pki2factl init && /root/.venv/bin/pki2fad --detach")
    tried = "/root/.venv/bin/pki2factl"
    code = clone.run(tried, "generate").stdout.strip()
    clone.run(tried, "verify", code)
    (account,) = json.loads(clone.run(tried, "accounts", "--json").stdout)
    pid = json.loads(clone.run(tried, "status", "--json").stdout)["pid"]

    done = clone.install(check=False)
    assert done.returncode == 1
    assert f"runs as root, not by systemd (pid {pid}): stop it first" in done.stderr
    clone.sh(f"kill {pid}; tail --pid={pid} --follow /dev/null")

    log = clone.sh("cat /var/log/pki2fad/codes.log").stdout
    assert log

    # What was put there since is not the daemon's.
    clone.sh("touch /var/lib/pki2fad/notes; ln -s /etc/shadow /var/log/pki2fad/codes.a.log")
    clone.sh("ln /etc/hostname /var/log/pki2fad/codes.b.log")
    clone.install()
    clone.sh("systemctl enable --now pki2fad.service")
    assert watermark(clone) == account["last_used"]
    assert clone.run("pki2factl", "verify", code, check=False).returncode != 0
    owners = dict(
        reversed(line.split())
        for line in clone.sh("stat --dereference --format='%U %n' /var/l*/pki2fad /var/l*/pki2fad/*")
        .stdout.strip()
        .splitlines()
    )
    left = {"/var/lib/pki2fad/notes", "/var/log/pki2fad/codes.a.log", "/var/log/pki2fad/codes.b.log"}
    assert {path for path, owner in owners.items() if owner == "root"} == left
    assert set(owners.values()) == {"root", "pki2fad"}
    assert clone.sh("cat /var/log/pki2fad/codes.log").stdout.startswith(log)


def test_with_umask_077_and_another_prefix_everybody_can_ask(clone: Cloned) -> None:
    clone.install("--prefix", "/srv/more/pki2fad", umask="077")
    clone.sh("pki2factl init && systemctl enable --now pki2fad.socket && pki2factl generate")
    nobody = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    assert clone.run(*nobody, "pki2factl", "status").stdout
    assert clone.run(*nobody, "man", "--where", "pki2fad").stdout
    assert "ExecStart={ path=/srv/more/pki2fad/bin/pki2fad" in clone.sh("systemctl show pki2fad").stdout
    assert "/opt/pki2fad" not in "\n".join(clone.tree())

    clone.install("--prefix=/opt/elsewhere")
    assert "/srv/more/pki2fad" not in "\n".join(clone.tree())
    assert re.fullmatch(r"\d{6}", clone.ctl("generate"))
    clone.install()
    assert "link /opt/elsewhere" not in clone.sh("readlink /opt/elsewhere/bin").stdout
    assert "/opt/pki2fad " not in "\n".join(clone.tree())

"""The ten commands of `systemd/README.md`: from a bare host to a login by ssh with a code."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import peers
from support.clones import Cloned
from support.daemon import wait_until
from support.documents import GUIDE, MANUAL, block

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

# What a host has before: sshd, a user who gets in with a key, and nothing that asks for a host's key.
BEFORE = """
systemctl start ssh
useradd --create-home --shell /bin/bash alice
mkdir -p ~/.ssh ~alice/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cp ~/.ssh/id_ed25519.pub ~alice/.ssh/authorized_keys
chown -R alice: ~alice/.ssh
printf 'StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n' >~/.ssh/config
printf 'NumberOfPasswordPrompts 1\n' >>~/.ssh/config
"""


def commands(label: str) -> list[str]:
    return [line.split("#")[0].strip() for line in block(MANUAL, f"command: {label}").splitlines()]


@pytest.fixture
def bare(packages: Path) -> Iterator[Cloned]:
    """A host with sshd and alice."""
    for peer in ("sshd", "sshpass", "qrencode", "apt-get"):
        peers.require(peer)
    with Cloned(packages) as host:
        host.sh(BEFORE)
        yield host


def reload_sshd(host: Cloned, script: str) -> None:
    """Run what reloads sshd, and wait until it listens with its new settings."""

    def starts() -> int:
        return host.sh("journalctl -u ssh -o cat").stdout.count("Server listening on")

    before = starts()
    host.sh(script)
    wait_until(lambda: starts() > before, "sshd was not reloaded")


def log_in(host: Cloned, command: str, code: str) -> str:
    """What somebody sees who types this code; sshpass repeats the prompts."""
    script = f"export SSHPASS={shlex.quote(code)}; echo 'echo in' | sshpass -v -e {command} 2>&1 || true"
    return host.sh(script).stdout


def test_ten_commands_lead_to_a_login_with_a_code_and_there_is_a_way_back(bare: Cloned) -> None:
    lines = commands("login")
    assert len(lines) == 10
    (login,) = commands("her login")
    login = login.replace("HOST", "localhost")  # root here is alice on another machine: the key is root's
    with_the_key_alone = f"echo 'echo in' | {login}"
    assert "in\n" in bare.sh(with_the_key_alone).stdout
    bare.sh("rm -f /etc/ssh/sshd_config.d/00-pki2fad.conf")
    secret = None
    for line in lines:
        script = f"cd /run/share/clone && {line}"
        if line == "./systemd/install":
            bare.install()
        elif "reload" in line:
            reload_sshd(bare, script)
        else:
            bare.sh(script)
        if "--uri-out" in line:
            secret = re.search("secret=([A-Z2-7]+)", (bare.clone / "alice.uri").read_text())
    assert secret is not None
    assert not (bare.clone / "alice.uri").exists()
    code = bare.sh(f"oathtool --base32 --totp {secret[1]}").stdout.strip()
    assert "in\n" not in log_in(bare, login, "000000")
    seen = log_in(bare, login, code)
    assert "Type the code that your authenticator shows." in seen
    assert "Password: " in seen
    assert "in\n" in seen
    assert "in\n" not in log_in(bare, login, code)  # it is spent
    log = bare.sh("journalctl -u pki2fad -o cat").stdout
    assert "origin=127.0.0.1" in log or "origin=::1" in log
    reload_sshd(bare, "\n".join(commands("way back")))
    assert "in\n" in bare.sh(with_the_key_alone).stdout


def test_the_other_sockets_are_switched_on_as_it_says(bare: Cloned) -> None:
    bare.install_and_start()
    bare.sh("\n".join(commands("sockets")))
    listening = bare.sh("ls /run/pki2fad").stdout.split()
    assert listening == ["credential.sock", "root.sock", "socket", "verify.sock"]
    code = bare.ctl("generate")
    verified = bare.run("pki2factl", "--socket", "/run/pki2fad/verify.sock", "verify", code)
    assert verified.stdout == "valid\n"


def test_a_backup_is_made_as_the_guide_says(bare: Cloned) -> None:
    bare.install_and_start()
    script = block(GUIDE, "example: backup").replace(" --protect", "")  # there is no terminal to ask
    bare.sh(f"cd /run/share && cp /etc/pki2fad/host.pub.pem . && {script}")
    assert (bare.share / "accounts.backup").stat().st_size > 0

"""The key's passphrase as systemd passes it, in a directory, and what `pki2factl credential` prints."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, as_user, ctl
from support.peers import require_root

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

SEED = b"a seed of the passphrase tests.."
PASSPHRASE = "correct horse"


@pytest.fixture
def protected(daemon: Daemon, host_key: PrivateKey, seal: Callable[[bytes], bytes]) -> Daemon:
    """A daemon, not started yet, whose key has a passphrase."""
    daemon.install_key(rsakeys.private_pem(host_key, PASSPHRASE.encode()))
    daemon.deliver("default", seal(SEED))
    return daemon


def passed(daemon: Daemon, passphrase: bytes) -> str:
    """A directory with the credential `host.passphrase`."""
    directory = daemon.root / "credentials"
    directory.mkdir(exist_ok=True)
    (directory / "host.passphrase").write_bytes(passphrase)
    return str(directory)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"], ids=["bare", "line", "dos"])
def test_a_protected_key_is_unlocked_at_the_start(protected: Daemon, end: bytes) -> None:
    protected.start(CREDENTIALS_DIRECTORY=passed(protected, PASSPHRASE.encode() + end))
    assert protected.ctl("generate").returncode == 0
    assert "locked" not in protected.log()


@pytest.mark.slow
def test_unlock_without_a_passphrase_takes_it_again(protected: Daemon) -> None:
    protected.start(CREDENTIALS_DIRECTORY=passed(protected, PASSPHRASE.encode()))
    assert protected.ctl("lock").returncode == 0
    assert protected.ctl("generate").returncode == 5
    assert protected.ctl("unlock").returncode == 0
    assert protected.ctl("generate").returncode == 0


@pytest.mark.parametrize("wrong", [b"another horse", b"", PASSPHRASE.encode() + b" \n"])
def test_a_wrong_one_leaves_it_locked_and_is_told(protected: Daemon, wrong: bytes) -> None:
    protected.spawn(CREDENTIALS_DIRECTORY=passed(protected, wrong))
    (status,) = [line for line in protected.wait_for("READY=1") if line.startswith("STATUS=")]
    assert "locked (the credential host.passphrase does not open the key)" in status
    assert "is not that of the credential host.passphrase; unlock with: pki2factl unlock" in protected.log()
    asked = protected.ctl("unlock")
    assert (asked.returncode, "a passphrase is needed" in asked.stderr) == (6, True)
    assert protected.ctl("unlock", "--stdin", input=PASSPHRASE).returncode == 0
    assert protected.ctl("generate").returncode == 0
    assert "horse" not in protected.log()


def test_a_key_without_a_passphrase_needs_no_credential_and_minds_none(daemon: Daemon) -> None:
    daemon.start(CREDENTIALS_DIRECTORY=passed(daemon, b"another horse"))
    assert "locked" not in daemon.log()


def credential(daemon: Daemon, *options: str, path: str = "") -> tuple[int, str, str]:
    env = {"PATH": path} if path else {}
    key = daemon.config_dir / "host.pem"
    done = daemon.ctl("credential", "--private", str(key), *options, env=env)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("sealed_with", ["host", "tpm2", "host+tpm2"])
def test_the_steps_are_printed_and_nothing_is_done(daemon: Daemon, sealed_with: str) -> None:
    status, script, said = credential(daemon, f"--with={sealed_with}")
    assert (status, said) == (0, "")
    assert script.count("systemd-creds encrypt ") == 1
    key = daemon.config_dir / "host.pem"
    assert f"systemd-creds encrypt --with-key={sealed_with} --name=host.pem {key} " in script
    assert "LoadCredentialEncrypted=host.pem:/etc/credstore.encrypted/pki2fad.host.pem\n" in script
    assert "passphrase" not in script
    assert key.exists()


def test_for_a_protected_key_its_passphrase_is_sealed_too(protected: Daemon) -> None:
    _, script, _ = credential(protected)
    assert "| systemd-creds encrypt --with-key=host --name=host.passphrase - " in script
    shown = json.loads(credential(protected, "--json")[1])
    assert shown["drop_in"] == (
        "[Service]\n"
        "LoadCredentialEncrypted=host.pem:/etc/credstore.encrypted/pki2fad.host.pem\n"
        "LoadCredentialEncrypted=host.passphrase:/etc/credstore.encrypted/pki2fad.host.passphrase\n"
    )


def test_a_user_is_told_to_run_it_as_root(short_path: Path, host_key: PrivateKey) -> None:
    command = as_user(4711)
    short_path.chmod(0o755)
    key = short_path / "key.pem"
    key.write_bytes(rsakeys.private_pem(host_key))
    key.chmod(0o644)
    for what in ("--apply", "--shred"):
        done = ctl(short_path, "credential", f"--private={key}", what, command=command)
        assert (done.returncode, done.stdout) == (7, "")
        assert done.stderr.endswith("run this as root\n")


def test_without_systemd_creds_it_says_so_and_the_key_stays(daemon: Daemon, tmp_path: Path) -> None:
    require_root()
    status, printed, said = credential(daemon, "--apply", "--shred", path=str(tmp_path))
    assert (status, printed) == (6, "")
    assert "there is no systemd-creds here" in said
    assert os.path.exists(daemon.config_dir / "host.pem")

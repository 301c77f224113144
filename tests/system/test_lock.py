"""Locking: without its keys the daemon answers `locked`, and gives nothing away."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import memory
from support.daemon import Daemon, as_user, ctl, wait_until
from support.raw import Seed, connect

from pki2fad.client import Client
from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadRequest, Locked

PASSPHRASE = "correct horse, battery"
STRANGER = 4711


@pytest.fixture
def protected(daemon: Daemon, host_key: PrivateKey) -> Daemon:
    """A daemon with a sealed seed in seeds.d and a host key that needs a passphrase, not started."""
    daemon.install_key(rsakeys.private_pem(host_key, PASSPHRASE.encode()))
    return daemon


def calls(client: Client) -> list[Callable[[], Any]]:
    """One call of every method that needs the keys."""
    return [
        client.generate,
        lambda: client.verify("123456"),
        lambda: client.load(b""),
        client.remove,
        client.accounts,
        lambda: client.resync("123456", "654321"),
        client.enroll,
        lambda: client.enroll_confirm("123456"),
        client.recovery_create,
        client.clock_accept,
        lambda: client.backup(b""),
        lambda: client.restore(b""),
    ]


def assert_locked(client: Client) -> None:
    for call in calls(client):
        with pytest.raises(Locked):
            call()
    assert client.status()["locked"] is True


def test_a_protected_key_has_the_daemon_start_locked_until_it_gets_the_passphrase(
    protected: Daemon, host_key: PrivateKey
) -> None:
    seed = Seed()
    protected.deliver("default", seed.sealed(host_key))
    protected.spawn()
    assert any(line.startswith("STATUS=0 accounts, locked") for line in protected.wait_for("READY=1"))
    with protected.client() as client:
        assert_locked(client)
        with pytest.raises(Locked, match="passphrase"):
            client.unlock()
        for wrong in ("", PASSPHRASE.upper(), PASSPHRASE + "\n"):
            with pytest.raises(BadRequest, match="does not open"):
                client.unlock(wrong)
        assert_locked(client)
        client.unlock(PASSPHRASE)
        protected.wait_for("STATUS=1 account, unlocked, clock not set by systemd-timesyncd")
        wait_until(lambda: client.status()["accounts"] == 1, "the file of seeds.d was not applied")
        code = client.generate()
        assert code.code == seed.code(code.step)
        assert client.verify(code.code)
        client.lock()
        assert_locked(client)
        client.unlock(PASSPHRASE)
        assert not client.verify(code.code)
    assert PASSPHRASE not in protected.log()


def test_the_state_of_a_locked_daemon_outlives_a_restart(protected: Daemon, host_key: PrivateKey) -> None:
    seed = Seed()
    protected.start()
    with protected.client() as client:
        client.unlock(PASSPHRASE)
        client.load(seed.sealed(host_key))
        code = seed.code()
        assert client.verify(code)
        client.lock()
        protected.kill()
        protected.start()
        assert_locked(client)
        client.unlock(PASSPHRASE)
        assert not client.verify(code)


def test_the_status_of_a_locked_daemon_never_says_that_verify_answers(
    protected: Daemon, host_key: PrivateKey
) -> None:
    protected.start(PKI2FAD_BOOT_ID="before")
    with protected.client() as client:
        client.unlock(PASSPHRASE)
        seed = Seed()
        client.load(seed.sealed(host_key))
        assert client.verify(seed.code())
    protected.kill()
    protected.start(PKI2FAD_BOOT_ID="after")
    shown = protected.ctl("status").stdout
    assert "\nverify: locked; after an unlock it answers for all accounts from " in shown
    assert "\nverify answers" not in shown


def test_the_commands_lock_and_unlock(protected: Daemon) -> None:
    protected.start()
    assert "locked; unlock with" in protected.ctl("status").stdout
    refused = protected.ctl("generate")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "pki2factl unlock" in refused.stderr
    assert protected.ctl("unlock", "--stdin", input="wrong\n").returncode == 6
    assert "no terminal" in protected.ctl("unlock").stderr
    done = protected.ctl("unlock", "--stdin", input=f"{PASSPHRASE}\n")
    assert (done.returncode, done.stdout) == (0, "unlocked\n")
    assert protected.ctl("generate").returncode == 6  # there is no account
    assert json.loads(protected.ctl("lock", "--json").stdout) == {"locked": True}
    assert protected.ctl("generate").returncode == 5


def test_a_key_without_a_passphrase_is_locked_and_unlocked_too(daemon: Daemon, host_key: PrivateKey) -> None:
    daemon.start()
    with daemon.client() as client:
        client.load(Seed().sealed(host_key))
        client.lock()
        client.lock()
        assert_locked(client)
        client.unlock()
        client.unlock()
        client.generate()


def test_who_may_not_administer_neither_locks_nor_unlocks(daemon: Daemon) -> None:
    user = as_user(STRANGER)
    daemon.root.chmod(0o755)
    daemon.start()
    with connect(daemon.socket) as peer:
        for command in ("lock", "unlock"):
            assert ctl(daemon.root, "--socket", str(daemon.socket), command, command=user).returncode == 4
        assert peer.call("status")["locked"] is False


@pytest.mark.slow
def test_nobody_who_asks_anything_locks_the_daemon_after_a_while(
    daemon: Daemon, host_key: PrivateKey
) -> None:
    daemon.configure("[lock]\nidle = 2\n")
    daemon.start()
    with daemon.client() as client:
        client.load(Seed().sealed(host_key))
        until = time.monotonic() + 3
        while time.monotonic() < until:  # use keeps it unlocked
            client.generate()
        wait_until(lambda: client.status()["locked"], "it did not lock")  # status is no use
        assert "nobody asked" in daemon.log()
        client.unlock()
        client.generate()


def test_a_key_file_that_is_damaged_meanwhile_leaves_the_daemon_locked(daemon: Daemon) -> None:
    daemon.start()
    key = daemon.config_dir / "host.pem"
    pem = key.read_bytes()
    with daemon.client() as client:
        client.lock()
        key.write_bytes(pem[:100])
        done = daemon.ctl("unlock")
        assert done.returncode == 5
        assert "stays locked" in done.stderr
        key.write_bytes(pem)
        client.unlock()


def test_the_minute_log_of_a_daemon_that_starts_locked_says_so(
    protected: Daemon, host_key: PrivateKey
) -> None:
    protected.deliver("default", Seed().sealed(host_key))
    protected.start()
    wait_until(protected.codes_log.exists, "there is no minute log")
    assert "no code: locked: " in protected.codes_log.read_text()
    with protected.client() as client:
        client.unlock(PASSPHRASE)
    wait_until(lambda: "2FA Code: " in protected.codes_log.read_text(), "there is no code")


def test_after_a_lock_the_master_key_is_nowhere_in_memory(daemon: Daemon, host_key: PrivateKey) -> None:
    daemon.start()
    with daemon.client() as client:
        client.load(Seed().sealed(host_key))
        client.generate()
        key = memory.master_key(daemon.state_file, host_key)
        client.lock()
        assert memory.hits(daemon.pid, {"master key": key}) == {}


def test_after_a_lock_no_prime_of_the_hosts_key_is_in_memory(daemon: Daemon, host_key: PrivateKey) -> None:
    prime = host_key.private_numbers().p
    in_openssl = prime.to_bytes((prime.bit_length() + 7) // 8, sys.byteorder)  # as its big numbers are
    daemon.start()
    assert memory.hits(daemon.pid, {"prime": in_openssl})
    with daemon.client() as client:
        client.lock()
    assert memory.hits(daemon.pid, {"prime": in_openssl}) == {}


def test_a_protected_key_is_made_and_used_by_the_commands(tmp_path: Path) -> None:
    made = ctl(
        tmp_path,
        "keygen",
        "--private=host.pem",
        "--bits=3072",
        "--protect",
        "--stdin",
        input="a b c d e f \n",
    )
    assert made.returncode == 0, made.stderr
    pem = (tmp_path / "host.pem").read_bytes()
    assert rsakeys.load_private(pem, "", b"a b c d e f ").key_size == 3072


@pytest.mark.parametrize("passphrase", ["", "a b c d e f", "äöüäöüäöüäö"])
def test_a_passphrase_under_12_characters_needs_to_be_called_weak(tmp_path: Path, passphrase: str) -> None:
    keygen = ("keygen", "--private=host.pem", "--bits=3072", "--protect", "--stdin")
    done = ctl(tmp_path, *keygen, input=f"{passphrase}\n")
    assert (done.returncode, list(tmp_path.iterdir())) == (6, [])
    assert not passphrase or ("at least 12" in done.stderr and passphrase not in done.stderr)
    done = ctl(tmp_path, *keygen, "--weak", input=f"{passphrase}\n")
    assert done.returncode == (0 if passphrase else 6), done.stderr

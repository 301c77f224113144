"""`pki2factl rotate-key`: another host key and another master key, under a daemon that goes on."""

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from support import memory
from support.daemon import Daemon, as_user, ctl
from support.peers import require_root
from support.raw import Seed

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadRequest, Locked
from pki2fad.host import locks

BITS = "--bits=3072"


class Rotated:
    """A daemon with two accounts, and what is known of them."""

    def __init__(self, daemon: Daemon, key: PrivateKey) -> None:
        self.daemon = daemon
        self.private = daemon.config_dir / "host.pem"
        self.public = daemon.config_dir / "host.pub.pem"
        self.public.write_bytes(rsakeys.public_pem(key.public_key()))
        self.seeds = {"default": Seed(), "gone": Seed()}
        self.used: dict[str, str] = {}
        daemon.start()
        with daemon.client() as client:
            for name, seed in self.seeds.items():
                client.load(seed.sealed(key), name)
                self.used[name] = seed.code()
                assert client.verify(self.used[name], name)
            client.remove("gone")

    def rotate(self, *more: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return self.daemon.ctl("rotate-key", f"--private={self.private}", BITS, *more, **options)

    def key(self) -> PrivateKey:
        """The key in the file."""
        return rsakeys.load_private(self.private.read_bytes(), "")

    def check(self) -> None:
        """Codes are made, and none that was used is good again, of the removed account neither."""
        with self.daemon.client() as client:
            code = client.generate()
            assert code.code == self.seeds["default"].code(code.step)
            client.load(self.seeds["gone"].sealed(self.key()), "gone", replace=True)
            for name, used in self.used.items():
                assert not client.verify(used, name)
            client.remove("gone")

    def files(self) -> set[str]:
        return {path.name for path in self.daemon.config_dir.iterdir()}


@pytest.fixture
def rotated(daemon: Daemon, host_key: PrivateKey) -> Rotated:
    return Rotated(daemon, host_key)


def test_the_new_key_opens_everything_and_the_old_one_nothing(rotated: Rotated, host_key: PrivateKey) -> None:
    daemon = rotated.daemon
    before = memory.master_key(daemon.state_file, host_key)
    with closing(sqlite3.connect(daemon.state_file)) as database:
        ((wrapped, sealed),) = database.execute("SELECT wrapped, sealed FROM keyslots, accounts")
    pid = daemon.pid
    done = rotated.rotate()
    assert done.returncode == 0, done.stderr
    assert rsakeys.fingerprint(rotated.key().public_key()) in done.stdout
    assert f"dropped:     {rsakeys.fingerprint(host_key.public_key())}" in done.stdout
    assert "the old key still opens" in done.stderr
    assert rotated.public.read_bytes() == rsakeys.public_pem(rotated.key().public_key())
    assert (rotated.private.stat().st_mode & 0o777, daemon.pid) == (0o600, pid)
    assert rotated.files() == {"host.pem", "host.pub.pem"}
    after = memory.master_key(daemon.state_file, rotated.key())
    assert after != before
    content = b"".join(path.read_bytes() for path in daemon.state_dir.iterdir())
    assert wrapped not in content  # freed pages and the log too
    assert sealed not in content
    rotated.check()
    daemon.kill()
    daemon.start()
    rotated.check()


@pytest.mark.slow
def test_the_old_master_key_and_the_new_one_are_nowhere_in_memory(
    rotated: Rotated, host_key: PrivateKey
) -> None:
    before = memory.master_key(rotated.daemon.state_file, host_key)
    assert rotated.rotate().returncode == 0
    rotated.check()
    after = memory.master_key(rotated.daemon.state_file, rotated.key())
    found = memory.hits(rotated.daemon.pid, {"old": before, "new": after})
    # Digests stay keyed with the first one, in the same page.
    secret = "/secretmem" in Path(f"/proc/{rotated.daemon.pid}/maps").read_text()
    assert found == ({} if secret else {"old": 1, "new": 1})


@pytest.mark.slow
def test_it_can_be_done_again_and_again(rotated: Rotated) -> None:
    for _ in range(3):
        assert rotated.rotate().returncode == 0
        rotated.check()
    rows = json.loads(rotated.daemon.ctl("recipients", "list", "--json").stdout)
    assert rows == [{"fingerprint": rsakeys.fingerprint(rotated.key().public_key()), "current": True}]


def test_the_new_key_can_be_protected(rotated: Rotated) -> None:
    done = rotated.rotate("--protect", "--stdin", input="correct horse\n")
    assert done.returncode == 0, done.stderr
    assert rsakeys.load_private(rotated.private.read_bytes(), "", b"correct horse").key_size == 3072
    with rotated.daemon.client() as client:
        client.lock()
        with pytest.raises(Locked):
            client.unlock()
        client.unlock("correct horse")
        assert client.generate().code
    assert "horse" not in rotated.daemon.log()


def test_a_short_passphrase_is_refused_before_a_key_is_made(rotated: Rotated) -> None:
    done = rotated.rotate("--protect", "--stdin", input="horse\n")
    assert (done.returncode, "--weak" in done.stderr) == (6, True)
    assert rotated.files() == {"host.pem", "host.pub.pem"}
    rotated.check()
    assert rotated.rotate("--protect", "--weak", "--stdin", input="horse\n").returncode == 0
    assert rsakeys.load_private(rotated.private.read_bytes(), "", b"horse").key_size == 3072


@pytest.mark.slow
def test_status_tells_administrators_to_renew_a_key_that_is_cheap_to_guess(rotated: Rotated) -> None:
    before = BestAvailableEncryption(b"correct horse")  # as pki2fad 0.1.0 protected keys
    key = rotated.key()
    rotated.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, before))
    advice = "renew the key with: pki2factl rotate-key"
    assert advice in rotated.daemon.ctl("status").stdout
    rotated.daemon.root.chmod(0o755)
    rotated.daemon.socket.chmod(0o666)
    told = rotated.daemon.ctl("status", "--json", command=as_user(4711)).stdout
    assert "cheap_passphrase" not in json.loads(told)
    assert rotated.rotate("--stdin", input="correct horse\n").returncode == 0
    assert advice not in rotated.daemon.ctl("status").stdout
    assert json.loads(rotated.daemon.ctl("status", "--json").stdout)["cheap_passphrase"] is False


def protected(rotated: Rotated) -> Rotated:
    assert rotated.rotate("--protect", "--stdin", input="correct horse\n").returncode == 0
    return rotated


@pytest.mark.slow
def test_a_protected_key_is_followed_by_a_protected_one(rotated: Rotated) -> None:
    protected(rotated)
    before = rotated.private.read_bytes()
    asked = rotated.rotate()
    assert (asked.returncode, rotated.private.read_bytes()) == (6, before)  # there is no terminal to ask at
    assert "passphrase" in asked.stderr
    assert rotated.files() == {"host.pem", "host.pub.pem"}
    assert rotated.rotate("--stdin", input="correct battery\n").returncode == 0
    assert rsakeys.load_private(rotated.private.read_bytes(), "", b"correct battery").key_size == 3072


@pytest.mark.slow
def test_a_protected_key_is_followed_by_an_unprotected_one_only_by_word(rotated: Rotated) -> None:
    done = protected(rotated).rotate("--no-protect")
    assert done.returncode == 0, done.stderr
    rotated.check()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["made", "handed over", "in place", "published"])
def test_a_protected_key_that_was_interrupted_is_finished_without_a_terminal(
    rotated: Rotated, stage: str
) -> None:
    interrupt(rotated, stage, passphrase=b"correct horse")
    done = rotated.rotate("--protect", "--stdin", input="correct horse\n")
    assert done.returncode == 0, done.stderr
    assert rsakeys.load_private(rotated.private.read_bytes(), "", b"correct horse").key_size == 3072
    assert len(json.loads(rotated.daemon.ctl("recipients", "list", "--json").stdout)) == 1


@pytest.mark.slow
def test_a_daemon_that_went_back_to_the_old_key_is_handed_the_new_one_again(rotated: Rotated) -> None:
    interrupt(rotated, "handed over")
    rotated.daemon.kill()
    rotated.daemon.start()
    coming = rotated.private.with_name("host.next.pem")
    os.link(rotated.private, rotated.private.with_name("host.old.pem"))
    coming.rename(rotated.private)
    done = rotated.rotate()
    assert done.returncode == 0, done.stderr
    assert rotated.files() == {"host.pem", "host.pub.pem"}
    rotated.check()


def test_of_two_at_once_one_is_refused_and_changes_nothing(rotated: Rotated) -> None:
    before = rotated.private.read_bytes()
    with locks.one_at_a_time(str(rotated.daemon.config_dir), "is a test"):
        done = rotated.rotate()
    assert done.returncode != 0
    assert "another process rotates a key" in done.stderr
    assert (rotated.private.read_bytes(), rotated.files()) == (before, {"host.pem", "host.pub.pem"})
    assert rotated.rotate().returncode == 0


def test_the_new_key_belongs_to_the_owner_of_the_old_one(rotated: Rotated) -> None:
    require_root()  # to give files to others
    os.chown(rotated.private, 0, 4711)
    assert rotated.rotate().returncode == 0
    assert (rotated.private.stat().st_uid, rotated.private.stat().st_gid) == (0, 4711)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["made", "handed over", "in place", "published"])
@pytest.mark.parametrize("restart", [False, True], ids=["the daemon goes on", "the daemon is killed too"])
def test_whenever_it_is_interrupted_the_daemon_starts_and_another_run_does_the_rest(
    rotated: Rotated, stage: str, restart: bool
) -> None:
    daemon = rotated.daemon
    old = rotated.private.read_bytes()
    interrupt(rotated, stage)
    assert (rotated.private.read_bytes() == old) is (stage in ("made", "handed over"))
    if restart:
        daemon.kill()
        daemon.start()
    with daemon.client() as client:
        assert client.generate().code
        assert not client.verify(rotated.used["default"])
    done = rotated.rotate()
    assert done.returncode == 0, done.stderr
    assert rotated.private.read_bytes() != old
    assert rotated.files() == {"host.pem", "host.pub.pem"}
    assert len(json.loads(daemon.ctl("recipients", "list", "--json").stdout)) == 1
    rotated.check()
    daemon.kill()
    daemon.start()
    rotated.check()


def interrupt(rotated: Rotated, stage: str, passphrase: bytes = b"") -> None:
    """Do what the command does up to a stage, by its own parts, and then no more."""
    coming = rotated.private.with_name("host.next.pem")
    key = rsakeys.generate_key(3072)
    coming.touch(mode=0o600)
    coming.write_bytes(rsakeys.private_pem(key, passphrase))
    if stage == "made":
        return
    with rotated.daemon.client() as client:
        client.rotate(rsakeys.private_pem(key))
        if stage == "handed over":
            return
        os.link(rotated.private, rotated.private.with_name("host.old.pem"))
        coming.rename(rotated.private)
        if stage == "published":
            rotated.public.write_bytes(rsakeys.public_pem(key.public_key()))


def test_while_both_keys_open_the_state_seeds_for_both_are_loaded(
    rotated: Rotated, host_key: PrivateKey
) -> None:
    key = rsakeys.generate_key(3072)
    with rotated.daemon.client() as client:
        client.rotate(rsakeys.private_pem(key))
        assert [slot["current"] for slot in client.recipients()] == [True, False]
        for name, private in (("old", host_key), ("new", key)):
            seed = Seed()
            client.load(seed.sealed(private), name)
            code = client.generate(name)
            assert code.code == seed.code(code.step)


@pytest.mark.slow
def test_nothing_of_a_replaced_row_stays_in_the_files(daemon: Daemon, host_key: PrivateKey) -> None:
    rotated = Rotated(daemon, host_key)
    names = [f"{'x' * (number % 40)}{number:04}" for number in range(600)]
    with daemon.client() as client:
        for number, name in enumerate(names):  # rows of many sizes, of which some are rewritten and some go
            seed = bytearray(os.urandom(16 + number % 48))
            client.load(sealing.seal_seed(host_key.public_key(), seed), name)
        for name in names[:200]:
            client.load(Seed().sealed(host_key), name, successor=True)
        for name in names[100:180]:
            client.remove(name)
    with closing(sqlite3.connect(daemon.state_file)) as database:
        old = [
            row[0]
            for row in database.execute("SELECT sealed FROM accounts UNION SELECT sealed FROM successors")
        ]
    assert rotated.rotate().returncode == 0
    content = b"".join(path.read_bytes() for path in daemon.state_dir.iterdir())
    pieces = {content[start : start + 16] for start in range(len(content) - 15)}
    assert not [
        row for row in old if any(row[start : start + 16] in pieces for start in range(len(row) - 15))
    ]


def test_after_a_restart_with_the_old_key_its_slot_is_not_the_one_that_stays(rotated: Rotated) -> None:
    new = rsakeys.generate_key(3072)
    with rotated.daemon.client() as client:
        fingerprint = client.rotate(rsakeys.private_pem(new))
    rotated.daemon.kill()
    rotated.daemon.start()
    with rotated.daemon.client() as client:
        with pytest.raises(BadRequest, match="meanwhile"):
            client.rotate_finish(fingerprint)
        assert len(client.recipients()) == 2
    rotated.check()


def test_what_an_interrupted_run_left_is_not_taken_for_a_protected_key(rotated: Rotated) -> None:
    interrupt(rotated, "made")
    before = rotated.private.read_bytes()
    done = rotated.rotate("--protect", "--stdin", input="correct horse\n")
    assert (done.returncode, rotated.private.read_bytes()) == (6, before)
    assert "has no passphrase" in done.stderr
    assert rotated.rotate().returncode == 0


def test_what_a_killed_run_was_writing_is_destroyed(rotated: Rotated) -> None:
    rotated.private.with_name("host.next.pem.4711.tmp").write_text("a private key")
    assert rotated.rotate().returncode == 0
    assert rotated.files() == {"host.pem", "host.pub.pem"}


def test_a_key_behind_a_symbolic_link_is_rotated_where_it_is(rotated: Rotated) -> None:
    safe = rotated.daemon.root / "safe"
    safe.mkdir()
    rotated.private.rename(safe / "host.pem")
    rotated.private.symlink_to(safe / "host.pem")
    before = (safe / "host.pem").read_bytes()
    for _ in range(2):
        done = rotated.rotate()
        assert done.returncode == 0, done.stderr
        rotated.check()
    assert rotated.private.is_symlink()
    assert [path.name for path in safe.iterdir()] == ["host.pem"]
    assert (safe / "host.pem").read_bytes() != before


def test_a_key_that_is_not_the_daemons_is_refused_before_anything_is_made(
    rotated: Rotated, other_key: PrivateKey, tmp_path: Path
) -> None:
    private = tmp_path / "other.pem"
    private.write_bytes(rsakeys.private_pem(other_key))
    (tmp_path / "other.pub.pem").write_bytes(rsakeys.public_pem(other_key.public_key()))
    done = rotated.daemon.ctl("rotate-key", f"--private={private}", BITS)
    assert (done.returncode, done.stdout) == (6, "")
    assert "the daemon uses" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"other.pem", "other.pub.pem"}
    rotated.check()


def test_what_is_no_key_or_the_same_key_is_refused(rotated: Rotated, host_key: PrivateKey) -> None:
    with rotated.daemon.client() as client:
        for bad in (b"", b"-----BEGIN PRIVATE KEY-----\n", rsakeys.private_pem(host_key)):
            with pytest.raises(BadRequest):
                client.rotate(bad)
    rotated.check()


def test_who_may_not_administer_may_not_rotate(rotated: Rotated) -> None:
    user = as_user(4711)
    rotated.daemon.root.chmod(0o755)
    for command in (["recipients", "list"], ["rotate-key", f"--private={rotated.private}"]):
        done = ctl(rotated.daemon.root, "--socket", str(rotated.daemon.socket), *command, command=user)
        assert (done.returncode, done.stdout) == (4, "")

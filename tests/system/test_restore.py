"""`restore`: on the same host and on another; no code is good twice, and a damaged backup changes nothing."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.daemon import PKI2FACTL, Daemon, wait_until
from support.preload import Clock, environment
from support.raw import Seed, connect

from pki2fad.client import AsyncClient
from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import Unavailable
from pki2fad.wire import messages


@pytest.fixture(autouse=True)
def files(daemon: Daemon, host_key: PrivateKey, other_key: PrivateKey) -> Path:
    """A directory with public keys, and the offline private key."""
    (daemon.root / "host.pub.pem").write_bytes(rsakeys.public_pem(host_key.public_key()))
    (daemon.root / "offline.pub.pem").write_bytes(rsakeys.public_pem(other_key.public_key()))
    (daemon.root / "offline.pem").write_bytes(rsakeys.private_pem(other_key))
    return daemon.root


def start(daemon: Daemon, clock: Clock) -> None:
    daemon.start(**environment(clock))


def rows(daemon: Daemon) -> list[str]:
    """All of the state file."""
    with contextlib.closing(sqlite3.connect(daemon.state_file)) as database:
        return list(database.iterdump())


def backed_up(daemon: Daemon, key: str = "host.pub.pem", file: str = "all.backup") -> Path:
    done = daemon.ctl("backup", f"--to={key}", file)
    assert done.returncode == 0, done.stderr
    return daemon.root / file


def test_a_new_state_of_the_same_host_gets_its_accounts_back_and_no_code_is_good_twice(
    daemon: Daemon, clock: Clock, host_key: PrivateKey
) -> None:
    start(daemon, clock)
    before, after = Seed(), Seed()
    step = int(clock.now()) // 30
    codes = {name: seed.code(step) for name, seed in (("before", before), ("after", after))}
    with daemon.client() as client:
        client.load(before.sealed(host_key), "before")
        client.load(after.sealed(host_key), "after")
        assert client.verify(codes["before"], "before")
        backed_up(daemon)
        assert client.verify(codes["after"], "after")
    daemon.stop()
    shutil.rmtree(daemon.state_dir)
    start(daemon, clock)
    done = daemon.ctl("restore", "all.backup")
    assert (done.returncode, done.stdout) == (
        0,
        "2 accounts in the backup, 2 changed\nrestored before\nrestored after\n",
    )
    assert "unavailable" in done.stderr
    for name, code in codes.items():
        with daemon.client() as client, pytest.raises(Unavailable):
            client.verify(code, name)
    daemon.kill()  # what is burnt is on record
    start(daemon, clock)
    with daemon.client() as client:
        until = client.status()["unavailable_until"]
        assert 0 < until - clock.now() <= 60
        clock.set(until)
        for name, code in codes.items():
            assert not client.verify(code, name)
        assert client.verify(after.code(until // 30), "after")


def test_another_host_restores_what_was_made_for_its_key(
    daemon: Daemon, elsewhere: Daemon, clock: Clock, host_key: PrivateKey
) -> None:
    start(daemon, clock)
    start(elsewhere, clock)
    seed = Seed(digits=8)
    code = seed.code(int(clock.now()) // 30 + 1)
    with daemon.client() as client:
        client.load(seed.sealed(host_key), "deploy", digits=8)
        path = backed_up(daemon, "offline.pub.pem")
        assert client.verify(code, "deploy")
    done = elsewhere.ctl("restore", "--json", str(path))
    assert json.loads(done.stdout) == {"accounts": 1, "changed": ["deploy"]}
    with elsewhere.client() as client:
        with pytest.raises(Unavailable) as refused:
            client.verify(code, "deploy")
        assert refused.value.retry_after is not None
        assert refused.value.retry_after <= 60
        until = client.status()["unavailable_until"]
        clock.set(until)
        assert not client.verify(code, "deploy")
        assert client.verify(seed.code(until // 30), "deploy")


def test_a_backup_for_an_offline_key_is_restored_with_that_key(
    daemon: Daemon, files: Path, host_key: PrivateKey
) -> None:
    daemon.start()
    seed = Seed()
    with daemon.client() as client:
        client.load(seed.sealed(host_key))
        path = backed_up(daemon, "offline.pub.pem")
        client.remove()
    before = path.read_bytes()
    refused = daemon.ctl("restore", "all.backup")
    assert refused.returncode == 6
    fingerprint = rsakeys.fingerprint(rsakeys.load_public((files / "offline.pub.pem").read_bytes(), ""))
    assert "bad_seal" in refused.stderr
    assert fingerprint in refused.stderr
    assert daemon.ctl("restore", "--public-key=host.pub.pem", "all.backup").returncode == 2
    there = set(files.iterdir())
    done = daemon.ctl("restore", "--key=offline.pem", "--public-key=host.pub.pem", "all.backup")
    assert done.returncode == 0, done.stderr
    assert (set(files.iterdir()), path.read_bytes()) == (there, before)
    with daemon.client() as client:
        code = client.generate()
        assert code.code == seed.code(code.step)


def test_the_offline_key_may_need_a_passphrase_and_has_to_be_one_that_was_named(
    daemon: Daemon, files: Path, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    daemon.start()
    backed_up(daemon, "offline.pub.pem")
    (files / "offline.pem").write_bytes(rsakeys.private_pem(other_key, b"correct horse"))
    (files / "host.pem").write_bytes(rsakeys.private_pem(host_key))
    before = rows(daemon)
    for key, reason in (
        ("offline.pem", "passphrase"),
        ("host.pem", "this backup can be opened with"),
    ):
        done = daemon.ctl("restore", f"--key={key}", "--public-key=host.pub.pem", "all.backup")
        assert done.returncode == 6
        assert reason in done.stderr
    assert rows(daemon) == before


def test_an_account_with_another_seed_is_replaced_only_when_that_is_said(
    daemon: Daemon, host_key: PrivateKey
) -> None:
    daemon.start()
    old, new = Seed(), Seed()
    with daemon.client() as client:
        client.load(old.sealed(host_key))
        client.load(Seed().sealed(host_key), "another")
        backed_up(daemon)
        client.load(new.sealed(host_key), replace=True)
        client.remove("another")
        before = rows(daemon)
        done = daemon.ctl("restore", "all.backup")
        assert done.returncode == 6
        assert "account_exists" in done.stderr
        assert rows(daemon) == before
        assert [one.account for one in client.accounts()] == ["default"]
        code = client.generate()
        assert code.code == new.code(code.step)
        assert daemon.ctl("restore", "--replace", "all.backup").returncode == 0
        assert [one.account for one in client.accounts()] == ["another", "default"]
        code = client.generate()
        assert code.code == old.code(code.step)


@pytest.mark.slow
def test_what_is_damaged_cut_short_or_no_backup_changes_nothing(
    daemon: Daemon, files: Path, host_key: PrivateKey
) -> None:
    daemon.start()
    with daemon.client() as client:
        client.load(Seed().sealed(host_key))
        data = backed_up(daemon).read_bytes()
        client.remove()
    before = rows(daemon)
    wrong = {
        "truncated": data[:-1],
        "halved": data[: len(data) // 2],
        "longer": data + b"\n",
        "empty": b"",
        "foreign": daemon.state_file.read_bytes(),
    }
    for place in range(0, len(data), len(data) // 12):
        wrong[f"damaged at {place}"] = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    for name, content in wrong.items():
        (files / "wrong.backup").write_bytes(content)
        done = daemon.ctl("restore", "wrong.backup")
        assert (done.returncode, done.stdout) == (6, ""), name
        assert "bad_seal" in done.stderr, name
    assert daemon.ctl("restore", "missing.backup").returncode == 7
    assert rows(daemon) == before
    with daemon.client() as client:
        assert client.accounts() == []
        assert client.status()["unavailable_until"] is None
    assert "Traceback" not in daemon.log()


@pytest.mark.slow
def test_a_restore_that_is_killed_is_done_or_not_begun(
    daemon: Daemon, files: Path, host_key: PrivateKey
) -> None:
    daemon.start()
    with daemon.client() as client:
        for number in range(300):
            client.load(Seed().sealed(host_key), f"user{number}")
        backed_up(daemon)
    daemon.stop()
    shutil.rmtree(daemon.state_dir)
    daemon.start()
    command = subprocess.Popen(
        [PKI2FACTL, "--socket", str(daemon.socket), "restore", "all.backup"],
        cwd=files,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wal = daemon.state_dir / "state.db-wal"
    size = wal.stat().st_size
    wait_until(lambda: wal.stat().st_size > size or command.poll() is not None, "nothing was written")
    daemon.kill()
    command.wait(30)
    daemon.start()
    with daemon.client() as client:
        assert len(client.accounts()) in (0, 300)


def test_the_asynchronous_client_backs_up_and_restores_in_parts(
    daemon: Daemon, files: Path, host_key: PrivateKey
) -> None:
    daemon.start()
    with daemon.client() as client:
        for number in range(300):
            client.load(Seed().sealed(host_key), f"user{number:03}")

    async def there_and_back() -> tuple[int, dict[str, Any]]:
        async with AsyncClient(str(daemon.socket), 30) as client:
            data = await client.backup((files / "host.pub.pem").read_bytes())
            await client.remove("user007")
            return len(data), await client.restore(data)

    size, restored = asyncio.run(there_and_back())
    assert size > messages.PART_LIMIT
    assert restored == {"accounts": 300, "changed": ["user007"]}
    logged = [line for line in daemon.log().splitlines() if " restore uid=" in line]
    assert len(logged) == 1  # not each part


def test_an_idle_daemon_that_locks_drops_what_was_uploaded(daemon: Daemon) -> None:
    daemon.configure("[lock]\nidle = 1\n")
    daemon.start()
    with connect(daemon.socket) as peer:
        part = {"upload": "0" * 32, "part": b"abc"}
        assert peer.call("restore", offset=0, **part) == {"received": 3}
        wait_until(lambda: peer.call("status")["locked"], "it did not lock")
        assert peer.call("unlock") == {"locked": False}
        assert peer.refusal("restore", offset=3, last=True, **part)[0] == "bad_request"

"""`backup`: made while the daemon serves, and readable by nobody but the owners of the named keys."""

import base64
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
from support import opener
from support.daemon import Daemon, as_user, ctl
from support.raw import Seed, connect, connect_as

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadRequest, Locked

STRANGER = 4711


@pytest.fixture
def keys(daemon: Daemon, host_key: PrivateKey, other_key: PrivateKey) -> Path:
    """A directory with the host's key pair and another one, `offline`, which are a file each."""
    for name, key in (("host", host_key), ("offline", other_key)):
        private = daemon.root / f"{name}.pem"
        private.touch(mode=0o600)
        private.write_bytes(rsakeys.private_pem(key))
        (daemon.root / f"{name}.pub.pem").write_bytes(rsakeys.public_pem(key.public_key()))
    return daemon.root


def test_a_backup_opens_with_each_named_key_by_its_description(
    daemon: Daemon, keys: Path, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    daemon.start()
    seeds = {"default": Seed(), "deploy": Seed("SHA512", 8, 60)}
    with daemon.client() as client:
        for name, seed in seeds.items():
            client.load(seed.sealed(host_key), name, **seed.parameters)
        assert client.verify(seeds["default"].code())
    done = daemon.ctl("backup", "--to=host.pub.pem", "--to=offline.pub.pem", "all.backup")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("made all.backup\n")
    data = (keys / "all.backup").read_bytes()
    assert set(opener.header_of(data)[0]) == {opener.fingerprint(host_key), opener.fingerprint(other_key)}
    for key, name in ((host_key, "host.pem"), (other_key, "offline.pem")):
        master, content = opener.open_backup(data, key, keys / name)
        assert {one["name"]: opener.seed_of(one, master).hex() for one in content["accounts"]} == {
            name: seed.hex for name, seed in seeds.items()
        }
        assert [one["last_step"] >= 0 for one in content["accounts"]] == [True, False]
        assert abs(content["created"] - time.time()) < 60
        assert not any(seed.hex in json.dumps(content) for seed in seeds.values())


def test_a_file_with_two_keys_names_both(
    daemon: Daemon, keys: Path, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    both = (keys / "host.pub.pem").read_bytes() + (keys / "offline.pub.pem").read_bytes()
    (keys / "both.pem").write_bytes(both)
    daemon.start()
    done = daemon.ctl("backup", "--to=both.pem", "all.backup")
    assert done.returncode == 0, done.stderr
    own, other = opener.fingerprint(host_key), opener.fingerprint(other_key)
    assert set(opener.header_of((keys / "all.backup").read_bytes())[0]) == {own, other}
    assert done.stdout.splitlines()[1:] == [f"can be opened by {own}  this host", f"can be opened by {other}"]
    assert done.stderr == ""


def test_a_backup_that_this_host_cannot_open_comes_with_a_warning(
    daemon: Daemon, keys: Path, other_key: PrivateKey
) -> None:
    daemon.start()
    done = daemon.ctl("backup", f"--to={keys}/offline.pub.pem", "all.backup")
    assert done.stdout.splitlines()[1:] == [f"can be opened by {opener.fingerprint(other_key)}"]
    assert done.stderr == (
        "pki2factl: hint: no key is this host's: to restore it, here too, give one of their private keys with"
        " --key\n"
    )


def test_a_backup_is_private_and_shows_neither_names_nor_seeds(
    daemon: Daemon, keys: Path, host_key: PrivateKey
) -> None:
    daemon.start()
    seed = Seed()
    with daemon.client() as client:
        client.load(seed.sealed(host_key), "somebody")
    done = daemon.ctl("backup", "--to=offline.pub.pem", "--json", "all.backup", umask=0)
    public = rsakeys.load_public((keys / "offline.pub.pem").read_bytes(), "")
    assert json.loads(done.stdout) == {
        "file": "all.backup",
        "to": [rsakeys.fingerprint(public)],
        "this_host": False,
    }
    data = (keys / "all.backup").read_bytes()
    assert (keys / "all.backup").stat().st_mode & 0o777 == 0o600
    plain = bytes.fromhex(seed.hex)
    for secret in (plain, seed.hex.encode(), base64.b64encode(plain)[:40], b"somebody", b"SHA1"):
        assert secret not in data
    (wrapped,) = opener.header_of(data)[0].values()
    with pytest.raises(subprocess.CalledProcessError):
        opener.unwrap(base64.b64decode(wrapped), keys / "host.pem")
    state = daemon.state_file.read_bytes()
    assert base64.b64decode(wrapped) not in state


def test_what_is_accepted_while_backups_are_made_is_in_the_backups_that_follow(
    daemon: Daemon, keys: Path, host_key: PrivateKey
) -> None:
    daemon.configure("[throttle]\nenabled = false\n")
    daemon.start()
    names = [f"user{number:03}" for number in range(200)]
    seeds = {name: Seed() for name in names}
    with daemon.client() as client:
        for name, seed in seeds.items():
            client.load(seed.sealed(host_key), name)
    accepted: dict[str, bool] = {}
    codes = {name: seed.code() for name, seed in seeds.items()}

    def verify_all() -> None:
        with daemon.client() as client:
            for name in names:
                accepted[name] = client.verify(codes[name], name)

    load = threading.Thread(target=verify_all)
    pem = (keys / "host.pub.pem").read_bytes()
    with daemon.client() as client:
        load.start()
        while True:
            over = not load.is_alive()
            before = [name for name, valid in [*accepted.items()] if valid]
            _, content = opener.open_backup(client.backup(pem), host_key, keys / "host.pem")
            used = {one["name"] for one in content["accounts"] if one["last_step"] >= 0}
            assert len(content["accounts"]) == 200
            assert set(before) <= used
            if over:
                break
    assert sum(accepted.values()) >= 190  # a step may have ended under some
    assert used == {name for name, valid in accepted.items() if valid}


def test_a_file_that_is_there_is_never_overwritten(daemon: Daemon, keys: Path) -> None:
    daemon.start()
    (keys / "all.backup").write_bytes(b"precious")
    done = daemon.ctl("backup", "--to=host.pub.pem", "all.backup")
    assert (done.returncode, done.stdout) == (7, "")
    assert "exists already" in done.stderr
    assert (keys / "all.backup").read_bytes() == b"precious"
    done = daemon.ctl("backup", "--to=host.pub.pem", "nowhere/all.backup")
    assert done.returncode == 7
    assert sorted(path.name for path in keys.glob("*.tmp")) == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["all.backup"], 2),
        (["--to=host.pub.pem"], 2),
        (["--to=host.pem", "all.backup"], 6),
        (["--to=missing.pem", "all.backup"], 7),
        (["--to=host.pub.pem", "--to=small.pub.pem", "all.backup"], 6),
    ],
)
def test_without_keys_that_can_be_used_there_is_no_backup(
    daemon: Daemon, keys: Path, arguments: list[str], status: int
) -> None:
    subprocess.run(["openssl", "genrsa", "-out", keys / "small.pem", "2048"], check=True, capture_output=True)
    subprocess.run(
        ["openssl", "rsa", "-in", keys / "small.pem", "-pubout", "-out", keys / "small.pub.pem"],
        check=True,
        capture_output=True,
    )
    daemon.start()
    assert daemon.ctl("backup", *arguments).returncode == status
    assert not (keys / "all.backup").exists()


def test_the_daemon_checks_the_keys_itself(daemon: Daemon, host_key: PrivateKey) -> None:
    daemon.start()
    numbers = host_key.public_key().public_numbers()
    huge = type(numbers)(numbers.e, (1 << 17_000) + 1).public_key()
    with daemon.client() as client:
        for pem in (b"", b"no key", rsakeys.private_pem(host_key), rsakeys.public_pem(huge)):
            with pytest.raises(BadRequest):
                client.backup(pem)
        assert client.status()["ready"] is True
    assert "Traceback" not in daemon.log()


def test_a_locked_daemon_makes_no_backup_and_takes_none(daemon: Daemon, keys: Path) -> None:
    daemon.start()
    pem = (keys / "host.pub.pem").read_bytes()
    with daemon.client() as client:
        data = client.backup(pem)
        client.lock()
        with pytest.raises(Locked):
            client.backup(pem)
        with pytest.raises(Locked):
            client.restore(data)
        assert daemon.ctl("backup", "--to=host.pub.pem", "all.backup").returncode == 5
        client.unlock()
        assert client.restore(data) == {"accounts": 0, "changed": []}


def test_a_backup_and_a_restore_need_the_role_admin_for_all_accounts(daemon: Daemon, keys: Path) -> None:
    daemon.configure(f'[[access]]\nrole = "admin"\nwho = [{STRANGER}]\naccounts = ["default"]\n')
    daemon.root.chmod(0o755)
    (keys / "host.pub.pem").chmod(0o644)
    daemon.start()
    pem = (keys / "host.pub.pem").read_bytes()
    assert ctl(keys, "backup", "--to=host.pub.pem", "/dev/shm/x", command=as_user(STRANGER)).returncode == 3
    socket = ("--socket", str(daemon.socket))
    done = ctl(keys, *socket, "backup", "--to=host.pub.pem", "x.backup", command=as_user(STRANGER))
    assert done.returncode == 4
    (peer,) = connect_as(STRANGER, daemon.socket)
    with peer:
        assert peer.refusal("backup", to=pem)[0] == "forbidden"
        assert peer.refusal("restore", upload="0" * 32, offset=0, part=b"")[0] == "forbidden"
    with connect(daemon.socket) as own:
        assert own.call("backup", to=pem)["accounts"] == 0

"""Keys, state files and directories that cannot be used: what is said, and that nothing is touched."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, Mounts, as_user, code_of
from support.peers import openssl, require_root

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import Unavailable

SEED = b"a seed of the state file tests.."
UID = 4242
GROUP = 4243


@pytest.fixture
def key(daemon: Daemon) -> Path:
    return daemon.config_dir / "host.pem"


def contents(*directories: Path) -> dict[Path, bytes]:
    """Every file but the lock, which has the pid of whoever took it last."""
    files = [path for directory in directories for path in directory.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.name != "lock"}


def refused_and_untouched(daemon: Daemon, **options: object) -> str:
    """A start that has to fail and to leave every key and state file as it is; returns the error."""
    before = contents(daemon.config_dir, daemon.state_dir)
    error = daemon.fail_to_start(**options)
    after = contents(daemon.config_dir, daemon.state_dir)
    assert {path: after.get(path) for path in before} == before
    assert not daemon.socket.exists()
    return error


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644], ids=oct)
def test_a_key_that_others_can_read_is_refused_with_what_mends_it(
    daemon: Daemon, key: Path, mode: int
) -> None:
    key.chmod(mode)
    error = refused_and_untouched(daemon)
    (mend,) = [line[line.index("chmod") :] for line in error.splitlines() if "chmod" in line]
    assert str(key) in mend
    subprocess.run(mend.split(), check=True)
    daemon.start()


def test_a_small_key_is_refused(daemon: Daemon, key: Path) -> None:
    openssl("genrsa", "-out", key, "2048")
    error = refused_and_untouched(daemon)
    assert f"{key} has 2048 bits" in error
    assert "3072" in error


def test_a_public_key_is_refused_by_what_it_is(daemon: Daemon, key: Path) -> None:
    public = daemon.config_dir / "public.pem"
    openssl("pkey", "-in", key, "-pubout", "-out", public)
    key.write_bytes(public.read_bytes())
    assert f"{key} is a public key" in refused_and_untouched(daemon)


def test_literal_line_ends_are_named(daemon: Daemon, key: Path) -> None:
    key.write_bytes(key.read_bytes().replace(b"\n", b"\\n"))
    error = refused_and_untouched(daemon)
    assert "\\n" in error
    assert str(key) in error


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "not a PEM file"), (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged")],
    ids=["empty", "damaged"],
)
def test_what_is_no_key_is_refused(daemon: Daemon, key: Path, content: bytes, reason: str) -> None:
    key.write_bytes(content)
    error = refused_and_untouched(daemon)
    assert str(key) in error
    assert reason in error


def test_a_key_of_another_kind_is_refused(daemon: Daemon, key: Path) -> None:
    openssl("genpkey", "-algorithm", "ED25519", "-out", key)
    assert f"{key} is not an RSA key" in refused_and_untouched(daemon)


def test_a_missing_key_is_named(daemon: Daemon, key: Path) -> None:
    key.unlink()
    error = refused_and_untouched(daemon)
    assert f"there is no key {key}; make one with: pki2factl init" in error


def test_a_key_that_is_lost_beside_its_state_is_not_replaced_by_another(used: Daemon) -> None:
    key = used.config_dir / "host.pem"
    key.unlink()
    error = refused_and_untouched(used)
    assert f"there is no key {key}, and the state {used.state_file} needs it: put {key} back" in error
    assert f"move {used.state_file}* away, run pki2factl init and restore a backup" in error


def test_a_key_of_another_user_is_refused(daemon: Daemon, key: Path) -> None:
    as_user(UID)  # or skip: only root can give a file away
    os.chown(key, UID, UID)
    error = refused_and_untouched(daemon)
    assert str(key) in error
    assert str(UID) in error


@pytest.mark.parametrize("mode", [0o440, 0o400, 0o600], ids=oct)
def test_a_key_that_the_key_group_can_read_opens_the_state(daemon: Daemon, key: Path, mode: int) -> None:
    daemon.configure(f"key_group = {GROUP}\n")
    give_group(key, GROUP, mode)
    daemon.start()
    assert daemon.ctl("status").returncode == 0


@pytest.mark.parametrize("mode", [0o640, 0o460, 0o444, 0o550, 0o660], ids=oct)
def test_not_even_the_key_group_may_do_more_than_read_the_key(daemon: Daemon, key: Path, mode: int) -> None:
    daemon.configure(f"key_group = {GROUP}\n")
    give_group(key, GROUP, mode)
    assert f"mode {mode:04o}" in refused_and_untouched(daemon)


@pytest.mark.parametrize("settings", ["", f"key_group = {UID}\n"], ids=["none", "another"])
def test_a_key_that_another_group_can_read_is_refused_with_the_group(
    daemon: Daemon, key: Path, settings: str
) -> None:
    daemon.configure(settings)
    give_group(key, GROUP, 0o440)
    assert f"group {GROUP}, which is not key_group of the settings" in refused_and_untouched(daemon)


def give_group(key: Path, gid: int, mode: int) -> None:
    require_root()  # only root can give a file to any group
    os.chown(key, -1, gid)
    key.chmod(mode)


def test_a_key_that_the_key_group_can_read_is_still_not_anothers(daemon: Daemon, key: Path) -> None:
    daemon.configure(f"key_group = {GROUP}\n")
    give_group(key, GROUP, 0o440)
    os.chown(key, UID, GROUP)
    assert f"uid {UID}" in refused_and_untouched(daemon)


def test_a_user_reads_the_key_by_the_key_group_and_unlocks_with_it(daemon: Daemon, key: Path) -> None:
    """As in Kubernetes: the Secret is root's, its group is `fsGroup`, and the daemon is another user."""
    daemon.configure(f"key_group = {GROUP}\n")
    daemon.give_to(UID)
    give_group(key, GROUP, 0o440)
    os.chown(key, 0, GROUP)
    daemon.start(command=as_user(UID, groups=[GROUP]))
    with daemon.client() as client:
        client.lock()
        client.unlock()
        assert not client.status()["locked"]


def test_a_key_group_that_nobody_knows_stops_the_start_and_fails_a_reload(daemon: Daemon) -> None:
    daemon.configure('key_group = "no-such-group"\n')
    assert "pki2fad.toml: key_group: there is no group 'no-such-group'" in refused_and_untouched(daemon)


def test_a_key_among_the_credentials_may_be_readable_by_its_group(daemon: Daemon, key: Path) -> None:
    credentials = daemon.root / "credentials"
    credentials.mkdir()
    passed = shutil.move(key, credentials / "host.pem")
    passed.chmod(0o440)
    daemon.start(CREDENTIALS_DIRECTORY=str(credentials))
    assert daemon.ctl("status").returncode == 0


@pytest.fixture
def used(daemon: Daemon, seal: Callable[[bytes], bytes]) -> Daemon:
    """A daemon that has run and holds an account."""
    daemon.deliver("default", seal(SEED))
    daemon.start()
    daemon.stop()
    return daemon


def test_the_state_of_another_key_is_refused_with_both_fingerprints(
    used: Daemon, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    used.install_key(rsakeys.private_pem(other_key))
    error = refused_and_untouched(used)
    assert "sealed to another key" in error
    assert str(used.state_dir) in error
    for known in (host_key, other_key):
        assert rsakeys.fingerprint(known.public_key()) in error
    used.install_key(rsakeys.private_pem(host_key))
    used.start()
    assert used.ctl("generate").returncode == 0


def edit(state: Path, statement: str) -> None:
    database = sqlite3.connect(state, isolation_level=None)
    database.execute(statement)
    database.close()


def edit_in_log(state: Path, statement: str) -> None:
    """An edit that is in the write-ahead log alone, as when the daemon was killed after it."""
    log = state.with_name(f"{state.name}-wal")
    database = sqlite3.connect(state, isolation_level=None)
    database.execute(statement)
    left = {path: path.read_bytes() for path in (state, log)}
    database.close()
    for path, content in left.items():
        path.write_bytes(content)


def overwrite(state: Path, offset: int) -> None:
    with state.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 64)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "header": (lambda state: overwrite(state, 0), "damaged"),
    "page": (lambda state: overwrite(state, 4096), "damaged"),
    "text": (lambda state: state.write_text("this is no state file\n" * 100), "damaged"),
    "cut": (lambda state: os.truncate(state, 4096), "damaged"),
    "seed": (lambda state: edit(state, "UPDATE accounts SET sealed = zeroblob(92)"), "damaged"),
    "parameters": (lambda state: edit(state, "UPDATE accounts SET digits = 8"), "damaged"),
    "name": (lambda state: edit(state, "UPDATE accounts SET name = 'other'"), "damaged"),
    "newer": (lambda state: edit(state, "PRAGMA user_version = 99"), "newer version"),
    "newer in the log": (lambda state: edit_in_log(state, "PRAGMA user_version = 99"), "newer version"),
    "foreign": (lambda state: edit(state, "PRAGMA application_id = 1"), "not a state file of pki2fad"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_state_file_that_cannot_be_trusted_is_refused_and_left(used: Daemon, kind: str) -> None:
    damage, reason = DAMAGE[kind]
    damage(used.state_file)
    error = refused_and_untouched(used)
    assert reason in error
    assert str(used.state_dir) in error
    if reason == "damaged":
        assert f"it was left as it is: move {used.state_file}* away, start, and restore a backup" in error


def test_a_master_key_that_was_changed_is_refused(used: Daemon) -> None:
    edit(used.state_file, "UPDATE keyslots SET wrapped = zeroblob(384)")
    refused_and_untouched(used)


@pytest.mark.parametrize("name", ["state_dir", "log_dir"])
def test_a_directory_that_cannot_be_written_is_named(daemon: Daemon, name: str) -> None:
    user = as_user(UID)
    daemon.give_to(UID)
    directory = daemon.root / name
    directory.mkdir(mode=0o755)  # of root
    setattr(daemon, name, directory if name == "state_dir" else directory / "log")
    assert str(directory) in daemon.fail_to_start(command=user)
    assert not list(directory.iterdir())


def test_a_file_where_a_directory_belongs_is_named(daemon: Daemon) -> None:
    daemon.state_dir.write_text("precious")
    assert f"{daemon.state_dir} is in the way" in daemon.fail_to_start()
    assert daemon.state_dir.read_text() == "precious"


@pytest.fixture
def small_disk(daemon: Daemon) -> Iterator[Mounts]:
    """The state directory on a disk of half a megabyte, in a mount namespace."""
    daemon.state_dir.mkdir()
    mounts = Mounts('mount -t tmpfs -o size=512k,mode=700 tmpfs "$1"', str(daemon.state_dir))
    yield mounts
    daemon.close()
    mounts.close()


def fill(disk: Mounts, daemon: Daemon) -> Path:
    """Leave no free byte; returns the file that fills the disk."""
    filler = disk.path(daemon.state_dir / "filler")
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # no space is left
        while True:
            file.write(bytes(4096))
    return filler


def test_a_start_on_a_full_disk_is_refused_and_loses_nothing(
    daemon: Daemon, small_disk: Mounts, seal: Callable[[bytes], bytes]
) -> None:
    daemon.deliver("default", seal(SEED))
    daemon.start(command=small_disk.enter)
    code = daemon.ctl("generate").stdout.strip()
    assert daemon.ctl("verify", code).stdout == "valid\n"
    daemon.kill()
    filler = fill(small_disk, daemon)
    error = daemon.fail_to_start(command=small_disk.enter, PKI2FAD_BOOT_ID="another")
    assert str(daemon.state_dir) in error
    filler.unlink()
    daemon.start(command=small_disk.enter)
    assert daemon.ctl("verify", code).stdout == "invalid\n"


def test_a_first_start_on_a_full_disk_is_refused(daemon: Daemon, small_disk: Mounts) -> None:
    filler = fill(small_disk, daemon)
    error = daemon.fail_to_start(command=small_disk.enter)
    assert str(daemon.state_dir) in error
    filler.unlink()
    daemon.start(command=small_disk.enter)


def test_on_a_disk_that_fills_up_no_change_is_answered_and_no_code_is_good_twice(
    daemon: Daemon, small_disk: Mounts, seal: Callable[[bytes], bytes]
) -> None:
    daemon.start(command=small_disk.enter)
    with daemon.client() as client:
        client.load(seal(SEED), period=120)
        step = client.generate().step
        assert client.verify(code_of(SEED, step - 1))
        filler = fill(small_disk, daemon)
        with contextlib.suppress(Unavailable):
            while True:  # some room may be left in what the state has already
                client.load(seal(os.urandom(32)), "another", replace=True)
        with pytest.raises(Unavailable):
            client.verify(code_of(SEED, step))
        assert client.generate().code
        before = [account.account for account in client.accounts()]
        filler.unlink()
        assert not client.verify(code_of(SEED, step - 1))
        assert not client.verify(code_of(SEED, step))  # nobody was told that it was good
        assert client.load(seal(SEED), "third")
    daemon.kill()
    daemon.start(command=small_disk.enter)
    with daemon.client() as client:
        assert [account.account for account in client.accounts()] == sorted([*before, "third"])
        assert not client.verify(code_of(SEED, step - 1))


def test_who_locks_the_state_of_a_running_daemon_is_named_in_its_log(used: Daemon) -> None:
    used.start()
    with used.client() as client, contextlib.closing(sqlite3.connect(used.state_file)) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable):
            client.remove("default")
        database.execute("ROLLBACK")
        client.remove("default")
    command = Path("/proc/self/comm").read_text().strip()
    assert f"pid {os.getpid()} ({command}) has locked it for more than 2 s" in used.log()

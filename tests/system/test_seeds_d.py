"""`seeds.d`: sealed seeds that configuration management delivers as files."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, as_user, code_of
from support.raw import Seal

from pki2fad.crypto import sealing
from pki2fad.crypto.rsakeys import PrivateKey

ONE = b"one seed of the seeds.d tests..."
TWO = b"another seed of the same tests.."
UID = 4242

OLDER = Path(__file__).parents[1] / "vectors" / "older-state"


def has(daemon: Daemon, seed: bytes, account: str = "default") -> bool:
    """True if the account makes its codes from this seed."""
    with daemon.client() as client:
        code = client.generate(account)
    return code.code == code_of(seed, code.step)


def accounts(daemon: Daemon) -> list[str]:
    with daemon.client() as client:
        return [account.account for account in client.accounts()]


def ignored(daemon: Daemon) -> list[str]:
    """What the log says of files that were passed over."""
    return [line for line in daemon.log().splitlines() if "ignored" in line]


def again(daemon: Daemon, how: str) -> None:
    """Let it look at the files again."""
    if how == "reload":
        daemon.reload()
    else:
        daemon.stop()
        daemon.start()


both = pytest.mark.parametrize("how", ["reload", "restart"])


def test_files_are_accounts_from_the_start(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("default", seal(ONE))
    daemon.deliver("deploy@host", seal(TWO))
    daemon.start()
    assert accounts(daemon) == ["default", "deploy@host"]
    assert has(daemon, ONE)
    assert has(daemon, TWO, "deploy@host")
    assert ignored(daemon) == []


@both
def test_a_removed_account_does_not_come_back(daemon: Daemon, seal: Seal, how: str) -> None:
    daemon.deliver("default", seal(ONE))
    daemon.start()
    assert daemon.ctl("remove", "default").returncode == 0
    again(daemon, how)
    assert accounts(daemon) == []


@both
def test_a_seed_that_an_administrator_loaded_stays(daemon: Daemon, seal: Seal, how: str) -> None:
    daemon.deliver("default", seal(ONE))
    daemon.start()
    with daemon.client() as client:
        assert client.load(seal(TWO), replace=True)
    again(daemon, how)
    assert has(daemon, TWO)


@both
def test_a_changed_file_is_applied_also_after_remove(daemon: Daemon, seal: Seal, how: str) -> None:
    daemon.deliver("default", seal(ONE))
    daemon.deliver("removed", seal(ONE))
    daemon.start()
    assert daemon.ctl("remove", "removed").returncode == 0
    daemon.deliver("default", seal(TWO))
    daemon.deliver("removed", seal(TWO))
    again(daemon, how)
    assert has(daemon, TWO)
    assert has(daemon, TWO, "removed")


@both
def test_a_file_that_is_gone_takes_no_account_away(daemon: Daemon, seal: Seal, how: str) -> None:
    file = daemon.deliver("default", seal(ONE))
    daemon.start()
    file.unlink()
    again(daemon, how)
    assert has(daemon, ONE)


def test_the_same_seed_sealed_anew_leaves_used_codes_used(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("default", seal(ONE))
    daemon.start()
    code = daemon.ctl("generate").stdout.strip()
    assert daemon.ctl("verify", code).stdout == "valid\n"
    daemon.deliver("default", seal(ONE))
    daemon.reload()
    assert daemon.ctl("verify", code).stdout == "invalid\n"


def not_base64(path: Path) -> None:
    path.write_text("this is not base64!\n")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o644)


def group_writable(path: Path) -> None:
    path.chmod(0o664)


def writable_by_all(path: Path) -> None:
    path.chmod(0o646)


def of_another_user(path: Path) -> None:
    as_user(UID)  # or skip: only root can give a file away
    os.chown(path, UID, UID)


def huge(path: Path) -> None:
    path.write_bytes(b"A" * (2 * 1024 * 1024))


@pytest.mark.parametrize(
    "spoil",
    [not_base64, cut, link, loop, directory, pipe, group_writable, writable_by_all, of_another_user, huge],
)
def test_a_bad_file_is_named_and_keeps_no_other_out(
    daemon: Daemon, seal: Seal, spoil: Callable[[Path], None]
) -> None:
    daemon.deliver("a", seal(ONE))
    bad = daemon.deliver("b", seal(ONE))
    daemon.deliver("c", seal(ONE))
    spoil(bad)
    daemon.start()
    assert accounts(daemon) == ["a", "c"]
    (line,) = ignored(daemon)
    assert f"path={bad} " in line
    done = daemon.ctl("status", "--check")
    assert done.returncode == 6
    (trouble,) = [line for line in done.stdout.splitlines() if line.startswith("TROUBLE")]
    assert f": a file of seeds.d was ignored: {bad}: " in trouble


def test_a_file_for_another_key_is_named_and_mended_by_a_reload(
    daemon: Daemon, seal: Seal, other_key: PrivateKey
) -> None:
    bad = daemon.deliver("default", sealing.seal_seed(other_key.public_key(), bytearray(ONE)))
    daemon.start()
    (line,) = ignored(daemon)
    assert f"path={bad} " in line
    assert daemon.ctl("status", "--check").returncode == 6
    said = daemon.reload()  # it is ignored again
    assert any(line.endswith("; a file of seeds.d was ignored") for line in said)  # and not which
    assert daemon.ctl("status", "--check").returncode == 6
    daemon.deliver("default", seal(ONE))
    assert not any("ignored" in line for line in daemon.reload())
    assert has(daemon, ONE)
    done = daemon.ctl("status", "--check")
    assert (done.returncode, "TROUBLE" in done.stdout) == (0, False)


@pytest.mark.parametrize("spoil", [group_writable, of_another_user, link])
def test_a_directory_in_which_others_can_write_is_named_and_not_read(
    daemon: Daemon, seal: Seal, spoil: Callable[[Path], None]
) -> None:
    daemon.deliver("default", seal(ONE))
    spoil(daemon.seeds_dir)
    daemon.start()
    assert accounts(daemon) == []
    (line,) = ignored(daemon)
    assert f"path={daemon.seeds_dir} " in line


@pytest.mark.parametrize("name", ["-dash", ".hidden", "a b", "ä", "x" * 65])
def test_a_name_that_no_account_can_have_is_not_loaded(daemon: Daemon, seal: Seal, name: str) -> None:
    daemon.deliver("default", seal(ONE)).rename(daemon.seeds_dir / f"{name}.sealed")
    daemon.start()
    assert accounts(daemon) == []


def test_files_with_other_suffixes_are_no_seeds(daemon: Daemon, seal: Seal) -> None:
    for name in ("default.sealed~", "default", "README.md", ".default.sealed.tmp"):
        daemon.deliver("default", seal(ONE)).rename(daemon.seeds_dir / name)
    daemon.start()
    assert accounts(daemon) == []
    assert ignored(daemon) == []


def test_white_space_around_the_base64_is_allowed(daemon: Daemon, seal: Seal) -> None:
    file = daemon.deliver("default", seal(ONE))
    file.write_bytes(b"\n  " + file.read_bytes().strip() + b" \r\n\n")
    daemon.start()
    assert has(daemon, ONE)


def wrap(file: Path) -> None:
    """Break the base64 into lines, as `base64` of coreutils does."""
    file.write_bytes(base64.encodebytes(base64.b64decode(file.read_bytes())))


@both
def test_new_line_breaks_do_not_apply_a_file_again(daemon: Daemon, seal: Seal, how: str) -> None:
    file = daemon.deliver("default", seal(ONE))
    daemon.start()
    assert daemon.ctl("remove", "default").returncode == 0
    wrap(file)
    again(daemon, how)
    assert accounts(daemon) == []
    assert ignored(daemon) == []


@pytest.fixture
def older(daemon: Daemon) -> Daemon:
    """What a daemon of 0.1.0 left, which kept the digests of the files' text.

    Its seeds.d has two files. One account was removed later, the other got another seed.
    """
    daemon.install_key((OLDER / "host.pem").read_bytes())
    daemon.state_dir.mkdir(mode=0o700)
    daemon.state_file.touch(mode=0o600)
    daemon.state_file.write_bytes((OLDER / "state.db").read_bytes())
    for name in ("removed", "replaced"):
        daemon.deliver(name, base64.b64decode((OLDER / f"{name}.sealed").read_bytes()))
    return daemon


def assert_as_it_was_left(daemon: Daemon) -> None:
    assert accounts(daemon) == ["replaced"]
    assert has(daemon, b"another seed of an older daemon.", "replaced")
    assert "seed_loaded" not in daemon.log()


@both
def test_files_that_an_older_version_applied_are_not_applied_again(older: Daemon, how: str) -> None:
    older.start()
    assert_as_it_was_left(older)
    for file in older.seeds_dir.iterdir():
        wrap(file)
    again(older, how)
    assert_as_it_was_left(older)
    older.deliver("removed", base64.b64decode((OLDER / "replaced.sealed").read_bytes()))
    again(older, how)
    assert accounts(older) == ["removed", "replaced"]

"""`pki2factl recovery create`, and what becomes of recovery codes when the daemon or its machine dies."""

import contextlib
import os
import pwd
import re
import stat
from collections.abc import Iterator

import pytest
from support.daemon import Daemon, as_user, code_of
from support.preload import Clock, SyncedCopy, environment
from support.raw import Seal
from support.terminal import CTRL_D, Terminal, terminal

from pki2fad.client import Client
from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

USER = next(user for user in pwd.getpwall() if user.pw_uid not in (0, 65534))
SEED = os.urandom(32)
SHOWN = re.compile(r"^[0-9A-HJKMNP-TV-Z]{5}-[0-9A-HJKMNP-TV-Z]{5}\r?$", re.MULTILINE)


@pytest.fixture
def served(daemon: Daemon, seal: Seal) -> Daemon:
    """A daemon with the account of a user, who may enrol."""
    daemon.root.chmod(0o755)
    daemon.configure(f'[[access]]\nrole = "enroll"\nwho = [{USER.pw_uid}]\n')
    daemon.start()
    with daemon.client() as client:
        client.load(seal(SEED), USER.pw_name)
    return daemon


@contextlib.contextmanager
def creating(daemon: Daemon, *arguments: str, uid: int | None = None) -> Iterator[Terminal]:
    """The command at a terminal."""
    words = ("--socket", str(daemon.socket), "recovery", "create", *(arguments or (USER.pw_name,)))
    command = {} if uid is None else {"command": as_user(uid)}
    with terminal(daemon.root, *words, **command) as opened:
        yield opened


def code_of_now(daemon: Daemon) -> str:
    with daemon.client() as client:
        return client.generate(USER.pw_name).code


def is_good(daemon: Daemon, code: str) -> bool:
    with daemon.client() as client:
        return client.verify(code, USER.pw_name)


def left(daemon: Daemon) -> int | None:
    with daemon.client() as client:
        (account,) = client.accounts(USER.pw_name)
    recovery: int | None = account.recovery
    return recovery


# The command


def test_an_administrator_sees_ten_codes_once_on_a_terminal(served: Daemon) -> None:
    with creating(served) as opened:
        status, shown = opened.finish()
    codes = [code.strip() for code in SHOWN.findall(shown)]
    assert (status, len(set(codes))) == (0, 10)
    assert "hint: each is good once" in shown
    assert "Code of" not in shown
    verify = ("verify", codes[0].lower(), "--account", USER.pw_name)
    assert [served.ctl(*verify).stdout for _ in range(2)] == ["valid\n", "invalid\n"]
    explained = served.ctl("verify", codes[1], "--account", USER.pw_name, "--explain")
    assert explained.stdout == "valid; 8 recovery codes left\n"
    assert served.ctl("accounts").stdout.endswith("; 8 recovery codes left\n")


def test_codes_get_into_no_pipe_and_no_json_by_accident(served: Daemon) -> None:
    for arguments in ([], ["--json"]):
        done = served.ctl("recovery", "create", USER.pw_name, *arguments)
        assert done.returncode == 2
        assert "on a terminal only; write them with --out FILE" in done.stderr
    with creating(served, USER.pw_name, "--json") as opened:
        status, shown = opened.finish()
    assert (status, SHOWN.findall(shown)) == (2, [])
    assert left(served) is None


def test_codes_get_into_a_file_of_their_own(served: Daemon) -> None:
    path = served.root / "codes"
    done = served.ctl("recovery", "create", USER.pw_name, "--out", str(path))
    assert (done.returncode, done.stdout) == (0, f"wrote 10 recovery codes to {path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    codes = path.read_text().splitlines()
    assert len(codes) == 10
    assert is_good(served, codes[9])
    again = served.ctl("recovery", "create", USER.pw_name, "--out", str(path), "--json")
    assert again.returncode == 7
    assert str(path) in again.stderr
    assert path.read_text().splitlines() == codes
    assert is_good(served, codes[8])  # no others were made


def test_where_they_cannot_be_written_the_old_codes_stay(served: Daemon) -> None:
    path = served.root / "codes"
    assert served.ctl("recovery", "create", USER.pw_name, "--out", str(path)).returncode == 0
    nowhere = served.root / "missing" / "codes"
    assert served.ctl("recovery", "create", USER.pw_name, "--out", str(nowhere)).returncode == 7
    assert is_good(served, path.read_text().split()[0])


def test_the_file_for_codes_goes_where_none_are_made(served: Daemon) -> None:
    path = served.root / "codes"
    assert served.ctl("recovery", "create", "nobody-here", "--out", str(path)).returncode == 6
    assert not path.exists()


def test_a_user_is_asked_for_a_code_of_their_own_account(served: Daemon) -> None:
    code = code_of_now(served)
    with creating(served, uid=USER.pw_uid) as opened:
        opened.wait_for(f"Code of {USER.pw_name}: ")
        opened.type(f"{code[:3]} {code[3:]}\n")
        status, shown = opened.finish()
    codes = [one.strip() for one in SHOWN.findall(shown)]
    assert (status, len(codes)) == (0, 10), shown
    assert code not in shown
    assert not is_good(served, code)
    assert is_good(served, codes[0])
    said = [line for line in served.log().splitlines() if "recovery_create" in line]
    assert len(said) == 1
    assert f"uid={USER.pw_uid} " in said[0]
    assert f"account={USER.pw_name} audit=created" in said[0]


@pytest.mark.parametrize("given", ["0000000\n", "K7QM4-2XW9T\n", "\n", CTRL_D])
def test_a_user_without_a_good_code_gets_none(served: Daemon, given: str) -> None:
    with creating(served, uid=USER.pw_uid) as opened:
        opened.wait_for("Code of")
        opened.type(given)
        status, shown = opened.finish()
    assert (status, SHOWN.findall(shown)) == (6 if "K7" in given else 4, [])
    assert left(served) is None


@pytest.mark.parametrize("code", ["ABCD3-FGHJ", "ABCD3-FGHJKM", "ABCD3FGHJ", "ABCD3-FGHJU"])
def test_a_code_with_a_mistake_in_it_is_suggested_as_no_name(served: Daemon, code: str) -> None:
    done = served.ctl("verify", code)
    assert done.returncode == 6
    assert "6 to 8 digits, or a recovery code like K7QM4-2XW9T" in done.stderr
    assert code not in done.stderr + served.log()


def test_no_code_is_in_the_log_or_the_state(served: Daemon) -> None:
    path = served.root / "codes"
    served.ctl("recovery", "create", USER.pw_name, "--out", str(path))
    codes = path.read_text().splitlines()
    path.unlink()
    assert is_good(served, codes[0])
    assert not is_good(served, codes[0])
    assert f"account={USER.pw_name} audit=recovered valid=True left=9" in served.log()
    served.stop()
    kept = b"".join(path.read_bytes() for path in served.root.rglob("*") if path.is_file())
    assert USER.pw_name.encode() in kept
    for code in codes:
        assert code.encode() not in kept
        assert code.replace("-", "").encode() not in kept


def test_a_backup_has_no_recovery_codes_and_a_restore_leaves_those_that_there_are(
    served: Daemon, host_key: PrivateKey
) -> None:
    with served.client() as client:
        codes = client.recovery_create(USER.pw_name)
        backup = client.backup(rsakeys.public_pem(host_key.public_key()))
        client.restore(backup)
        assert client.verify(codes[0], USER.pw_name)
        client.remove(USER.pw_name)
        client.restore(backup)
        assert not client.verify(codes[1], USER.pw_name)
    assert left(served) is None


def test_a_new_host_key_leaves_the_codes_and_those_that_are_used(served: Daemon) -> None:
    with served.client() as client:
        codes = client.recovery_create(USER.pw_name)
        assert client.verify(codes[0], USER.pw_name)
    private = served.config_dir / "host.pem"
    public = rsakeys.load_private(private.read_bytes(), "").public_key()
    private.with_name("host.pub.pem").write_bytes(rsakeys.public_pem(public))
    assert served.ctl("rotate-key", f"--private={private}", "--bits=3072").returncode == 0
    assert [is_good(served, code) for code in codes[:2]] == [False, True]
    served.kill()
    served.start()
    assert [is_good(served, code) for code in codes[:3]] == [False, False, True]


# The end of the daemon, and of its machine


def test_a_code_is_used_when_its_answer_leaves(served: Daemon) -> None:
    with served.client() as client:
        codes = client.recovery_create(USER.pw_name)
    for number, code in enumerate(codes):
        assert is_good(served, code)
        served.kill()
        served.start()
        assert left(served) == 9 - number
    assert [is_good(served, code) for code in codes] == [False] * 10


@pytest.mark.slow
def test_a_crash_of_the_machine_takes_no_use_back(
    daemon: Daemon, seal: Seal, clock: Clock, synced: SyncedCopy
) -> None:
    daemon.start(**environment(clock, synced), PKI2FAD_BOOT_ID="before")
    period = 30

    def spend(client: Client, step: int) -> bool:
        return client.verify(code_of(SEED, step), USER.pw_name)

    with daemon.client() as client:
        client.load(seal(SEED), USER.pw_name)
        codes = client.recovery_create(USER.pw_name)
        now = int(clock.now()) // period
        assert spend(client, now - 1)  # raises the lease
        for code in codes[:5]:
            assert client.verify(code, USER.pw_name)
        assert spend(client, now)  # is not synced
    daemon.kill()
    log = daemon.state_dir / "state.db-wal"
    assert (synced.copy / log.name).read_bytes() != log.read_bytes()  # else there was nothing to take back
    synced.restore()
    daemon.start(**environment(clock, synced), PKI2FAD_BOOT_ID="after")
    verdicts = [is_good(daemon, code) for code in codes]
    assert verdicts == [False] * 5 + [True] * 5

"""`pki2factl enroll`: an ordinary user gets from nothing to an account, at a terminal and in a script."""

import base64
import contextlib
import json
import os
import pwd
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import memory
from support.agents import oathtool_code
from support.daemon import PATIENCE, PKI2FACTL, Daemon, Mounts, as_user, environment, wait_until
from support.raw import Seed, connect_as
from support.terminal import CTRL_C, CTRL_D, Terminal, secret_of, terminal, uris

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

USER = next(user for user in pwd.getpwall() if user.pw_uid not in (0, 65534))
NAME = USER.pw_name
NAMELESS = 4242


@pytest.fixture
def served(daemon: Daemon) -> Daemon:
    """A daemon of root's that lets a user enrol, and what it needs to run as that user."""
    as_user(USER.pw_uid)
    daemon.root.chmod(0o755)
    daemon.configure(f'[[access]]\nrole = "enroll"\nwho = [{USER.pw_uid}, {NAMELESS}]\n')
    return daemon.start()


@pytest.fixture
def home(served: Daemon) -> Path:
    """A directory that the user may write."""
    home = served.root / "home"
    home.mkdir()
    os.chown(home, USER.pw_uid, -1)
    return home


@contextlib.contextmanager
def enrolling(daemon: Daemon, *arguments: str, uid: int = USER.pw_uid) -> Iterator[Terminal]:
    """The command at a terminal."""
    socket = ("--socket", str(daemon.socket))
    with terminal(daemon.root, *socket, "enroll", *arguments, command=as_user(uid)) as opened:
        yield opened


def seed_of(uri: str) -> bytes:
    secret = secret_of(uri)
    return base64.b32decode(secret + "=" * (-len(secret) % 8))


def shown_seed(opened: Terminal) -> bytes:
    """The seed of the one URI that is shown before the prompt."""
    opened.wait_for("Code: ")
    assert "it is shown once" in opened.shown.partition("Code: ")[0]
    (uri,) = uris(opened.shown)
    return seed_of(uri)


def accounts(daemon: Daemon) -> list[str]:
    return [row["account"] for row in json.loads(daemon.ctl("accounts", "--json").stdout)]


def wrong(seed: bytes) -> str:
    """Six digits that are none of the seed's codes for an hour around now."""
    now = time.time()
    near = {oathtool_code(seed, now + 30 * step) for step in range(-60, 60)}
    return next(code for code in map("{:06}".format, range(1000)) if code not in near)


def test_a_user_enrols_at_a_terminal_and_has_an_account(served: Daemon) -> None:
    with enrolling(served) as opened:
        seed = shown_seed(opened)
        code = oathtool_code(seed, time.time())
        opened.type(f"{code}\n")
        status, shown = opened.finish()
    assert (status, shown.splitlines()[-1]) == (0, f"account {NAME} is active"), shown
    assert len(uris(shown)) == 1
    assert f"pki2fad:{NAME}?" in uris(shown)[0]
    assert code not in shown
    assert accounts(served) == [NAME]
    generated = json.loads(served.ctl("generate", NAME, "--json").stdout)
    assert generated["code"] == oathtool_code(seed, generated["step"] * 30)
    assert served.ctl("verify", code, "--account", NAME).stdout == "invalid\n"  # it is spent
    said = [line for line in served.log().splitlines() if f"uid={USER.pw_uid} " in line]
    assert [line.partition(" uid=")[0].split()[-1] for line in said] == ["enroll", "enroll_confirm"]
    assert f"account={NAME}" in said[0]
    assert f"account={NAME} audit=added valid=True" in said[1]
    served.stop()
    left = b"".join(
        path.read_bytes() for path in served.root.rglob("*") if path.is_file() and os.access(path, os.R_OK)
    )
    assert NAME.encode() in left
    for form in (seed, seed.hex().encode(), base64.b32encode(seed).rstrip(b"="), code.encode()):
        assert form not in left


def test_a_wrong_code_is_asked_for_again_and_the_third_ends_it(served: Daemon) -> None:
    with enrolling(served) as opened:
        seed = shown_seed(opened)
        given = (wrong(seed), "12345", "", "123 456", "no code", wrong(seed))
        for number, code in enumerate(given, 1):
            opened.wait_for("Code: ", number)
            opened.type(f"{code}\n")
        status, shown = opened.finish()
    assert status == 1
    assert f"pki2factl: error: no right code was given, so there is no account {NAME}\n" in shown
    assert shown.count("hint: that is not its code\n") == 3
    assert shown.count("hint: a code is 6 to 8 digits\n") == 3
    assert "Traceback" not in shown
    assert accounts(served) == []


def test_while_codes_cannot_be_checked_no_seed_is_shown_and_no_code_asked_for(
    served: Daemon, host_key: PrivateKey
) -> None:
    with served.client() as client:
        client.load(Seed().sealed(host_key), "other")
        backup = client.backup(rsakeys.public_pem(host_key.public_key()))
        client.remove("other")
        client.restore(backup)
        until = client.status()["unavailable_until"]
    assert until > time.time()
    with enrolling(served) as opened:
        status, shown = opened.finish()
    assert status == 5
    assert "pki2factl: error: codes cannot be checked yet" in shown
    assert "pki2factl: hint: try again in " in shown
    assert not uris(shown)
    assert "Code" not in shown
    with terminal(served.root, "--socket", str(served.socket), "resync", "other") as opened:
        status, shown = opened.finish()
    assert (status, "Code" in shown) == (5, False)


def test_while_the_daemon_is_locked_no_code_is_asked_for(served: Daemon) -> None:
    with served.client() as client:
        client.lock()
    for command in (enrolling(served), terminal(served.root, "--socket", str(served.socket), "resync", "a")):
        with command as opened:
            status, shown = opened.finish()
        assert status == 5
        assert "pki2factl unlock" in shown
        assert "Code" not in shown
        assert not uris(shown)


def test_a_right_code_after_a_wrong_one_will_do(served: Daemon) -> None:
    with enrolling(served) as opened:
        seed = shown_seed(opened)
        opened.type(f"{wrong(seed)}\n")
        opened.wait_for("that is not its code")
        opened.wait_for("Code: ", times=2)  # what is typed before is thrown away
        opened.type(f"{oathtool_code(seed, time.time())}\n")
        assert opened.finish()[0] == 0
    assert accounts(served) == [NAME]


@pytest.mark.parametrize(("typed", "expected"), [(CTRL_C, 130), (CTRL_D, 1)])
def test_what_was_broken_off_is_no_account_and_begins_anew_with_another_seed(
    served: Daemon, typed: str, expected: int
) -> None:
    with enrolling(served) as opened:
        first = shown_seed(opened)
        opened.type(typed)
        status, shown = opened.finish()
    assert status == expected, shown
    assert shown.endswith("\n")
    assert "Code: pki2factl" not in shown  # the prompt's line is ended
    assert "Traceback" not in shown
    assert accounts(served) == []
    with enrolling(served) as opened:
        second = shown_seed(opened)
        opened.type(f"{oathtool_code(first, time.time())}\n")
        opened.wait_for("that is not its code")
        opened.wait_for("Code: ", times=2)  # what is typed before is thrown away
        opened.type(f"{oathtool_code(second, time.time())}\n")
        assert opened.finish()[0] == 0


@pytest.mark.parametrize("how", ["Ctrl-C", "Ctrl-D", "the daemon ends"])
def test_the_file_of_the_uri_goes_if_the_enrolment_is_broken_off(
    served: Daemon, home: Path, how: str
) -> None:
    with enrolling(served, f"--uri-out={home}/uri") as opened:
        opened.wait_for("Code: ")
        assert (home / "uri").exists()
        if how == "the daemon ends":
            served.stop()
        opened.type({"Ctrl-C": CTRL_C, "Ctrl-D": CTRL_D}.get(how, "123456\n"))
        assert opened.finish()[0] != 0
    assert not (home / "uri").exists()


def test_the_file_of_the_uri_stays_if_nobody_knows_whether_there_is_an_account(
    served: Daemon, home: Path
) -> None:
    with enrolling(served, f"--uri-out={home}/uri") as opened:
        opened.wait_for("Code: ")
        served.signal(signal.SIGSTOP)
        try:
            opened.type("123456\n")
            status, shown = opened.finish()
        finally:
            served.signal(signal.SIGCONT)
    assert "no answer within" in shown
    assert status == 7
    assert (home / "uri").exists()


def test_a_script_gets_the_uri_in_a_file_and_gives_the_code_on_standard_input(
    served: Daemon, home: Path
) -> None:
    arguments = ["--socket", str(served.socket), "enroll", "--uri-out", "uri", "--stdin", "--json"]
    with subprocess.Popen(
        [*as_user(USER.pw_uid), PKI2FACTL, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment(home),
    ) as process:
        file = home / "uri"
        wait_until(lambda: file.exists() and file.read_text().endswith("\n"), "no URI came")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        code = oathtool_code(seed_of(file.read_text().strip()), time.time())
        typed = f"{code[:3]} {code[3:]}\r\n"  # as people do
        stdout, stderr = process.communicate(typed, PATIENCE)
    assert (process.returncode, json.loads(stdout)) == (0, {"account": NAME, "active": True})
    assert "otpauth" not in stderr


def test_a_wrong_code_on_standard_input_ends_it(served: Daemon, home: Path) -> None:
    arguments = ("enroll", f"--uri-out={home}/uri", "--stdin")
    for code, expected in (("0000000\n", 1), ("no code\n", 6), ("", 6)):
        done = served.ctl(*arguments, command=as_user(USER.pw_uid), input=code)
        assert (done.returncode, done.stdout) == (expected, ""), done.stderr
        assert not (home / "uri").exists()
    done = served.ctl(*arguments, "--json", command=as_user(USER.pw_uid), input="0000000\n")
    assert (done.returncode, json.loads(done.stdout)["error"]) == (1, "invalid")
    assert accounts(served) == []


@pytest.mark.parametrize(
    "arguments", [(), ("--stdin",), ("--stdin", "--json"), ("--uri-out=uri",)], ids=" ".join
)
def test_without_a_terminal_no_seed_is_made_that_nobody_would_see(
    served: Daemon, arguments: tuple[str, ...]
) -> None:
    done = served.ctl("enroll", *arguments, command=as_user(USER.pw_uid))
    assert done.returncode == 2
    assert "otpauth://" not in done.stdout + done.stderr
    assert " enroll " not in served.log()


def test_a_uri_overwrites_no_file_and_then_no_seed_is_made(served: Daemon, home: Path) -> None:
    (home / "uri").write_text("mine")
    done = served.ctl("enroll", f"--uri-out={home}/uri", "--stdin", command=as_user(USER.pw_uid), input="")
    assert done.returncode == 7
    assert (home / "uri").read_text() == "mine"
    assert " enroll " not in served.log()


def test_json_on_a_terminal_does_not_show_the_uri(served: Daemon) -> None:
    with enrolling(served, "--json") as opened:
        status, shown = opened.finish()
    assert status == 2
    assert "otpauth://" not in shown


def test_where_there_is_an_account_the_user_is_told_who_can_help(
    served: Daemon, host_key: PrivateKey
) -> None:
    with served.client() as client:
        client.load(Seed().sealed(host_key), NAME)
    with enrolling(served) as opened:
        status, shown = opened.finish()
    assert status == 6
    assert "account_exists: " in shown
    assert "an administrator can remove it" in shown
    assert not uris(shown)
    assert served.ctl("remove", NAME).returncode == 0
    with enrolling(served) as opened:
        opened.type(f"{oathtool_code(shown_seed(opened), time.time())}\n")
        assert opened.finish()[0] == 0


@pytest.mark.parametrize("uid", [NAMELESS + 1, NAMELESS], ids=["no role", "no name"])
def test_who_has_no_role_or_no_name_is_told_so(served: Daemon, uid: int) -> None:
    with enrolling(served, uid=uid) as opened:
        status, shown = opened.finish()
    assert status == 4
    assert "forbidden: " in shown
    assert str(uid) in shown


def test_a_name_that_cannot_be_an_accounts_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text(f"{Path('/etc/passwd').read_text()}machine$:x:{NAMELESS}:{NAMELESS}::/:/bin/sh\n")
    mounts = Mounts('mount --bind "$1" /etc/passwd', str(passwd))
    daemon.root.chmod(0o755)
    daemon.configure('[[access]]\nrole = "enroll"\nwho = ["machine$"]\n')
    daemon.start(command=mounts.enter)
    with connect_as(NAMELESS, daemon.socket)[0] as peer:
        code, message = peer.refusal("enroll")
    daemon.close()
    mounts.close()
    assert code == "forbidden"
    assert "'machine$'" in message


def test_a_role_that_is_taken_away_ends_what_waits(served: Daemon) -> None:
    with connect_as(USER.pw_uid, served.socket)[0] as peer:
        seed = bytes.fromhex(peer.call("enroll")["seed"])
        served.configure("")
        served.reload()
        code, _ = peer.refusal("enroll_confirm", code=oathtool_code(seed, time.time()))
    assert code == "forbidden"
    assert accounts(served) == []


def test_the_seed_leaves_the_daemons_memory_as_it_is_used_for_other_things(served: Daemon) -> None:
    with connect_as(USER.pw_uid, served.socket)[0] as peer:
        seed = bytes.fromhex(peer.call("enroll")["seed"])
        assert peer.call("enroll_confirm", code=oathtool_code(seed, time.time())) == {"valid": True}

    def gone() -> bool:
        with served.client() as client:
            for _ in range(50):
                client.accounts()
                client.generate(NAME)
        return "seed" not in memory.hits(served.pid, {"seed": seed})

    wait_until(gone, "the seed stays")
    assert memory.hits(served.pid, {"name": NAME.encode()})  # the search finds what is there

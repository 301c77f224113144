"""`pki2factl enroll` for one more authenticator and by registrars, and `remove` of a lost one."""

import base64
import json
import os
import pwd
import subprocess
import time

import pytest
from support.agents import oathtool_code
from support.daemon import PATIENCE, PKI2FACTL, Daemon, as_user, environment, wait_until
from support.raw import Seed, connect_as
from support.terminal import Terminal, secret_of, terminal, uris

from pki2fad.crypto.rsakeys import PrivateKey

USER = next(user for user in pwd.getpwall() if user.pw_uid not in (0, 65534))
NAME = USER.pw_name
REGISTRAR = 4243


@pytest.fixture
def served(daemon: Daemon) -> Daemon:
    """A daemon of root's that lets a user enrol, and another uid others."""
    as_user(USER.pw_uid)
    daemon.root.chmod(0o755)
    daemon.configure(
        f'[[access]]\nrole = "enroll"\nwho = [{USER.pw_uid}]\n'
        f'[[access]]\nrole = "registrar"\nwho = [{REGISTRAR}]\naccounts = ["web-*"]\n'
    )
    return daemon.start()


@pytest.fixture
def phone(served: Daemon, host_key: PrivateKey) -> Seed:
    """The seed of the user's account."""
    seed = Seed()
    with served.client() as client:
        client.load(seed.sealed(host_key), NAME)
    return seed


def labels(daemon: Daemon, name: str = NAME) -> list[str]:
    rows = json.loads(daemon.ctl("accounts", "--json").stdout)
    return [one["label"] for row in rows if row["account"] == name for one in row["authenticators"]]


def seed_of(uri: str) -> bytes:
    secret = secret_of(uri)
    return base64.b32decode(secret + "=" * (-len(secret) % 8))


def finish(opened: Terminal) -> tuple[int, str]:
    """Give the first code of the seed that is shown."""
    opened.wait_for("\r\nCode: " if "recovery code: " in opened.shown else "Code: ")
    (uri,) = uris(opened.shown)
    opened.type(f"{oathtool_code(seed_of(uri), time.time())}\n")
    return opened.finish()


def test_a_user_adds_a_tablet_at_a_terminal_and_removes_the_lost_phone(served: Daemon, phone: Seed) -> None:
    arguments = ("--socket", str(served.socket), "enroll", "--label", "tablet")
    with terminal(served.root, *arguments, command=as_user(USER.pw_uid)) as opened:
        opened.wait_for("recovery code: ")
        assert not uris(opened.shown)
        opened.type(f"{phone.code()}\n")
        status, shown = finish(opened)
    assert (status, shown.splitlines()[-1]) == (0, f"{NAME} tablet is active"), shown
    assert labels(served) == ["main", "tablet"]
    with served.client() as client:
        recovery = client.recovery_create(NAME)[0]
    remove = ("remove", "--label", "main", "--stdin")
    for given, expected in (("0000000\n", 4), ("no code\n", 6), (recovery.lower(), 0), (recovery, 6)):
        done = served.ctl(*remove, command=as_user(USER.pw_uid), input=given)
        assert done.returncode == expected, done.stderr
    assert labels(served) == ["tablet"]
    said = [line for line in served.log().splitlines() if f" uid={USER.pw_uid} " in line]
    assert any(f"account={NAME} audit=added valid=True authenticator=tablet" in line for line in said)
    assert any("audit=removed recovered" in line or 'audit="removed recovered"' in line for line in said), (
        said
    )


@pytest.mark.usefixtures("phone")
def test_a_wrong_code_of_the_account_shows_no_seed(served: Daemon) -> None:
    arguments = ("--socket", str(served.socket), "enroll", "--label", "tablet")
    with terminal(served.root, *arguments, command=as_user(USER.pw_uid)) as opened:
        opened.wait_for("recovery code: ")
        opened.type("0000000\n")
        status, shown = opened.finish()
    assert status == 4
    assert "the code is not good" in shown
    assert not uris(shown)
    assert labels(served) == ["main"]


def test_a_script_gives_both_codes_on_standard_input(served: Daemon, phone: Seed) -> None:
    home = served.root / "home"
    home.mkdir()
    os.chown(home, USER.pw_uid, -1)
    file = home / "uri"
    arguments = ["--socket", str(served.socket), "enroll", "--label", "tablet", "--uri-out", str(file)]
    with subprocess.Popen(
        [*as_user(USER.pw_uid), PKI2FACTL, *arguments, "--stdin", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment(home),
    ) as process:
        assert process.stdin is not None
        process.stdin.write(f"{phone.code()}\n")
        process.stdin.flush()
        wait_until(lambda: file.exists() and file.read_text().endswith("\n"), "no URI came")
        code = oathtool_code(seed_of(file.read_text().strip()), time.time())
        stdout, _ = process.communicate(f"{code}\n", PATIENCE)
    assert json.loads(stdout) == {"account": NAME, "active": True, "label": "tablet"}
    assert labels(served) == ["main", "tablet"]


def test_a_registrar_enrols_within_its_patterns_and_nobody_else(served: Daemon, phone: Seed) -> None:
    arguments = ("--socket", str(served.socket), "enroll", "--account", "web-1")
    with terminal(served.root, *arguments, command=as_user(REGISTRAR)) as opened:
        status, shown = finish(opened)
    assert (status, shown.splitlines()[-1]) == (0, "account web-1 is active"), shown
    assert labels(served, "web-1") == ["main"]
    code = phone.code()
    with connect_as(REGISTRAR, served.socket)[0] as peer:
        assert peer.call("exists", account="web-1") == {"account": "web-1", "exists": True}
        assert peer.call("exists", account="web-2") == {"account": "web-2", "exists": False}
        for name in (NAME, "web", "Web-1", "root"):
            assert peer.refusal("exists", account=name)[0] == "forbidden"
            assert peer.refusal("enroll", account=name, label="x", code=code)[0] == "forbidden"
        assert peer.refusal("enroll", account="web-*")[0] == "bad_request"
        assert peer.refusal("enroll", account="web-1", label="x")[0] == "account_exists"
        assert peer.refusal("enroll")[0] == "forbidden"
        assert peer.refusal("remove", account="web-1")[0] == "forbidden"
    with connect_as(USER.pw_uid, served.socket)[0] as peer:
        assert peer.refusal("enroll", account="web-2")[0] == "forbidden"
        assert peer.refusal("exists", account="web-1")[0] == "forbidden"
    assert served.ctl("verify", code, "--account", NAME).stdout == "valid\n"  # it was not spent


def test_of_requests_in_one_go_a_code_is_good_for_one(served: Daemon, host_key: PrivateKey) -> None:
    seed = Seed()
    with served.client() as client:
        client.load(seed.sealed(host_key), "web-1")
    code = seed.code()
    with connect_as(REGISTRAR, served.socket)[0] as peer:
        args = [{"account": "web-1", "label": label, "code": code} for label in ("a", "b", "a")]
        peer.send(*([0, 800 + number, "enroll", [one]] for number, one in enumerate(args)))
        answers = [peer.receive()[2:] for _ in args]
    assert [error and error[0] for error, _ in answers] == [None, "forbidden", "forbidden"]
    served.kill()
    served.start()
    assert served.ctl("verify", code, "--account", "web-1").stdout == "invalid\n"


@pytest.mark.parametrize("arguments", [("remove",), ("remove", "--label", "main")], ids=" ".join)
def test_remove_without_what_it_needs_is_a_usage_error(served: Daemon, arguments: tuple[str, ...]) -> None:
    done = served.ctl(*arguments, command=as_user(USER.pw_uid))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("phone")
def test_where_there_is_an_account_the_user_is_told_of_labels(served: Daemon) -> None:
    with terminal(
        served.root, "--socket", str(served.socket), "enroll", command=as_user(USER.pw_uid)
    ) as opened:
        status, shown = opened.finish()
    assert status == 6
    assert "hint: to add an authenticator to it: pki2factl enroll --label LABEL" in shown

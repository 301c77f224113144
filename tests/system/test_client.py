"""The public client against a real daemon."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import PATIENCE, Daemon, Mounts, as_user, environment, short_directory
from support.raw import Seed

from pki2fad.client import Account, Client, Code
from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import (
    AccountExists,
    BadRequest,
    BadSeal,
    NobodyListens,
    NoSuchAccount,
    NotReachable,
    Refusal,
    Unavailable,
)

STRANGER = 12345  # a uid without any role


@pytest.fixture(scope="module")
def running(host_key: PrivateKey) -> Iterator[Daemon]:
    """One daemon for all tests that leave it running."""
    with short_directory() as path:
        path.chmod(0o755)  # for other users
        daemon = Daemon(path)
        daemon.install_key(rsakeys.private_pem(host_key))
        yield daemon.start()
        daemon.close()


@pytest.fixture
def client(running: Daemon) -> Iterator[Client]:
    with running.client() as client:
        yield client


@pytest.fixture
def seed(client: Client, host_key: PrivateKey) -> Seed:
    """A new seed, loaded as the account `default`."""
    seed = Seed()
    client.load(seed.sealed(host_key), replace=True)
    return seed


def test_generate_gives_a_code_and_how_long_it_is_good(client: Client, seed: Seed) -> None:
    code = client.generate()
    assert type(code) is Code
    assert code.code == seed.code(code.step)
    assert 1 <= code.valid_for <= 30


def test_verify_is_true_once(client: Client, seed: Seed) -> None:
    code = seed.code()
    assert client.verify(code) is True
    assert client.verify(code) is False


def test_load_says_whether_it_changed_anything(client: Client, host_key: PrivateKey) -> None:
    seed = Seed("SHA512", 8, 60)
    for changed in (True, False):
        assert client.load(seed.sealed(host_key), "changes", **seed.parameters) is changed
    code = client.generate("changes")
    assert code.code == seed.code(code.step)
    assert client.load(Seed().sealed(host_key), "changes", replace=True) is True


def test_accounts_are_objects(client: Client, host_key: PrivateKey) -> None:
    seed = Seed("SHA256", 7, 120)
    client.load(seed.sealed(host_key), account="listed", **seed.parameters)
    (account,) = [account for account in client.accounts() if account.account == "listed"]
    assert type(account) is Account
    assert (account.algorithm, account.digits, account.period) == ("SHA256", 7, 120)
    assert account.last_used is None
    step = client.generate("listed").step
    assert client.verify(seed.code(step), account="listed")
    (account,) = [account for account in client.accounts() if account.account == "listed"]
    assert account.last_used == step * 120


def test_remove_gives_nothing_and_the_account_is_gone(client: Client, host_key: PrivateKey) -> None:
    client.load(Seed().sealed(host_key), "gone")
    assert client.remove("gone") is None
    with pytest.raises(NoSuchAccount, match="gone"):
        client.remove("gone")


def test_status_is_a_dict(running: Daemon, client: Client) -> None:
    status = client.status()
    assert type(status) is dict
    assert (status["pid"], status["ready"]) == (running.pid, True)


def test_the_daemons_refusals_are_exceptions(client: Client, seed: Seed, host_key: PrivateKey) -> None:
    refused = {
        BadRequest: lambda: client.verify("12345"),
        NoSuchAccount: lambda: client.generate("nobody"),
        AccountExists: lambda: client.load(Seed().sealed(host_key)),
        BadSeal: lambda: client.load(b"not sealed", "new"),
    }
    for kind, call in refused.items():
        with pytest.raises(Refusal) as caught:
            call()
        assert type(caught.value) is kind
        assert not str(caught.value).startswith(kind.code)  # that is said by the class
        assert caught.value.retry_after is None
    assert client.verify(seed.code())  # over the same connection


def test_a_bad_code_is_not_in_the_text_of_its_error(client: Client) -> None:
    with pytest.raises(BadRequest) as caught:
        client.verify("123456789")
    assert "123456789" not in f"{caught.value!r} {caught.value}"


def test_no_repr_shows_a_code(client: Client, seed: Seed) -> None:
    code = client.generate()
    client.verify(seed.code(code.step))
    shown = repr([code, client, client.accounts()])
    assert code.code not in shown


def test_who_has_no_role_gets_forbidden(running: Daemon) -> None:
    script = """
import sys
from pki2fad.client import Client
from pki2fad.errors import Forbidden
with Client(sys.argv[1]) as client:
    for call in (client.generate, lambda: client.verify("123456"), client.accounts):
        try:
            call()
        except Forbidden as error:
            print(error.code)
    print(client.status()["ready"])
"""
    command = [*as_user(STRANGER), sys.executable, "-P", "-c", script, str(running.socket)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert shown.stdout.split() == ["forbidden"] * 3 + ["True"]


def test_after_a_crash_of_the_machine_verify_says_when_to_try_again(
    daemon: Daemon, host_key: PrivateKey
) -> None:
    seed = Seed()
    daemon.start(PKI2FAD_BOOT_ID="one")
    with daemon.client() as client:
        client.load(seed.sealed(host_key))
        assert client.verify(seed.code())
        daemon.kill()
        daemon.start(PKI2FAD_BOOT_ID="another")
        with pytest.raises(Unavailable) as caught:
            client.verify(seed.code())
        assert 1 <= caught.value.retry_after <= 60


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_client_outlives_a_restart_of_the_daemon(daemon: Daemon, host_key: PrivateKey, end: str) -> None:
    seed = Seed()
    daemon.start()
    with daemon.client() as client:
        client.load(seed.sealed(host_key))
        code = seed.code()
        assert client.verify(code) is True
        getattr(daemon, end)()
        with pytest.raises(NotReachable):
            client.verify(code)
        daemon.start()
        assert client.verify(code) is False
        assert client.status()["pid"] == daemon.pid


def test_where_nobody_listens_the_error_names_the_path(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, given = short_path / "missing", short_path / "given"
    with pytest.raises(NotReachable, match=f"{missing} \\(No such file or directory\\)"):
        Client(str(missing)).status()
    monkeypatch.setenv("PKI2FAD_SOCKET", str(given))
    given.touch()
    with pytest.raises(NotReachable, match=f"{given} \\(Connection refused\\)"):
        Client().status()


def test_a_client_can_be_told_who_may_serve_the_socket(daemon: Daemon) -> None:
    daemon.start()
    with Client(str(daemon.socket), servers={os.geteuid()}) as client:
        assert client.status()["ready"]
    with pytest.raises(NotReachable, match="is not trusted") as caught:
        Client(str(daemon.socket), servers={STRANGER}).status()
    assert not isinstance(caught.value, NobodyListens)


def test_without_a_path_the_error_names_every_place_in_order(short_path: Path) -> None:
    script = "from pki2fad.client import Client; Client().status()"
    home, runtime = short_path / "home", short_path / "runtime"
    command = [*as_user(STRANGER), sys.executable, "-P", "-c", script]
    short_path.chmod(0o755)
    for directory in (home, runtime):
        directory.mkdir()
        os.chown(directory, STRANGER, STRANGER)
    env = environment(home, XDG_RUNTIME_DIR=str(runtime))
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE, "env": env}
    # The system's own daemon may run on this machine.
    with contextlib.closing(Mounts("mount -t tmpfs -o mode=0755 tmpfs /run")) as mounts:
        failed = subprocess.run([*mounts.enter, *command], check=False, **options)
    error = failed.stderr.splitlines()[-1]
    places = [f"{runtime}/pki2fad/socket", f"{home}/.local/state/pki2fad/run/socket", "/run/pki2fad/socket"]
    assert "NobodyListens" in error
    assert [error.find(place) for place in places] == sorted(error.find(place) for place in places)
    assert all(place in error for place in places)


def test_threads_may_share_a_client(client: Client, host_key: PrivateKey) -> None:
    seeds = {f"thread{number}": Seed() for number in range(8)}
    for name, seed in seeds.items():
        client.load(seed.sealed(host_key), name, replace=True)
    made: dict[str, list[Code]] = {name: [] for name in seeds}

    def generate(name: str) -> None:
        for _ in range(100):
            made[name].append(client.generate(name))

    threads = [threading.Thread(target=generate, args=(name,)) for name in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for name, codes in made.items():
        right = {step: seeds[name].code(step) for step in {code.step for code in codes}}
        assert len(codes) == 100
        assert all(code.code == right[code.step] for code in codes)


def test_a_forked_child_has_a_connection_of_its_own(
    running: Daemon, client: Client, host_key: PrivateKey
) -> None:
    seeds = {name: Seed() for name in ("parent", "child")}
    for name, seed in seeds.items():
        client.load(seed.sealed(host_key), name, replace=True)
    # In a process of its own, since this one has threads. Both ask at the same time.
    script = """
import os, sys
from pki2fad.client import Client
with Client(sys.argv[1]) as client:
    client.status()
    child = os.fork()
    name = "parent" if child else "child"
    codes = {(name, code.step, code.code) for code in (client.generate(name) for _ in range(500))}
    os.write(1, "".join(" ".join(map(str, code)) + "\\n" for code in codes).encode())
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-P", "-c", script, str(running.socket)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert {name for name, _, _ in rows} == {"parent", "child"}
    assert all(code == seeds[name].code(int(step)) for name, step, code in rows)

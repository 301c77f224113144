"""`verify.sock`, on which nothing is answered but `verify`, to root too."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.activation import activated, listening
from support.daemon import Daemon, as_user, code_of, ctl
from support.peers import require_root
from support.raw import RawPeer, connect
from support.terminal import terminal

SEED = b"a seed of the verifying tests..."

METHODS: dict[str, dict[str, Any]] = {
    "generate": {},
    "status": {},
    "accounts": {},
    "remove": {},
    "load": {"sealed": b""},
    "lock": {},
    "unlock": {},
    "recipients": {},
    "clock_accept": {},
    "enroll": {},
    "recovery_create": {},
}


@pytest.fixture
def path(daemon: Daemon) -> Path:
    return daemon.root / "verify.sock"


@pytest.fixture
def served(daemon: Daemon, path: Path, seal: Callable[[bytes], bytes]) -> Daemon:
    """A daemon with an account that listens on both."""
    daemon.deliver("default", seal(SEED))
    daemon.configure(f'verify_socket = "{path}"\n')
    daemon.start()
    return daemon


@pytest.fixture
def peer(served: Daemon, path: Path) -> Iterator[RawPeer]:  # noqa: ARG001 - it has to be there
    """The daemon's own user, who may do everything elsewhere."""
    with connect(path) as peer:
        yield peer


def test_codes_are_verified_there_and_spent_for_both(served: Daemon, peer: RawPeer) -> None:
    with served.client() as client:
        code = code_of(SEED, client.generate().step)
        assert peer.call("verify", code=code) == {"valid": True}
        assert not client.verify(code)
    assert peer.call("verify", code=code) == {"valid": False}


@pytest.mark.parametrize("method", METHODS)
def test_nothing_else_is_answered_whoever_asks(peer: RawPeer, method: str) -> None:
    code, text = peer.refusal(method, **METHODS[method])
    assert (code, text) == ("forbidden", "forbidden: this socket answers only verify")


def test_it_does_not_say_whether_there_is_an_account(peer: RawPeer) -> None:
    assert peer.call("verify", account="nobody", code="000000") == {"valid": False}


def test_who_relays_names_origins_there_too(peer: RawPeer) -> None:
    assert peer.call("verify", code="0000000", origin="192.0.2.1") == {"valid": False}


def test_others_do_not_reach_it(served: Daemon, path: Path) -> None:
    require_root()
    served.root.chmod(0o755)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    done = ctl(served.root, "--socket", str(path), "verify", "000000", command=as_user(4711))
    assert done.returncode == 3
    assert "Permission denied" in done.stderr


def test_it_goes_with_the_daemon(served: Daemon, path: Path) -> None:
    assert path.exists()
    assert served.stop() == 0
    assert not path.exists()


def test_the_socket_that_systemd_passes_is_used(
    daemon: Daemon, path: Path, seal: Callable[[bytes], bytes]
) -> None:
    daemon.deliver("default", seal(SEED))
    with listening(path) as passed, listening(daemon.socket) as main:
        names = "pki2fad-verify.socket:pki2fad.socket"
        command = activated(names, passed, main)
        daemon.start(command=command, pass_fds=[passed.fileno(), main.fileno()])
        with connect(path) as restricted, connect(daemon.socket) as peer:
            assert restricted.refusal("generate")[0] == "forbidden"
            code = peer.call("generate")["code"]
            assert restricted.call("verify", code=code) == {"valid": True}
    assert daemon.stop() == 0
    assert path.exists()


def test_what_another_daemon_listens_on_is_refused(served: Daemon, path: Path) -> None:
    root = served.root / "2"
    root.mkdir()
    second = Daemon(root)
    second.install_key((served.config_dir / "host.pem").read_bytes())
    second.configure(f'verify_socket = "{path}"\n')
    with closing(second):
        assert str(path) in second.fail_to_start()
    assert served.ctl("status").returncode == 0


@pytest.fixture
def for_all(daemon: Daemon) -> Daemon:
    """A daemon that root started, with a socket path that others reach."""
    require_root()
    daemon.root.chmod(0o755)
    daemon.start()
    return daemon


def test_beside_the_socket_of_a_system_are_one_for_root_and_one_for_verify(for_all: Daemon) -> None:
    sockets = [path for path in for_all.root.iterdir() if path.is_socket() and path.name != "notify"]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in sockets}
    assert modes == {"socket": 0o666, "root.sock": 0o600, "verify.sock": 0o660}
    assert ctl(for_all.root, "--socket", str(for_all.root / "root.sock"), "status").returncode == 0
    assert for_all.stop() == 0
    assert not {"socket", "root.sock", "verify.sock"} & {path.name for path in for_all.root.iterdir()}


def test_others_do_not_reach_the_socket_of_root(for_all: Daemon) -> None:
    place = str(for_all.root / "root.sock")
    done = ctl(for_all.root, "--socket", place, "status", command=as_user(4711))
    assert done.returncode == 3
    assert "Permission denied" in done.stderr


def test_a_daemon_of_one_user_has_one_socket(daemon: Daemon) -> None:
    require_root()
    user = 4711
    for path in (daemon.root, *daemon.root.rglob("*")):
        os.chown(path, user, user)
    daemon.root.chmod(0o755)
    daemon.start(command=as_user(user))
    assert {path.name for path in daemon.root.iterdir() if path.is_socket()} == {"socket", "notify"}


def test_verify_asks_for_a_code_there_too(served: Daemon, path: Path) -> None:
    with served.client() as client:
        code = client.generate().code
    with terminal(served.root, "--socket", str(path), "verify") as opened:
        opened.wait_for("Code: ")
        opened.type(f"{code}\n")
        status, shown = opened.finish()
    assert (status, shown.splitlines()[-1]) == (0, "valid")


def test_who_asks_for_more_there_is_told_to_ask_on_another_socket(served: Daemon, path: Path) -> None:
    done = ctl(served.root, "--socket", str(path), "status")
    assert done.returncode == 4
    assert "hint: ask on another socket, for example with --socket /run/pki2fad/socket\n" in done.stderr

"""Directories and names: systemd's, root's and a user's, whatever the environment says."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from support import peers

from pki2fad.errors import UnusablePath
from pki2fad.host import paths

# Nobody's: it stands for an ordinary user where the tests run as root.
UID = 61_234

VARIABLES = (
    "CREDENTIALS_DIRECTORY",
    "LOGS_DIRECTORY",
    "PKI2FAD_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment that says nothing but where home is."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """We are root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> int:
    """We are an ordinary user."""
    uid = os.geteuid() or UID
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    return uid


def directory_of(uid: int, path: Path) -> Path:
    path.mkdir()
    if path.stat().st_uid != uid:
        os.chown(path, uid, uid)
    return path


@pytest.mark.usefixtures("root")
def test_root_has_the_directories_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):  # as sudo may leave them
        monkeypatch.setenv(variable, str(tmp_path))
    assert paths.config_dir() == "/etc/pki2fad"
    assert paths.state_dir() == "/var/lib/pki2fad"
    assert paths.log_dir("/var/lib/pki2fad") == "/var/log/pki2fad"
    assert paths.socket_path() == "/run/pki2fad/socket"
    assert paths.client_sockets() == ["/run/pki2fad/root.sock", "/run/pki2fad/socket"]


@pytest.mark.usefixtures("user")
def test_a_user_has_directories_below_home(home: Path) -> None:
    assert paths.config_dir() == f"{home}/.config/pki2fad"
    assert paths.state_dir() == f"{home}/.local/state/pki2fad"
    assert paths.log_dir(paths.state_dir()) == f"{home}/.local/state/pki2fad/log"
    assert paths.socket_path() == f"{home}/.local/state/pki2fad/run/socket"


@pytest.mark.usefixtures("user")
def test_a_user_may_have_xdg_directories_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/else/config")
    monkeypatch.setenv("XDG_STATE_HOME", "/else/state")
    monkeypatch.setenv("HOME", "/nonexistent")  # nothing needs it then
    assert paths.config_dir() == "/else/config/pki2fad"
    assert paths.state_dir() == "/else/state/pki2fad"
    assert paths.socket_path() == "/else/state/pki2fad/run/socket"


@pytest.mark.parametrize("value", ["", "relative", "./relative", "~/state"])
def test_an_xdg_directory_that_is_not_absolute_is_ignored(
    value: str, user: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory_of(user, home / "relative")
    monkeypatch.chdir(home)
    for variable in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, value)
    assert paths.config_dir() == f"{home}/.config/pki2fad"
    assert paths.state_dir() == f"{home}/.local/state/pki2fad"
    assert paths.socket_path() == f"{home}/.local/state/pki2fad/run/socket"


def test_the_run_time_directory_of_the_user_comes_before_home(
    user: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = directory_of(user, home / "runtime")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert paths.socket_path() == f"{runtime}/pki2fad/socket"
    assert paths.client_sockets() == [
        f"{runtime}/pki2fad/socket",
        f"{home}/.local/state/pki2fad/run/socket",
        "/run/pki2fad/socket",
    ]


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("runtime", ["/", "/nonexistent", "/etc/passwd", "/proc/1/cwd/nowhere"])
def test_a_run_time_directory_that_is_not_the_users_is_none(
    runtime: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)  # as su leaves another's
    assert paths.socket_path() == f"{home}/.local/state/pki2fad/run/socket"
    assert paths.client_sockets() == [
        f"{home}/.local/state/pki2fad/run/socket",
        "/run/pki2fad/socket",
    ]


def test_a_file_of_the_user_is_no_run_time_directory(
    user: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "file"
    file.touch()
    if os.stat(file).st_uid != user:
        os.chown(file, user, user)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(file))
    assert paths.socket_path() == f"{home}/.local/state/pki2fad/run/socket"


def test_after_su_the_users_own_run_time_directory_is_found() -> None:
    peers.require_root()
    script = f"""
import os, subprocess
from pki2fad.host import paths
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
os.environ["HOME"] = "/run/home"
os.mkdir("/run/home")
for uid in (0, {UID}):
    os.makedirs(f"/run/user/{{uid}}")
    os.chown(f"/run/user/{{uid}}", uid, uid)
os.seteuid({UID})
os.environ["XDG_RUNTIME_DIR"] = "/run/user/0"
print(paths.socket_path(), *paths.client_sockets())
os.environ["XDG_RUNTIME_DIR"] = "/run/user/{UID}"
print(*paths.client_sockets())
os.seteuid(0)
"""
    command = [peers.require("unshare"), "--mount", "--", sys.executable, "-P", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    own, below_home = f"/run/user/{UID}/pki2fad/socket", "/run/home/.local/state/pki2fad/run/socket"
    after_su, properly = done.stdout.splitlines()
    assert after_su.split() == [own, own, below_home, "/run/pki2fad/socket"]
    assert properly.split() == [own, below_home, "/run/pki2fad/socket"]


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("home", ["/nonexistent", "/", "//", "", "relative", "/etc/passwd"])
def test_without_a_home_the_error_names_the_options_to_give(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    for find in (paths.config_dir, paths.state_dir, paths.socket_path):
        with pytest.raises(UnusablePath) as caught:
            find()
        for option in ("--state-dir", "--config-dir", "--socket"):
            assert option in str(caught.value)


@pytest.mark.usefixtures("user")
def test_without_a_home_a_client_still_looks_for_the_daemon_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    assert paths.client_sockets() == ["/run/pki2fad/socket"]


def test_without_a_home_the_run_time_directory_is_enough_for_the_socket(
    user: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = directory_of(user, home / "runtime")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("HOME", "/nonexistent")
    assert paths.socket_path() == f"{runtime}/pki2fad/socket"
    assert paths.client_sockets() == [f"{runtime}/pki2fad/socket", "/run/pki2fad/socket"]


@pytest.mark.usefixtures("user")
def test_where_the_environment_names_no_home_the_user_database_does(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry for entry in pwd.getpwall() if entry.pw_uid == os.getuid()]
    if not entries or not os.path.isdir(entries[0].pw_dir):
        pytest.skip("the user database has no home for the user of this test")
    monkeypatch.delenv("HOME")
    assert paths.state_dir() == f"{entries[0].pw_dir}/.local/state/pki2fad"


@pytest.mark.parametrize("who", ["root", "user"])
def test_the_directories_that_systemd_passes_come_first(
    who: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(who)
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/ours")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/ours:/var/lib/second")
    monkeypatch.setenv("LOGS_DIRECTORY", "/var/log/ours")
    assert paths.socket_path() == "/run/ours/socket"
    assert paths.state_dir() == "/var/lib/ours"
    assert paths.log_dir("/somewhere/else") == "/var/log/ours"


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_client_never_looks_where_systemd_put_another_service(
    who: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(who)
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/webapp")
    assert not [path for path in paths.client_sockets() if path.startswith("/run/webapp")]


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_client_looks_nowhere_else_when_its_environment_names_a_socket(
    who: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(who)
    monkeypatch.setenv("PKI2FAD_SOCKET", "/tmp/its/socket")
    assert paths.client_sockets() == ["/tmp/its/socket"]
    monkeypatch.setenv("PKI2FAD_SOCKET", "")
    assert "/run/pki2fad/socket" in paths.client_sockets()


def test_a_credential_is_found_only_where_it_was_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "host.pem").touch()
    (tmp_path / "directory").mkdir()
    assert paths.credential("host.pem") is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert paths.credential("host.pem") == f"{tmp_path}/host.pem"
    assert paths.credential("other.pem") is None
    assert paths.credential("directory") is None

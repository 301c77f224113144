"""Where things are when no option says so, for root and for others, and how the client finds them."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE, PKI2FACTL, PKI2FAD, Daemon, Mounts, as_user, ctl, environment
from support.raw import Seal

SEED = b"a seed of the tests of places..."
UID = 4242


class PlainDaemon(Daemon):
    """A daemon that is told no path."""

    def arguments(self) -> list[str]:
        return []


class UsersDaemon(PlainDaemon):
    """A daemon of an ordinary user, whose home directory is `root`, on a machine without any other."""

    def __init__(self, root: Path, mounts: Mounts) -> None:
        super().__init__(root)
        self.mounts = mounts
        self.user = [*mounts.enter, *as_user(UID)]
        self.config_dir = root / ".config" / "pki2fad"
        self.state_dir = root / ".local" / "state" / "pki2fad"
        self.log_dir = self.state_dir / "log"
        self.codes_log = self.log_dir / "codes.log"
        self.state_file = self.state_dir / "state.db"
        self.seeds_dir = self.config_dir / "seeds.d"
        self.run_dir = self.state_dir / "run"


@pytest.fixture
def users(short_path: Path, daemon: Daemon, seal: Seal) -> Iterator[UsersDaemon]:
    """An ordinary user's, with a key and an account, not started."""
    home = short_path / "home"
    home.mkdir()
    short_path.chmod(0o755)
    mounts = Mounts("mount -t tmpfs tmpfs /run")
    users = UsersDaemon(home, mounts)
    users.config_dir.mkdir(parents=True)
    users.install_key((daemon.config_dir / "host.pem").read_bytes())
    users.deliver("default", seal(SEED))
    users.give_to(UID)
    yield users
    users.close()
    mounts.close()


def ask(users: UsersDaemon, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run pki2factl as the user, who names no socket."""
    return ctl(users.root, *arguments, command=users.user, env=env)


def runtime_dir(users: UsersDaemon, owner: int) -> Path:
    path = users.root.parent / f"runtime-{owner}"
    path.mkdir(mode=0o700)
    os.chown(path, owner, owner)
    return path


def test_a_users_socket_is_in_the_runtime_directory(users: UsersDaemon) -> None:
    directory = runtime_dir(users, UID)
    users.start(command=users.user, XDG_RUNTIME_DIR=str(directory))
    assert (directory / "pki2fad" / "socket").is_socket()
    assert not users.run_dir.exists()
    done = ask(users, "generate", XDG_RUNTIME_DIR=str(directory))
    assert done.returncode == 0, done.stderr


def test_without_one_everything_is_below_the_home_directory(users: UsersDaemon) -> None:
    users.start(command=users.user)
    assert ask(users, "generate").returncode == 0
    assert (users.run_dir / "socket").is_socket()
    assert users.codes_log.exists()
    assert users.state_file.exists()
    for path in (users.run_dir, users.state_dir, users.log_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert path.stat().st_uid == UID


def test_the_runtime_directory_that_su_keeps_is_not_used(users: UsersDaemon) -> None:
    kept = {"XDG_RUNTIME_DIR": str(runtime_dir(users, 0))}
    users.start(command=users.user, **kept)
    assert (users.run_dir / "socket").is_socket()
    assert ask(users, "status", **kept).returncode == 0
    assert ask(users, "status").returncode == 0


@pytest.mark.parametrize("value", ["relative", ""], ids=["relative", "empty"])
def test_a_runtime_directory_that_is_no_absolute_path_is_not_used(users: UsersDaemon, value: str) -> None:
    (users.root / "relative").mkdir()
    users.give_to(UID)
    users.start(command=users.user, XDG_RUNTIME_DIR=value)
    assert (users.run_dir / "socket").is_socket()


def test_the_other_xdg_directories_are_used(users: UsersDaemon) -> None:
    moved = {"XDG_CONFIG_HOME": str(users.root / "c"), "XDG_STATE_HOME": str(users.root / "s")}
    (users.root / ".config").rename(users.root / "c")
    users.start(command=users.user, **moved)
    assert ask(users, "generate", **moved).returncode == 0
    assert (users.root / "s" / "pki2fad" / "state.db").exists()
    assert (users.root / "s" / "pki2fad" / "log" / "codes.log").exists()


@pytest.mark.parametrize("knows", ["both", "daemon", "client", "none"])
def test_the_client_finds_the_daemon_in_run_user_with_and_without_the_variable(
    users: UsersDaemon, knows: str
) -> None:
    directory = f"/run/user/{UID}"
    there = users.mounts.path(directory)
    there.mkdir(mode=0o700, parents=True)
    os.chown(there, UID, UID)
    variable = {"XDG_RUNTIME_DIR": directory}
    users.start(command=users.user, **(variable if knows in ("both", "daemon") else {}))
    assert (there / "pki2fad" / "socket").is_socket()
    env = variable if knows in ("both", "client") else {}
    assert ask(users, "generate", **env).returncode == 0


def test_systemds_directories_go_before_a_users_own(users: UsersDaemon) -> None:
    places = {name: users.root / name for name in ("RUNTIME", "STATE", "LOGS")}
    for path in places.values():
        path.mkdir()
    users.give_to(UID)
    more = {f"{name}_DIRECTORY": f"{path}:/another" for name, path in places.items()}
    users.start(command=users.user, **more)
    env = {"PKI2FAD_SOCKET": str(places["RUNTIME"] / "socket")}
    assert ask(users, "generate", **env).returncode == 0
    assert (places["STATE"] / "state.db").exists()
    assert (places["LOGS"] / "codes.log").exists()
    # The client is no part of the service: that variable is not for it.
    env = {"RUNTIME_DIRECTORY": more["RUNTIME_DIRECTORY"]}
    assert ask(users, "generate", **env).returncode == 3


def run(command: list[str], directory: Path, home: str | None) -> "subprocess.CompletedProcess[str]":
    env = environment(directory)
    del env["HOME"]
    if home is not None:
        env["HOME"] = home
    return subprocess.run(
        command, cwd="/", env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


homeless = pytest.mark.parametrize(
    "home",
    ["/nonexistent", "/", "/root", "", None],
    ids=["missing", "the root", "another's", "empty", "unset"],
)


@homeless
def test_a_home_that_cannot_be_used_is_said_with_the_options_instead(
    users: UsersDaemon, home: str | None
) -> None:
    done = run([*users.user, PKI2FAD], users.root, home)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for option in ("--state-dir", "--config-dir", "--socket"):
        assert option in done.stderr


@homeless
def test_with_these_options_no_home_is_needed(users: UsersDaemon, home: str | None) -> None:
    state, socket = users.root / "st", users.root / "so"
    options = [f"--state-dir={state}", f"--config-dir={users.config_dir}", f"--socket={socket}"]
    assert run([*users.user, PKI2FAD, "--check-config", *options], users.root, home).returncode == 0
    env = {"HOME": home} if home is not None else {}
    without = ["env", "-u", "HOME"] if home is None else []
    users.start(*options, command=[*without, *users.user], **env)
    done = run([*users.user, PKI2FACTL, "--socket", str(socket), "generate"], users.root, home)
    assert done.returncode == 0, done.stderr
    assert (state / "log" / "codes.log").exists()
    assert run([*users.user, PKI2FACTL, "generate"], users.root, home).returncode == 3


def test_the_client_says_where_it_looked(users: UsersDaemon) -> None:
    done = ask(users, "status")
    assert done.returncode == 3
    for place in (users.run_dir / "socket", "/run/pki2fad/socket"):
        assert str(place) in done.stderr


# The system's directories, writable and without a pki2fad, and no change to those of this machine.
OVERLAYS = """
mkdir "$1/layers"
mount -t tmpfs tmpfs "$1/layers"
mount -t tmpfs -o mode=755 tmpfs /run
for name in etc var; do
    mkdir "$1/layers/$name" "$1/layers/$name/upper" "$1/layers/$name/work"
    mount -t overlay -o "lowerdir=/$name,upperdir=$1/layers/$name/upper,workdir=$1/layers/$name/work" \\
        overlay "/$name"
    mountpoint -q "/$name"
done
rm -rf /etc/pki2fad /var/lib/pki2fad /var/log/pki2fad
"""


@pytest.fixture
def plain(short_path: Path) -> Iterator[PlainDaemon]:
    plain = PlainDaemon(short_path)
    yield plain
    plain.close()


@pytest.fixture
def system(plain: PlainDaemon) -> Iterator[Mounts]:
    mounts = Mounts(OVERLAYS, str(plain.root))
    yield mounts
    plain.close()
    mounts.close()


def test_root_has_the_systems_directories(plain: PlainDaemon, system: Mounts) -> None:
    made = ctl(plain.root, "init", command=system.enter)
    assert made.returncode == 0, made.stderr
    plain.start(command=system.enter)
    code = ctl(plain.root, "generate", command=system.enter)
    assert code.returncode == 0, code.stderr
    expected = {
        "/etc/pki2fad": 0o755,
        "/etc/pki2fad/host.pem": 0o600,
        "/etc/pki2fad/host.pub.pem": 0o644,
        "/etc/pki2fad/seeds.d": 0o755,
        "/etc/pki2fad/seeds.d/default.sealed": 0o644,
        "/var/lib/pki2fad": 0o700,
        "/var/lib/pki2fad/state.db": 0o600,
        "/var/log/pki2fad": 0o700,
        "/var/log/pki2fad/codes.log": 0o600,
        "/run/pki2fad": 0o755,
        "/run/pki2fad/socket": 0o666,
    }
    assert {path: stat.S_IMODE(system.path(path).stat().st_mode) for path in expected} == expected
    # An ordinary user finds the system's daemon too, where it has none of its own.
    assert ctl(plain.root, "status", command=[*system.enter, *as_user(UID)]).returncode == 0
    assert ctl(plain.root, "verify", code.stdout.strip(), command=system.enter).stdout == "valid\n"

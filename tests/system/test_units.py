"""The files in `systemd/`, as far as they can be checked without a running systemd."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from support import peers
from support.daemon import PKI2FAD, environment

from pki2fad.daemon import config
from pki2fad.daemon.config import Config, CredentialRule, LockConfig, ServerConfig, ThrottleConfig
from pki2fad.host.systemd import CREDENTIAL_SOCKET, ROOT_SOCKET, VERIFY_SOCKET
from pki2fad.host.systemd import SOCKET as SOCKET_NAME
from pki2fad.rules.access import DEFAULT_GROUPS, Rule
from pki2fad.server.listener import BACKLOG

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "pki2fad.service"
SOCKET = UNITS / "pki2fad.socket"
OTHER_SOCKETS = [UNITS / ROOT_SOCKET, UNITS / VERIFY_SOCKET, UNITS / CREDENTIAL_SOCKET]
METRICS = UNITS / "pki2fad-metrics.service"
TIMER = UNITS / "pki2fad-metrics.timer"
INSTALLED = [SERVICE, SOCKET, *OTHER_SOCKETS, METRICS, TIMER]
SYSUSERS = UNITS / "sysusers.d" / "pki2fad.conf"
SETTINGS = UNITS / "pki2fad.toml"

# What `systemd-analyze security` may find at most, in tenths (100: no protection at all). It is 4 with
# systemd 252; other versions count a little differently.
EXPOSURE = 5
EXPOSURE_OF_ROOT = 10  # of what runs as root, without capabilities

COMMANDS = ("/opt/pki2fad/bin/pki2fad", "/opt/pki2fad/bin/pki2factl", "/bin/kill")


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def assignments(unit: Path) -> dict[str, str]:
    """The settings of a unit; of one that is given more than once the last."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


def uncommented() -> str:
    """The settings with every commented one in force."""
    return re.sub(r"^#(?=[^ \n])", "", SETTINGS.read_text(), flags=re.MULTILINE)


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """The root of a system with the units and the commands that they run where they get installed."""
    peers.require("systemd-analyze")
    directory = tmp_path / "etc" / "systemd" / "system"
    directory.mkdir(parents=True)
    for unit in INSTALLED:
        (directory / unit.name).write_bytes(unit.read_bytes())
    for command in COMMANDS:
        path = tmp_path / command[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
    return tmp_path


def verify(system: Path) -> "subprocess.CompletedProcess[str]":
    units = [str(system / "etc" / "systemd" / "system" / unit.name) for unit in INSTALLED]
    return run("systemd-analyze", "verify", f"--root={system}", "--recursive-errors=no", *units)


def test_systemd_finds_nothing_wrong_with_the_installed_units(system: Path) -> None:
    done = verify(system)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_would_notice_a_misspelt_setting(system: Path) -> None:
    unit = system / "etc" / "systemd" / "system" / SOCKET.name
    unit.write_text(unit.read_text().replace("SocketMode", "SocketMod"))
    done = verify(system)
    assert done.returncode != 0
    assert "SocketMod" in done.stderr


def test_systemd_finds_nothing_wrong_with_a_users_units(short_path: Path) -> None:
    peers.require("systemd-analyze")
    for unit in (UNITS / "user").iterdir():
        (short_path / unit.name).write_text(unit.read_text().replace("/opt/pki2fad/bin/pki2fad", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--recursive-errors=no", *short_path.iterdir()],
        env={**os.environ, "XDG_RUNTIME_DIR": str(short_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("unit", "most"), [(SERVICE, EXPOSURE), (METRICS, EXPOSURE_OF_ROOT)], ids=["daemon", "metrics"]
)
def test_the_exposure_stays_small(unit: Path, most: int) -> None:
    peers.require("systemd-analyze")
    done = run("systemd-analyze", "security", "--offline=yes", f"--threshold={most}", str(unit))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("setting", ["PrivateUsers", "ProcSubset"])
def test_what_would_break_roles_or_the_boot_id_is_left_out(setting: str) -> None:
    assert setting not in assignments(SERVICE)


def test_the_socket_outlives_the_daemon_and_is_open_to_all() -> None:
    service, socket = assignments(SERVICE), assignments(SOCKET)
    assert "RuntimeDirectory" not in service
    assert f"--socket {socket['ListenStream']}" in service["ExecStart"]
    assert socket["SocketMode"] == "0666"
    assert socket.get("FileDescriptorName", SOCKET.name) == SOCKET_NAME


@pytest.mark.parametrize("unit", OTHER_SOCKETS, ids=lambda unit: unit.name)
def test_the_other_sockets_are_the_daemons_and_not_open_to_all(unit: Path) -> None:
    socket = assignments(unit)
    assert socket["Service"] == SERVICE.name
    assert Path(socket["ListenStream"]).parent == Path(assignments(SOCKET)["ListenStream"]).parent
    assert int(socket["SocketMode"], 8) & 0o007 == 0
    assert "FileDescriptorName" not in socket  # the daemon knows it by the unit's name


def test_all_sockets_that_clients_use_come_with_the_main_one() -> None:
    main, service = assignments(SOCKET), assignments(SERVICE)
    others = {ROOT_SOCKET, VERIFY_SOCKET}
    assert set(main["Also"].split()) == set(main["Wants"].split()) == set(service["Wants"].split()) == others
    assert set(service["After"].split()) == {SOCKET.name, *others}
    assert int(main["Backlog"]) == BACKLOG


def test_the_counts_go_where_node_exporter_looks_and_nowhere_else() -> None:
    unit = assignments(METRICS)
    directory = unit["ReadWritePaths"].removeprefix("-")
    assert unit["ConditionPathIsDirectory"] == directory
    assert unit["ExecStart"].endswith(f" metrics --out {directory}/pki2fad.prom")
    assert f"--socket {assignments(SOCKET)['ListenStream']} " in unit["ExecStart"]


def test_the_timer_goes_with_the_daemon_and_starts_none() -> None:
    timer = assignments(TIMER)
    assert (timer["PartOf"], timer["WantedBy"]) == (SERVICE.name, SERVICE.name)
    assert not {"Requires", "Wants", "BindsTo"} & timer.keys()
    assert not {"Requires", "Wants", "BindsTo"} & assignments(METRICS).keys()


def test_sysusers_makes_the_daemons_user_and_the_groups_of_the_roles(tmp_path: Path) -> None:
    peers.require("systemd-analyze")  # systemd-sysusers comes in the same package
    peers.require_root()
    (tmp_path / "etc").mkdir()
    done = run("systemd-sysusers", f"--root={tmp_path}", str(SYSUSERS))
    assert done.returncode == 0, done.stderr
    users = [line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()]
    groups = {line.split(":")[0] for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    assert [(user[0], user[6]) for user in users] == [(assignments(SERVICE)["User"], "/usr/sbin/nologin")]
    assert groups >= {assignments(SERVICE)["Group"], *DEFAULT_GROUPS.values()}


@pytest.mark.parametrize("text", [SETTINGS.read_text(), uncommented()], ids=["as shipped", "uncommented"])
def test_the_daemon_takes_the_shipped_settings(text: str, short_path: Path) -> None:
    file = short_path / "pki2fad.toml"
    file.write_text(text)
    done = subprocess.run(
        [PKI2FAD, "--config", str(file), "--check-config"],
        env=environment(short_path),
        cwd=short_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_as_shipped_no_setting_is_in_force() -> None:
    assert tomllib.loads(SETTINGS.read_text()) == {}


def test_every_setting_is_shipped() -> None:
    settings = tomllib.loads(uncommented())
    fields = set(Config._fields)
    assert set(settings) == fields - {"file"}  # which is where settings come from
    assert set(settings["server"]) == set(ServerConfig._fields)
    assert set(settings["access"][0]) == set(Rule._fields)
    assert set(settings["credential"][0]) == set(CredentialRule._fields)
    assert set(settings["minute_log"]) == {"accounts", "path"}
    assert set(settings["lock"]) == set(LockConfig._fields)
    assert set(settings["throttle"]) == set(ThrottleConfig._fields)


def test_the_commented_values_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        peers.missing("root (other users have other defaults)")
    for variable in ("STATE", "LOGS", "RUNTIME", "CREDENTIALS"):
        monkeypatch.delenv(f"{variable}_DIRECTORY", raising=False)
    file = tmp_path / "pki2fad.toml"
    file.touch()
    defaults = config.load(str(file), {})
    file.write_text(uncommented())
    loaded = config.load(str(file), {})
    assert loaded.root_socket == assignments(UNITS / ROOT_SOCKET)["ListenStream"]
    assert loaded.verify_socket == assignments(UNITS / VERIFY_SOCKET)["ListenStream"]
    examples = {
        "access": (),
        "credential": (),
        "root_socket": None,
        "verify_socket": None,
        "key_group": None,
    }
    assert loaded._replace(**examples) == defaults

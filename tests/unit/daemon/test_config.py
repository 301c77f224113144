"""The configuration: what goes before what, and where everything then is."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pki2fad.daemon import config
from pki2fad.daemon.config import Config
from pki2fad.errors import UnusablePath
from pki2fad.rules.access import Rule

Load = Callable[..., Config]


@pytest.fixture(autouse=True)
def home(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """We are a user with an empty home, below which is room for a socket, and systemd passes nothing."""
    variables = ("CREDENTIALS_DIRECTORY", "LOGS_DIRECTORY", "RUNTIME_DIRECTORY", "STATE_DIRECTORY")
    for variable in (*variables, "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(short_path))
    uid = os.geteuid() or 61_234
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    return short_path


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a configuration file with this text, beside what the command line names."""

    def load(toml: str, **given: str) -> Config:
        file = tmp_path / "settings.toml"
        file.write_text(toml)
        return config.load(str(file), given)

    return load


def test_without_any_configuration_everything_is_below_home(home: Path) -> None:
    settings = config.load(None, dict.fromkeys(config.PATH_SETTINGS))
    assert settings.config_dir == f"{home}/.config/pki2fad"
    assert settings.state_dir == f"{home}/.local/state/pki2fad"
    assert settings.log_dir == f"{home}/.local/state/pki2fad/log"
    assert settings.socket == f"{home}/.local/state/pki2fad/run/socket"
    assert settings.key == f"{home}/.config/pki2fad/host.pem"
    assert settings.seeds_dir == f"{home}/.config/pki2fad/seeds.d"
    assert settings.minute_log.files == {"default": f"{home}/.local/state/pki2fad/log/codes.log"}
    assert settings.access == ()


def test_the_caps_leave_each_user_a_thousand_connections_and_more() -> None:
    server = config.load(None, {}).server
    assert 1024 <= server.max_connections_per_uid <= server.max_connections


def test_a_file_may_begin_with_a_byte_order_mark(load: Load) -> None:
    assert load("\N{BYTE ORDER MARK}[lock]\r\nidle = 7\r\n").lock.idle == 7


def test_every_setting_of_a_file_is_used(load: Load) -> None:
    settings = load("""
        config_dir = "/a/config"
        state_dir = "/a/state"
        log_dir = "/a/log"
        socket = "/a/run/socket"
        key = "/a/key.pem"
        key_group = "keepers"

        [[access]]
        role = "generate"
        who = ["deploy", "@ops", 1000]
        accounts = ["deploy", "web.1@example"]

        [[access]]
        role = "admin"
        who = [0]

        [minute_log]
        accounts = ["deploy"]
        path = "/a/minutes"

        [server]
        max_connections = 500
        max_connections_per_uid = 50
    """)
    paths = (settings.config_dir, settings.state_dir, settings.log_dir, settings.socket, settings.key)
    assert paths == ("/a/config", "/a/state", "/a/log", "/a/run/socket", "/a/key.pem")
    assert settings.key_group == "keepers"
    assert settings.access == (
        Rule("generate", ("deploy", "@ops", 1000), ("deploy", "web.1@example")),
        Rule("admin", (0,), None),
    )
    assert settings.minute_log.files == {"deploy": "/a/minutes"}
    assert (settings.server.max_connections, settings.server.max_connections_per_uid) == (500, 50)


@pytest.mark.parametrize("name", config.PATH_SETTINGS)
def test_the_command_line_goes_before_the_file_and_the_file_before_the_rest(
    name: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "LOGS_DIRECTORY"):
        monkeypatch.setenv(variable, "/from/systemd")
    toml = f'{name} = "/from/the/file"'
    assert getattr(load(toml, **{name: "/from/the/command/line"}), name) == "/from/the/command/line"
    assert getattr(load(toml), name) == "/from/the/file"
    assert getattr(load(""), name) != "/from/the/file"


def test_what_systemd_passes_goes_before_the_places_of_the_user(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/ours")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/ours")
    monkeypatch.setenv("LOGS_DIRECTORY", "/var/log/ours")
    settings = load("")
    assert settings.socket == "/run/ours/socket"
    assert settings.state_dir == "/var/lib/ours"
    assert settings.minute_log.files == {"default": "/var/log/ours/codes.log"}


def test_logs_and_keys_follow_the_directories_that_are_named(load: Load) -> None:
    settings = load("", config_dir="/a/config", state_dir="/a/state")
    assert settings.key == "/a/config/host.pem"
    assert settings.seeds_dir == "/a/config/seeds.d"
    assert settings.log_dir == "/a/state/log"


def test_the_file_in_the_configuration_directory_is_read_without_being_named(tmp_path: Path) -> None:
    (tmp_path / "pki2fad.toml").write_text('log_dir = "/a/log"')
    assert config.load(None, {"config_dir": str(tmp_path)}).log_dir == "/a/log"


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(UnusablePath, match=r"missing\.toml: No such file"):
        config.load(str(tmp_path / "missing.toml"), {})


def test_a_file_in_the_configuration_directory_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path,
) -> None:
    (tmp_path / "pki2fad.toml").symlink_to("nowhere")
    with pytest.raises(UnusablePath, match=r"pki2fad\.toml"):
        config.load(None, {"config_dir": str(tmp_path)})


def test_a_key_that_systemd_passes_is_used_unless_another_is_named(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load("", config_dir="/a/config").key == "/a/config/host.pem"
    (tmp_path / "host.pem").touch()
    assert load("", config_dir="/a/config").key == f"{tmp_path}/host.pem"
    assert load('key = "/a/key.pem"').key == "/a/key.pem"
    assert load('key = "/a/key.pem"', key="/b/key.pem").key == "/b/key.pem"


@pytest.mark.parametrize(
    ("toml", "files"),
    [
        ("accounts = []", {}),
        ("", {"default": "/a/log/codes.log"}),
        ('accounts = ["deploy"]', {"deploy": "/a/log/codes.log"}),
        (
            'accounts = ["default", "web.1@x"]',
            {"default": "/a/log/codes.default.log", "web.1@x": "/a/log/codes.web.1@x.log"},
        ),
        ('path = "/b/minutes"', {"default": "/b/minutes"}),
        ('accounts = ["a", "b"]\npath = "/b/minutes"', {"a": "/b/minutes.a", "b": "/b/minutes.b"}),
        ('accounts = ["a", "b"]\npath = "/b.d/m.txt"', {"a": "/b.d/m.a.txt", "b": "/b.d/m.b.txt"}),
        ('accounts = []\npath = "/b/minutes"', {}),
    ],
)
def test_each_account_of_the_minute_log_has_a_file(load: Load, toml: str, files: dict[str, str]) -> None:
    assert load(f'log_dir = "/a/log"\n[minute_log]\n{toml}').minute_log.files == files


def test_the_longest_socket_path_that_is_taken_is_the_longest_that_the_kernel_takes(
    load: Load, short_path: Path
) -> None:
    room = 107 - len(str(short_path)) - 1
    path = str(short_path / ("s" * room))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(load("", socket=path).socket)
    with socket.socket(socket.AF_UNIX) as listening, pytest.raises(OSError, match="too long"):
        listening.bind(path + "s")
    with pytest.raises(UnusablePath, match=f"{path}s is longer than 107 bytes") as caught:
        load("", socket=path + "s")
    assert "--socket" in str(caught.value)


def test_a_socket_path_is_measured_in_bytes(load: Load) -> None:
    path = "/" + "\u00e4" * 53
    assert load("", socket=path).socket == path
    with pytest.raises(UnusablePath, match="107 bytes"):
        load("", socket=path + "s")


def test_a_configuration_cannot_be_changed_once_it_is_built(load: Load) -> None:
    settings = load("")
    with pytest.raises(AttributeError):
        settings.socket = "/else"  # type: ignore[misc]

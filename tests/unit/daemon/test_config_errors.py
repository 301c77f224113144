"""A mistake in the configuration is refused with the file, the key and what was expected."""

import os
from pathlib import Path

import pytest
from support.peers import require_root

from pki2fad.daemon import config
from pki2fad.errors import ConfigError, UnusablePath

ACCOUNTS = "a list of account names"
DIFFERENT_ACCOUNTS = "a list of different account names"
PATH = "an absolute path"
ROLE = 'one of "verify", "generate", "admin", "relay", "monitor", "enroll", "registrar"'
WHO = "a list of user names, @groups and uids"
CAP = "a whole number from 1 to 1000000"

NO_NAMES = (
    '""',
    '"a/b"',
    '".."',
    '".hidden"',
    '"-x"',
    '"@x"',
    f'"{"x" * 65}"',
    '"a b"',
    '"\u00e4"',
    '"a\\n"',
    "1",
)


def refusal(tmp_path: Path, toml: str) -> str:
    """What the refusal says after the name of the file."""
    file = tmp_path / "settings.toml"
    file.write_text(toml)
    with pytest.raises(ConfigError) as caught:
        config.load(
            str(file), {"state_dir": "/s", "log_dir": "/l", "socket": "/r/socket", "config_dir": "/c"}
        )
    start = f"{file}: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


@pytest.mark.parametrize("name", config.PATH_SETTINGS)
@pytest.mark.parametrize(
    "value", ["1", "true", "[]", "{}", '""', '"relative"', '"./x"', '"~/x"', '"/x\\u0000"']
)
def test_a_path_that_is_none_is_refused(tmp_path: Path, name: str, value: str) -> None:
    assert refusal(tmp_path, f"{name} = {value}") == f"{name}: expected {PATH}"


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("sockets = 1", "sockets"),
        ("Socket = '/x'", "Socket"),
        ("file = '/x'", "file"),
        ("default.account = 1", "default"),
        ("[minute_log]\npaths = 1", "minute_log.paths"),
        ("[minutelog]\npath = '/x'", "minutelog"),
        ("[server]\nmax_connection = 1", "server.max_connection"),
        ("[server]\nsocket = '/x'", "server.socket"),
        ("[[access]]\nrole = 'admin'\nwho = [0]\naccount = ['a']", "access.account"),
        ("[[access]]\nrole = 'admin'\nwho = [0]\n[[access]]\nrole = 'admin'\nwho = [0]\nx = 1", "access.x"),
    ],
)
def test_a_setting_that_there_is_not_is_refused_by_its_name(tmp_path: Path, toml: str, key: str) -> None:
    assert refusal(tmp_path, toml) == f"{key}: there is no such setting"


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("access = 1", "access: expected tables [[access]]"),
        ("access = ['admin']", "access: expected tables [[access]]"),
        ("[access]\nrole = 'admin'", "access: expected tables [[access]]"),
        ("minute_log = true", "minute_log: expected a table [minute_log]"),
        ("[[minute_log]]", "minute_log: expected a table [minute_log]"),
        ("server = '/x'", "server: expected a table [server]"),
        ("[[server]]", "server: expected a table [server]"),
    ],
)
def test_what_should_be_a_table_is_refused_with_how_it_is_written(
    tmp_path: Path, toml: str, expected: str
) -> None:
    assert refusal(tmp_path, toml) == expected


@pytest.mark.parametrize(
    "role", ["role = 'root'", "role = 'Admin'", "role = ''", "role = 1", "role = ['admin']", ""]
)
def test_a_role_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path, role: str) -> None:
    assert refusal(tmp_path, f"[[access]]\n{role}\nwho = [0]") == f"access.role: expected {ROLE}"


@pytest.mark.parametrize(
    "who",
    [
        "",
        "[]",
        "'deploy'",
        "0",
        "[-1]",
        "[4294967295]",
        "[1.0]",
        "[true]",
        "['']",
        "['@']",
        "[['a']]",
        "[{a = 1}]",
    ],
)
def test_a_principal_that_is_none_is_refused(tmp_path: Path, who: str) -> None:
    entry = f"who = {who}" if who else ""
    said = refusal(tmp_path, f"[[access]]\nrole = 'admin'\n{entry}")
    assert said == f"access.who: expected {WHO}"


@pytest.mark.parametrize("accounts", ["'deploy'", "1", "{}", *(f"[{name}]" for name in NO_NAMES)])
def test_a_rule_for_what_names_no_account_is_refused(tmp_path: Path, accounts: str) -> None:
    toml = f"[[access]]\nrole = 'admin'\nwho = [0]\naccounts = {accounts}"
    assert refusal(tmp_path, toml) == f"access.accounts: expected {ACCOUNTS}"


@pytest.mark.parametrize(
    "accounts",
    ["", "accounts = []", "accounts = 'web-*'", "accounts = [1]", "accounts = ['']", "accounts = ['a b']"],
)
def test_a_registrar_for_no_accounts_is_refused(tmp_path: Path, accounts: str) -> None:
    said = refusal(tmp_path, f"[[access]]\nrole = 'registrar'\nwho = [0]\n{accounts}")
    assert said == (
        'access.accounts: expected a list of account names and patterns like "web-*",'
        ' which the role "registrar" needs'
    )


@pytest.mark.parametrize(
    "accounts", ["'deploy'", "1", "['a', 'a']", "['a', ['a']]", *(f"[{name}]" for name in NO_NAMES)]
)
def test_a_minute_log_for_what_names_no_account_is_refused(tmp_path: Path, accounts: str) -> None:
    said = refusal(tmp_path, f"[minute_log]\naccounts = {accounts}")
    assert said == f"minute_log.accounts: expected {DIFFERENT_ACCOUNTS}"


@pytest.mark.parametrize("path", ["1", "'codes.log'", "''", '"/x\\u0000"'])
def test_a_minute_log_at_what_is_no_path_is_refused(tmp_path: Path, path: str) -> None:
    assert refusal(tmp_path, f"[minute_log]\npath = {path}") == f"minute_log.path: expected {PATH}"


@pytest.mark.parametrize("key", ["max_connections", "max_connections_per_uid"])
@pytest.mark.parametrize("value", ["0", "-1", "1000001", "1.0", "'10'", "true", "[]"])
def test_a_cap_that_is_none_is_refused(tmp_path: Path, key: str, value: str) -> None:
    assert refusal(tmp_path, f"[server]\n{key} = {value}") == f"server.{key}: expected {CAP}"


@pytest.mark.parametrize("value", [1, 1_000_000])
def test_the_smallest_and_the_largest_cap_are_taken(tmp_path: Path, value: int) -> None:
    (tmp_path / "settings.toml").write_text(f"[server]\nmax_connections = {value}")
    settings = config.load(str(tmp_path / "settings.toml"), {"state_dir": "/s", "socket": "/r/socket"})
    assert settings.server.max_connections == value


@pytest.mark.parametrize(
    "content",
    [
        b"socket",
        b"socket = ",
        b"socket = '/a'\nsocket = '/b'",
        b"[server\n",
        b"socket = '/\xff'",
        b"\xff\xfe",
        b"\0",
        b"[server]\nmax_connections = " + b"9" * 5000,
        b"socket = " + b"[" * 5000,
    ],
    ids=lambda content: repr(content[:40]),
)
def test_what_is_not_toml_is_refused_as_that(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.load(str(file), {})
    assert str(caught.value).startswith(f"{file}: not TOML: ")


def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusablePath, match="is not a regular file"):
        config.load(str(tmp_path), {})


@pytest.mark.parametrize(("mode", "uid", "gid"), [(0o646, 0, 0), (0o644, 4711, 0), (0o664, 0, 4711)])
def test_a_file_that_others_can_write_grants_nothing(tmp_path: Path, mode: int, uid: int, gid: int) -> None:
    require_root()  # to give files to other users
    file = tmp_path / "pki2fad.toml"
    file.touch()
    file.chmod(mode)
    os.chown(file, uid, gid)
    with pytest.raises(ConfigError, match="nobody else may write it"):
        config.load(str(file), {})

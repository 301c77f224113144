"""One frozen Config, from the command line, a TOML file and the defaults, in this order."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pki2fad.errors import ConfigError
from pki2fad.host import files, paths, trust
from pki2fad.rules import access
from pki2fad.rules.access import Rule
from pki2fad.server.credentials import CredentialRule
from pki2fad.wire.forms import DEFAULT_ACCOUNT, is_name

PATH_SETTINGS = ("config_dir", "state_dir", "log_dir", "socket", "key")


# What systemd takes as names.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.service", re.ASCII)
_CREDENTIAL = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9._@*?\[\]!-]{1,64}", re.ASCII)


class MinuteLogConfig(NamedTuple):
    """Which accounts' codes are logged every minute, and to which files."""

    files: Mapping[str, str]  # account -> path


class ServerConfig(NamedTuple):
    """Caps that keep one caller from shutting out all others."""

    max_connections: int = 16384
    max_connections_per_uid: int = 4096


class ThrottleConfig(NamedTuple):
    """Whether failures are counted and bounded; `enabled = false` is for benchmarks alone."""

    enabled: bool = True


class LockConfig(NamedTuple):
    """When the daemon locks by itself."""

    idle: int = 0  # seconds without a request; 0: never


class Config(NamedTuple):
    """Every setting of the daemon; all paths are absolute."""

    file: str  # where the settings came from, or would have
    config_dir: str
    state_dir: str
    log_dir: str
    socket: str
    root_socket: str | None
    verify_socket: str | None
    key: str
    key_group: str | int | None  # who may read the key's file beside its owner
    access: tuple[Rule, ...]
    credential: tuple[CredentialRule, ...]
    minute_log: MinuteLogConfig
    server: ServerConfig
    throttle: ThrottleConfig
    lock: LockConfig

    @property
    def seeds_dir(self) -> str:
        """Where sealed seeds are delivered as files."""
        return os.path.join(self.config_dir, paths.SEEDS_DIRECTORY)


def load(file: str | None, given: Mapping[str, str | None]) -> Config:
    """Build the whole configuration.

    `file` is that of `--config`: it must exist; without it CONFIG/pki2fad.toml is read if it is there.
    `given` holds those of PATH_SETTINGS that the command line names, absolute. Raises `ConfigError` with
    file, key and what was expected, and `UnusablePath`.
    """
    settings = {name: path for name, path in given.items() if path is not None}
    config_dir = settings.get("config_dir")
    optional = file is None
    if file is None:
        file = os.path.join(config_dir or paths.config_dir(), paths.CONFIG_FILE)
    table = _Table(file, "", {} if optional and _is_missing(file) else _parse(file))
    for name in PATH_SETTINGS:
        path = table.take(name, str, "an absolute path")
        if path is not None:
            table.check(_is_path(path), name, "an absolute path")
            settings.setdefault(name, path)
    config_dir = settings.get("config_dir") or paths.config_dir()
    state_dir = settings.get("state_dir") or paths.state_dir()
    log_dir = settings.get("log_dir") or paths.log_dir(state_dir)
    socket = settings.get("socket") or paths.socket_path()
    paths.check_socket(socket, "--socket")
    root_socket, verify_socket = _sockets(table, socket)
    key = settings.get("key") or paths.credential(paths.PRIVATE_KEY)
    config = Config(
        file=file,
        config_dir=config_dir,
        state_dir=state_dir,
        log_dir=log_dir,
        socket=socket,
        root_socket=root_socket,
        verify_socket=verify_socket,
        key=key or os.path.join(config_dir, paths.PRIVATE_KEY),
        key_group=_key_group(table),
        access=tuple(_rule(entry) for entry in table.take_tables("access")),
        credential=_credentials(table.take_tables("credential")),
        minute_log=_minute_log(table.take_table("minute_log"), log_dir),
        server=_server(table.take_table("server")),
        throttle=_throttle(table.take_table("throttle")),
        lock=_lock(table.take_table("lock")),
    )
    table.refuse_rest()
    return config


def _is_missing(file: str) -> bool:
    """True where there is no such file; one that cannot be reached is not missing."""
    try:
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _parse(file: str) -> dict[str, Any]:
    import tomllib  # only here: a start without a file does not pay for it

    try:
        text, status = files.read_with_status(file)
        why = trust.objection(status)
        if why is not None:
            raise ConfigError(f"{file} grants roles: it {why}")
        return tomllib.loads(text.decode("utf-8-sig"))  # editors elsewhere write a byte order mark
    except (ValueError, RecursionError) as error:  # tomllib raises more than its own
        raise ConfigError(f"{file}: not TOML: {error}") from None


class _Table:
    """One table of the file: settings are taken out of it, and what is left is an error."""

    def __init__(self, file: str, name: str, content: dict[str, Any]) -> None:
        self._file = file
        self._name = name
        self._content = dict(content)

    def take(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        """The value of a key, None if it is not there."""
        value = self._content.pop(key, None)
        if value is not None:
            self.check(type(value) in (kind if isinstance(kind, tuple) else (kind,)), key, expected)
        return value

    def take_table(self, key: str) -> "_Table":
        return _Table(self._file, key, self.take(key, dict, f"a table [{key}]") or {})

    def take_tables(self, key: str) -> list["_Table"]:
        entries = self.take(key, list, f"tables [[{key}]]") or []
        self.check(all(type(entry) is dict for entry in entries), key, f"tables [[{key}]]")
        return [_Table(self._file, key, entry) for entry in entries]

    def check(self, fine: bool, key: str, expected: str) -> None:
        """Raise `ConfigError` unless `fine`."""
        if not fine:
            raise ConfigError(f"{self._file}: {self._label(key)}: expected {expected}")

    def refuse_rest(self) -> None:
        """Raise `ConfigError` if something is left that nobody took."""
        for key in self._content:
            raise ConfigError(f"{self._file}: {self._label(key)}: there is no such setting")

    def _label(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key


def _sockets(table: _Table, main: str) -> list[str | None]:
    """The paths of `root_socket` and `verify_socket`, None for one that is not set."""
    found: list[str | None] = []
    for name in ("root_socket", "verify_socket"):
        path = table.take(name, str, "an absolute path")
        if path is not None:
            is_new = _is_path(path) and path not in (main, *found)
            table.check(is_new, name, "an absolute path, and not that of another socket")
            paths.check_socket(path, name)
        found.append(path)
    return found


def _key_group(table: _Table) -> str | int | None:
    expected = "the name of a group, or a gid"
    group: str | int | None = table.take("key_group", (str, int), expected)
    table.check(group is None or _is_principal(group), "key_group", expected)
    return group


def _rule(table: _Table) -> Rule:
    expected = "one of " + ", ".join(f'"{role}"' for role in access.ROLES)
    role = table.take("role", str, expected)
    table.check(role in access.ROLES, "role", expected)
    expected = "a list of user names, @groups and uids"
    who = table.take("who", list, expected)
    table.check(bool(who) and all(_is_principal(one) for one in who), "who", expected)
    expected = "a list of account names"
    if role == access.REGISTRAR:
        expected = f'a list of account names and patterns like "web-*", which the role "{role}" needs'
        accounts = table.take("accounts", list, expected)
        table.check(bool(accounts) and all(_is_pattern(one) for one in accounts), "accounts", expected)
    else:
        accounts = table.take("accounts", list, expected)
        table.check(accounts is None or _are_names(accounts), "accounts", expected)
    table.refuse_rest()
    return Rule(role, tuple(who), None if accounts is None else tuple(accounts))


def _credentials(tables: list[_Table]) -> tuple[CredentialRule, ...]:
    rules: list[CredentialRule] = []
    for table in tables:
        unit = table.take("unit", str, "the name of a unit")
        table.check(unit is not None and _UNIT.fullmatch(unit) is not None, "unit", "the name of a unit")
        account = table.take("account", str, "the name of an account")
        account = DEFAULT_ACCOUNT if account is None else account
        table.check(is_name(account), "account", "the name of an account")
        credential = table.take("credential", str, "the name of a credential")
        credential = "otp" if credential is None else credential
        table.check(_CREDENTIAL.fullmatch(credential) is not None, "credential", "the name of a credential")
        known = {(rule.unit, rule.credential) for rule in rules}
        table.check((unit, credential) not in known, "unit", "each unit and credential once")
        table.refuse_rest()
        rules.append(CredentialRule(unit, credential, account))
    return tuple(rules)


def _is_principal(one: object) -> bool:
    if type(one) is int:
        return 0 <= one < 2**32 - 1
    return type(one) is str and one not in ("", "@") and "\0" not in one


def _are_names(names: list[Any]) -> bool:
    return all(type(name) is str and is_name(name) for name in names)


def _is_pattern(text: object) -> bool:
    return type(text) is str and _PATTERN.fullmatch(text) is not None


def _minute_log(table: _Table, log_dir: str) -> MinuteLogConfig:
    expected = "a list of different account names"
    accounts = table.take("accounts", list, expected)
    if accounts is None:
        accounts = [DEFAULT_ACCOUNT]
    table.check(_are_names(accounts) and len(set(accounts)) == len(accounts), "accounts", expected)
    path = table.take("path", str, "an absolute path")
    table.check(path is None or _is_path(path), "path", "an absolute path")
    table.refuse_rest()
    path = path or os.path.join(log_dir, paths.CODES_LOG)
    if len(accounts) == 1:
        return MinuteLogConfig({accounts[0]: path})
    root, extension = os.path.splitext(path)
    return MinuteLogConfig({name: f"{root}.{name}{extension}" for name in accounts})


def _is_path(path: str) -> bool:
    return os.path.isabs(path) and "\0" not in path


def _server(table: _Table) -> ServerConfig:
    caps = {}
    for key in ("max_connections", "max_connections_per_uid"):
        expected = "a whole number from 1 to 1000000"
        cap = table.take(key, int, expected)
        if cap is not None:
            table.check(1 <= cap <= 1_000_000, key, expected)
            caps[key] = cap
    table.refuse_rest()
    return ServerConfig(**caps)


def _throttle(table: _Table) -> ThrottleConfig:
    enabled: bool | None = table.take("enabled", bool, "true or false")
    table.refuse_rest()
    return ThrottleConfig(enabled is not False)


def _lock(table: _Table) -> LockConfig:
    expected = "a whole number of seconds, 0 for never"
    idle = table.take("idle", int, expected)
    table.check(idle is None or 0 <= idle <= 10**9, "idle", expected)
    table.refuse_rest()
    return LockConfig(idle or 0)

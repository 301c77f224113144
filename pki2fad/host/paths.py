"""The default directories and file names of both commands, by the environment and the user.

systemd's variables come first. Otherwise root has the system's directories, and other users those of the XDG
base directory specification. This module is on the client's path.
"""

import os
import stat

from pki2fad.errors import UnusableKey, UnusablePath

SYSTEM_SOCKET = "/run/pki2fad/socket"
SYSTEM_ROOT_SOCKET = "/run/pki2fad/root.sock"
SYSTEM_CONFIG = "/etc/pki2fad"

_SOCKET_PATH_LIMIT = 107  # bytes: sun_path holds 108 with the NUL

CONFIG_FILE = "pki2fad.toml"
PRIVATE_KEY = "host.pem"
PUBLIC_KEY = "host.pub.pem"
PASSPHRASE = "host.passphrase"  # noqa: S105 - the name of a credential, and of no file beside the key
SEEDS_DIRECTORY = "seeds.d"
SEALED_SUFFIX = ".sealed"
STATE_FILE = "state.db"
LOCK_FILE = "lock"
CODES_LOG = "codes.log"
DAEMON_LOG = "pki2fad.log"
SOCKET = "socket"
ROOT_SOCKET = "root.sock"
VERIFY_SOCKET = "verify.sock"

CREDSTORE = "/etc/credstore.encrypted"  # where systemd looks for what it sealed


def sealed_file(name: str) -> str:
    """Where `pki2factl credential` keeps a file as systemd sealed it, for example `PRIVATE_KEY`."""
    return os.path.join(CREDSTORE, f"pki2fad.{name}")


def config_dir() -> str:
    """Where settings, keys and `seeds.d` are."""
    if os.geteuid() == 0:
        return SYSTEM_CONFIG
    return os.path.join(_xdg("XDG_CONFIG_HOME", ".config"), "pki2fad")


def state_dir() -> str:
    """Where accounts and watermarks are kept."""
    given = _from_systemd("STATE_DIRECTORY")
    if given:
        return given
    if os.geteuid() == 0:
        return "/var/lib/pki2fad"
    return os.path.join(_xdg("XDG_STATE_HOME", ".local/state"), "pki2fad")


def log_dir(state: str) -> str:
    """Where the minute log goes: for a user, below the state directory `state`."""
    given = _from_systemd("LOGS_DIRECTORY")
    if given:
        return given
    return "/var/log/pki2fad" if os.geteuid() == 0 else os.path.join(state, "log")


def credential(name: str) -> str | None:
    """The path of a credential that systemd passed to the service, if it did."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(directory, name) if directory else ""
    return path if os.path.isfile(path) else None


def require_no_state(state: str, private: str) -> None:
    """Raise `UnusableKey` if there is a state file: it needs the private key that is missing."""
    if os.path.lexists(state):
        raise UnusableKey(
            f"there is no key {private}, and the state {state} needs it: put {private} back; if it is lost,"
            f" move {state}* away, run pki2factl init and restore a backup"
        )


def socket_path() -> str:
    """Where the daemon listens."""
    given = _from_systemd("RUNTIME_DIRECTORY")
    if given:
        return os.path.join(given, SOCKET)
    if os.geteuid() == 0:
        return SYSTEM_SOCKET
    return _user_sockets()[0]


def system_sockets() -> list[str]:
    """The sockets of the system's daemon for this user, in the order to try.

    On the first one, root waits for no other user. Older daemons and units have only the second.
    """
    return [SYSTEM_ROOT_SOCKET, SYSTEM_SOCKET] if os.geteuid() == 0 else [SYSTEM_SOCKET]


def check_socket(path: str, setting: str) -> None:
    """Raise `UnusablePath` for a path that is too long for a socket. `setting` is where it was set."""
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
        raise UnusablePath(
            f"the socket path {path} is longer than {_SOCKET_PATH_LIMIT} bytes, the kernel's limit;"
            f" name a shorter one with {setting}"
        )


def client_sockets() -> list[str]:
    """The sockets on which a client looks for the daemon, in this order."""
    given = os.environ.get("PKI2FAD_SOCKET")
    return [given] if given else usual_sockets()


def usual_sockets() -> list[str]:
    """The sockets of the user's own daemon and of the system's, in the order to try."""
    if os.geteuid() == 0:
        return system_sockets()
    try:
        return [*_user_sockets(), *system_sockets()]
    except UnusablePath:  # no home: the system's daemon may still be there
        return system_sockets()


def _user_sockets() -> list[str]:
    """The sockets of a user's own daemon, without a run-time directory of another user (after su)."""
    uid = os.geteuid()
    places = [
        os.path.join(directory, "pki2fad", SOCKET)
        for directory in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}")
        if directory and os.path.isabs(directory) and _owner(directory) == uid
    ]
    try:
        home = _xdg("XDG_STATE_HOME", ".local/state")
    except UnusablePath:
        if not places:
            raise
    else:
        places.append(os.path.join(home, "pki2fad", "run", SOCKET))
    return list(dict.fromkeys(places))


def _owner(directory: str) -> int | None:
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return status.st_uid if stat.S_ISDIR(status.st_mode) else None


def _xdg(variable: str, below_home: str) -> str:
    given = os.environ.get(variable)
    if given and os.path.isabs(given):  # the specification ignores relative ones
        return given
    home = os.path.expanduser("~")
    place = os.path.join(home, below_home)
    usable = os.path.isdir(place) or os.access(home, os.W_OK | os.X_OK)
    if not os.path.isabs(home) or home == "/" or not usable:
        raise UnusablePath(
            f"there is no usable home directory ({home}); name --state-dir, --config-dir and --socket"
        )
    return place


def _from_systemd(variable: str) -> str | None:
    """The first directory of a list that systemd passes."""
    return os.environ.get(variable, "").partition(":")[0] or None

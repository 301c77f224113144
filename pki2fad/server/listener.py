"""The listening sockets: those that systemd passed, or ones that are bound here and removed again."""

import contextlib
import grp
import os
import socket
import stat
from collections.abc import Iterator
from typing import NamedTuple

from pki2fad.errors import AlreadyRunning, UnusablePath
from pki2fad.host import files, locks, paths, systemd
from pki2fad.rules.access import DEFAULT_GROUPS, VERIFY
from pki2fad.server.peer import ids_of

# Connections that wait to be accepted. One queue is shared by all uids, and those of a flood stay in it until
# they are accepted: where everybody may connect, it is short. The others have the kernel's usual bound.
BACKLOG = 128
_BACKLOG_OF_FEW = 4096

_VERIFY_GROUP = DEFAULT_GROUPS[VERIFY]


class Sockets(NamedTuple):
    """Where the daemon listens, in the order in which connections are accepted."""

    root: list[socket.socket]  # only root gets there
    verify: list[socket.socket]  # on which nothing is answered but `verify`
    main: list[socket.socket]
    credential: list[socket.socket]  # on which systemd asks for codes for other units


@contextlib.contextmanager
def listening(path: str, root_path: str | None, verify_path: str | None) -> Iterator[Sockets]:
    """Listen on these paths, or on the sockets that systemd passed, which have their own paths and stay.

    Without their paths, the sockets for root and for `verify` stand beside the main socket of a daemon that
    serves a whole system. Raises `AlreadyRunning` if somebody answers on a path, and `UnusablePath`.
    """
    with contextlib.ExitStack() as stack:
        passed = _inherited(stack)
        if not passed.main:
            passed.main.append(stack.enter_context(_bound(path, others=0o666, backlog=BACKLOG)))
            if _serves_a_system():
                directory = os.path.dirname(path)
                root_path = root_path or os.path.join(directory, paths.ROOT_SOCKET)
                verify_path = verify_path or os.path.join(directory, paths.VERIFY_SOCKET)
                paths.check_socket(root_path, "root_socket")
                paths.check_socket(verify_path, "verify_socket")
        if not passed.root and root_path is not None:
            passed.root.append(stack.enter_context(_bound(root_path, others=0o600)))
        if not passed.verify and verify_path is not None:
            passed.verify.append(stack.enter_context(_bound(verify_path, others=0o660, group=_VERIFY_GROUP)))
        yield passed


def _serves_a_system() -> bool:
    """True if root or systemd started us: then others than our own user ask, too."""
    return os.geteuid() == 0 or "RUNTIME_DIRECTORY" in os.environ


def _inherited(stack: contextlib.ExitStack) -> Sockets:
    """The sockets that systemd passed, by their names. Raises `UnusablePath` if one cannot be served."""
    sockets = Sockets([], [], [], [])
    by_name = {
        systemd.ROOT_SOCKET: sockets.root,
        systemd.VERIFY_SOCKET: sockets.verify,
        systemd.SOCKET: sockets.main,
        systemd.CREDENTIAL_SOCKET: sockets.credential,
    }
    passed = systemd.passed_sockets()
    problems = []
    for descriptor, name in passed:
        place = by_name.get(name, sockets.main if len(passed) == 1 else None)
        problem = _problem(descriptor)
        if problem is None and place is None:
            problem = f"has the name {name!r}, and pki2fad serves {', '.join(by_name)}: FileDescriptorName="
        if problem is not None or place is None:
            problems.append(f"descriptor {descriptor} {problem}")
        else:
            os.set_inheritable(descriptor, False)
            place.append(stack.enter_context(socket.socket(fileno=descriptor)))
    if problems:
        raise UnusablePath(f"systemd passed what cannot be served: {'; '.join(problems)}")
    return sockets


def _problem(descriptor: int) -> str | None:
    """Why connections cannot be accepted on it, None if they can."""
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:  # where nothing was passed, a file of ours may have that number by now
        return "is missing, or no socket"
    with socket.socket(fileno=os.dup(descriptor)) as passed:
        if (passed.family, passed.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
            return "is no Unix stream socket: ListenStream= has to be a path"
        if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "does not listen: the socket unit has to be without Accept=yes"
    return None


@contextlib.contextmanager
def _bound(
    path: str, *, others: int, group: str | None = None, backlog: int = _BACKLOG_OF_FEW
) -> Iterator[socket.socket]:
    files.make_directory(os.path.dirname(path))
    # Two starts do not look and bind at the same time.
    lock = locks.lock(f"{path}.lock", f"is binding {path}")
    try:
        _clear(path)
        bound = _bind(path, others if _serves_a_system() else files.PRIVATE, backlog)
    finally:
        os.unlink(f"{path}.lock")  # while it is held: see `locks.lock`
        os.close(lock)
    with bound:
        ours = _identity(path)
        try:
            if group is not None:
                _give_to_group(path, group)
            yield bound
        finally:
            with contextlib.suppress(OSError):  # gone already
                if _identity(path) == ours:  # and not another's by now
                    os.unlink(path)


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _clear(path: str) -> None:
    """Remove a socket on which nobody listens. Raises `AlreadyRunning` if somebody does."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UnusablePath(f"{path} is in the way: it is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:  # for example a time-out: somebody is there, and busy
            raise AlreadyRunning(f"somebody listens on {path} ({error})") from None
        pid = ids_of(probe)[0]
    raise AlreadyRunning(f"a daemon (pid {pid}) answers on {path} already; stop it, or name another --socket")


def _bind(path: str, mode: int, backlog: int) -> socket.socket:
    # The mode comes from the umask, as a chmod could hit what somebody else has put there meanwhile.
    umask = os.umask(0o777 & ~mode)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
        bound.listen(backlog)
    except OSError as error:
        bound.close()
        raise UnusablePath(f"cannot listen on {path}: {error.strerror}") from None
    finally:
        os.umask(umask)
    return bound


def _give_to_group(path: str, group: str) -> None:
    """Let a group connect, if there is one of that name and we may: root may, and its members."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(f"/proc/self/fd/{descriptor}", -1, grp.getgrnam(group).gr_gid)
    finally:
        os.close(descriptor)

"""The listening sockets: those that systemd passed, or ones that are bound here and removed again."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from typing import NamedTuple

from pki2fad import files, locks, systemd
from pki2fad.errors import AlreadyRunning, UnusablePath
from pki2fad.peer import credentials_of

# Connections that wait to be accepted: the kernel's usual bound (net.core.somaxconn).
BACKLOG = 4096


class Sockets(NamedTuple):
    """Where the daemon listens."""

    main: socket.socket
    verify: socket.socket | None  # on which nothing is answered but `verify`
    credential: socket.socket | None  # on which systemd asks for codes for other units


@contextlib.contextmanager
def listening(path: str, verify_path: str | None) -> Iterator[Sockets]:
    """Listen on these paths, or on the sockets that systemd passed, which have their own paths and stay.

    Raises `AlreadyRunning` if somebody answers on a path, and `UnusablePath`.
    """
    with contextlib.ExitStack() as stack:
        passed = {
            name: stack.enter_context(_inherited(name, descriptor))
            for name, descriptor in systemd.passed_sockets().items()
        }
        main = passed.get(systemd.SOCKET) or stack.enter_context(_bound(path, for_all=True))
        verify = passed.get(systemd.VERIFY_SOCKET)
        if verify is None and verify_path is not None:
            verify = stack.enter_context(_bound(verify_path, for_all=False))
        yield Sockets(main, verify, passed.get(systemd.CREDENTIAL_SOCKET))


def _inherited(name: str, descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    if (inherited.family, inherited.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        inherited.close()
        raise UnusablePath(f"what systemd passed as {name} is no Unix stream socket: ListenStream=")
    return inherited


@contextlib.contextmanager
def _bound(path: str, *, for_all: bool) -> Iterator[socket.socket]:
    files.make_directory(os.path.dirname(path))
    # Two starts do not look and bind at the same time.
    lock = locks.lock(f"{path}.lock", f"is binding {path}")
    try:
        _clear(path)
        bound = _bind(path, for_all=for_all)
    finally:
        os.close(lock)
    with bound:
        ours = _identity(path)
        try:
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
        except OSError as error:  # a time-out, say: somebody is there, and busy
            raise AlreadyRunning(f"somebody listens on {path} ({error})") from None
        pid = credentials_of(probe)[0]
    raise AlreadyRunning(f"a daemon (pid {pid}) answers on {path} already; stop it, or name another --socket")


def _bind(path: str, *, for_all: bool) -> socket.socket:
    # For all to connect if root or systemd started us: what a peer may do depends on who it is. The
    # mode comes from the umask, as a chmod could hit what somebody else has put there meanwhile.
    shared = os.geteuid() == 0 or "RUNTIME_DIRECTORY" in os.environ
    umask = os.umask((0o111 if for_all else 0o117) if shared else 0o177)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise UnusablePath(f"cannot listen on {path}: {error.strerror}") from None
    finally:
        os.umask(umask)
    return bound

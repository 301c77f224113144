"""The listening socket: the one that systemd passed, or one that is bound here and removed again."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator

from pki2fad import files
from pki2fad.connection import credentials_of
from pki2fad.errors import AlreadyRunning, UnusablePath
from pki2fad.systemd import listening_socket

# Connections that wait to be accepted: the kernel's usual bound (net.core.somaxconn).
BACKLOG = 4096


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """Listen on `path`, or on the socket that systemd passed, which has its own path and stays.

    Raises `AlreadyRunning` if somebody answers on the path, and `UnusablePath`.
    """
    passed = listening_socket()
    if passed is not None:
        with socket.socket(fileno=passed) as inherited:
            if (inherited.family, inherited.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
                raise UnusablePath("the socket that systemd passed is no Unix stream socket: ListenStream=")
            yield inherited
        return
    files.make_directory(os.path.dirname(path))
    # Two starts do not look and bind at the same time.
    lock = files.lock(f"{path}.lock", f"is binding {path}")
    try:
        _clear(path)
        bound = _bind(path)
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


def _bind(path: str) -> socket.socket:
    # For all to connect if root or systemd started us: what a peer may do depends on who it is. The
    # mode comes from the umask, as a chmod could hit what somebody else has put there meanwhile.
    shared = os.geteuid() == 0 or "RUNTIME_DIRECTORY" in os.environ
    umask = os.umask(0o111 if shared else 0o177)
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

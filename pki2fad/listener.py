"""The listening socket: the one that systemd passed, or one that is bound here and removed again."""

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator

from pki2fad import files
from pki2fad.connection import BACKLOG, credentials_of
from pki2fad.errors import AlreadyRunning, UnusablePath
from pki2fad.systemd import listening_socket


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """Listen on `path`, or on the socket that systemd passed, which has its own path and stays.

    Raises `AlreadyRunning` if somebody answers on the path, and `UnusablePath`.
    """
    passed = listening_socket()
    if passed is not None:
        with socket.socket(fileno=passed) as inherited:
            yield inherited
        return
    directory = os.path.dirname(path)
    files.make_directory(directory)
    with _locked_directory(directory):
        _clear(path)
        bound = _bind(path)
    inode = os.stat(path).st_ino
    try:
        with bound:
            yield bound
    finally:
        with contextlib.suppress(OSError):  # gone already, or another's by now
            if os.stat(path).st_ino == inode:
                os.unlink(path)


@contextlib.contextmanager
def _locked_directory(path: str) -> Iterator[None]:
    """Two starts do not look and bind at the same time."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)  # nobody else connects before it is all set up
    try:
        listening.bind(path)
        listening.listen(BACKLOG)
        # For all to connect if root or systemd started us: what a peer may do depends on who it is.
        shared = os.geteuid() == 0 or "RUNTIME_DIRECTORY" in os.environ
        os.chmod(path, 0o666 if shared else 0o600)
    except OSError as error:
        listening.close()
        raise UnusablePath(f"cannot listen on {path}: {error.strerror}") from None
    finally:
        os.umask(umask)
    return listening

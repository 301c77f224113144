"""The way to the daemon: finds its socket, and connects to it.

This module is on the client's path.
"""

import socket
import sys

from pki2fad.errors import Busy, NobodyListens, NotReachable
from pki2fad.host import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

READ_SIZE = 64 * 1024  # bytes

_BUSY = "too many others wait to be let in"


def to_daemon(
    path: str | None, servers: "Container[int] | None" = None, patience: float = 0.0
) -> socket.socket:
    """A connection to the daemon, not blocking.

    Without `path` this tries the places where a daemon may be, in order. With `servers` a socket that
    another uid serves counts as none. Where other connections wait to be accepted, this waits too, for
    `patience` seconds at each place.

    Raises `NotReachable`, which lists what was tried: `Busy` if one of them was busy, `NobodyListens` if
    nothing listens on any of them.
    """
    tried = []
    kind: type[NotReachable] = NobodyListens
    for place in [path] if path else paths.client_sockets():
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if patience > 0:
                seconds, fraction = divmod(patience, 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds, fraction))
            connection.setblocking(patience > 0)
            connection.connect(place)
        except OSError as error:
            connection.close()
            tried.append(
                f"{place} ({_BUSY if isinstance(error, BlockingIOError) else error.strerror or error})"
            )
            if isinstance(error, BlockingIOError):
                kind = Busy
            elif not isinstance(error, FileNotFoundError | ConnectionRefusedError) and kind is not Busy:
                kind = NotReachable
        else:
            connection.setblocking(False)
            uid = _server_uid(connection)
            if servers is None or uid in servers:
                return connection
            connection.close()
            tried.append(f"{place} (uid {uid} listens there, and is not trusted)")
            kind = Busy if kind is Busy else NotReachable
    raise kind(f"no daemon answers; tried {', '.join(tried)}")


def is_dead(connection: socket.socket) -> bool:
    """True if the other side has closed it, or sent something without a request."""
    connection.setblocking(False)  # with a time-out Python itself would wait
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _timeval(seconds: float, fraction: float) -> bytes:
    """A struct timeval of at least a microsecond, since 0 would mean for ever."""
    parts = (int(seconds), max(1, int(fraction * 1_000_000)))
    return b"".join(part.to_bytes(8, sys.byteorder) for part in parts)


def _server_uid(connection: socket.socket) -> int:
    """The uid of the process that listens, as the kernel attests it (struct ucred: pid, uid, gid)."""
    ucred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(ucred[4:8], sys.byteorder)

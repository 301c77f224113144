"""The other end of a connection, as the kernel attests it: SO_PEERCRED and SO_PEERGROUPS."""

import socket
import struct

from pki2fad.rules.access import Peer

_SO_PEERGROUPS = 59
_GROUPS_BUFFER = 1024  # bytes, the most that Python passes: 256 groups
_UCRED = struct.Struct("iII")


def ids_of(connection: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid of the other end, as they were when it connected or began to listen."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid


def peer_of(connection: socket.socket, *, verify_only: bool = False) -> Peer:
    """The other end, as it was when it connected; without groups if it is in more than 256."""
    pid, uid, gid = ids_of(connection)
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BUFFER)
    except OSError:  # ERANGE: more than 256
        return Peer(pid, uid, frozenset(), verify_only)
    groups = struct.unpack(f"{len(raw) // 4}I", raw)
    return Peer(pid, uid, frozenset((gid, *groups)), verify_only)

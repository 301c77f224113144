"""One who attacks the daemon until the end of stdin: attacker.py KIND SOCKET UID GID.

It runs as UID in the group GID. "ready" is printed when the attack has begun.
"""

import contextlib
import itertools
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator

from msgpack import packb

_LIMIT = 64 * 1024
_HALF = packb([0, 1, "load", [{"sealed": bytes(_LIMIT - 1024)}]])[:-1]
_ARGUMENTS = packb([0, 1, "verify", [{f"{number:04x}": 0 for number in range(13_000)}]])[:_LIMIT]
_CONNECTIONS = 4000


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def connects(path: str) -> Iterator[None]:
    """Connections that are closed again at once."""
    while True:
        connect(path).close()
        yield


def silent(path: str) -> Iterator[None]:
    """Connections that send nothing, as many as there may be."""
    return _held(path, b"")


def halves(path: str) -> Iterator[None]:
    """Connections with half a message each."""
    return _held(path, _HALF)


def arguments(path: str) -> Iterator[None]:
    """Requests with thousands of arguments, 32 at once."""
    while True:
        with connect(path) as connection, contextlib.suppress(OSError):
            connection.sendall(_ARGUMENTS * 32)
        yield


def verifies(path: str) -> Iterator[None]:
    """Thousands of connections, each with a wrong code after the other."""
    # Of no account that others ask about: it is not the limit on wrong codes that is attacked.
    request = packb([0, 1, "verify", [{"account": "nobody", "code": "00000000"}]])
    poll, connections = select.epoll(), {}
    for _ in range(_CONNECTIONS // int(os.environ["ATTACKERS"])):
        connection = connect(path)
        connection.setblocking(False)
        connection.send(request)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            connections[descriptor].recv(4096)
            connections[descriptor].send(request)
        yield


def _held(path: str, data: bytes) -> Iterator[None]:
    held: list[socket.socket] = []
    for number in itertools.count():
        with contextlib.suppress(OSError):  # it is closed where there are too many
            connection = connect(path)
            connection.sendall(data)
            if len(held) < _CONNECTIONS:
                held.append(connection)
            else:
                held[number % _CONNECTIONS].close()
                held[number % _CONNECTIONS] = connection
        yield


KINDS: dict[str, Callable[[str], Iterator[None]]] = {
    kind.__name__: kind for kind in (connects, silent, halves, arguments, verifies)
}


def main() -> None:
    kind, path, uid, gid = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
    for number, _ in enumerate(KINDS[kind](path)):
        if number == 0:
            print("ready", flush=True)
        if number % 16 == 0 and select.select([sys.stdin], [], [], 0)[0]:
            return


if __name__ == "__main__":
    main()

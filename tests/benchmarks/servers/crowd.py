"""Connections that do nothing, or next to nothing: crowd.py SOCKET IDLE SLOW.

IDLE connections send nothing. SLOW ones send a byte of a request each second, and connect again when the
daemon has had enough of that. "ready" is printed when all are connected; the end of stdin ends it.
"""

import contextlib
import select
import socket
import sys
import time

from msgpack import packb


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


def drip(path: str, slow: list[socket.socket], sent: list[int]) -> None:
    """One more byte on each connection."""
    request = packb([0, 1, "verify", [{"account": "u000000", "code": "123456"}]])
    for place, connection in enumerate(slow):
        # the last byte is never sent: it is a request that does not end
        at = sent[place] % (len(request) - 1)
        try:
            connection.send(request[at : at + 1], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            sent[place] += 1
        except OSError:
            connection.close()
            slow[place], sent[place] = connect(path), 0


def main() -> None:
    path, idle, slow = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with contextlib.ExitStack() as stack:
        for _ in range(idle):
            stack.enter_context(connect(path))
        dripping = [connect(path) for _ in range(slow)]
        sent = [0] * slow
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 1 - time.time() % 1)[0]:
            drip(path, dripping, sent)
        for connection in dripping:
            connection.close()


if __name__ == "__main__":
    main()

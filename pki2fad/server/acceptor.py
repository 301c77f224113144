"""Accepts connections on a socket that listens, some at a time."""

import socket
from collections.abc import Callable
from typing import Any

from pki2fad.host import log

# Connections accepted, or refused, before those that are there have their turn: a tenth of a millisecond or
# two. A flood of connections makes everybody else wait for so long.
ACCEPTS_AT_ONCE = 16

# Seconds without accepting, when there are no descriptors left.
ACCEPT_PAUSE = 1.0


class Acceptor:
    """Calls `accepted` with each connection, which does not block, and the address of its other end."""

    def __init__(self, listening: socket.socket, accepted: Callable[[socket.socket, Any], object]) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._accepted = accepted

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._listening.fileno()

    def accept(self) -> bool:
        """Accept some of those that wait; False if there are no descriptors, or no memory, for more."""
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection, address = self._listening.accept()
            except BlockingIOError:
                return True
            except OSError as error:
                log.error("accept_failed", reason=error)
                return False
            connection.setblocking(False)
            self._accepted(connection, address)
        return True

    def close(self) -> None:
        """Accept no more."""
        self._listening.close()

"""Accepts connections on a socket that listens, some in each turn of the loop.

asyncio's own way would go on at once when there are no descriptors left, and write a traceback each time.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from pki2fad import log

# Connections accepted in one turn of the loop, before those that are there have their turn.
ACCEPTS_PER_TURN = 64

# Seconds without accepting, when there are no descriptors left.
ACCEPT_PAUSE = 1.0


class Acceptor:
    """Calls `accepted` with each connection and the address of its other end, until `stop`."""

    def __init__(self, listening: socket.socket, accepted: Callable[[socket.socket, Any], None]) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._accepted = accepted
        self._again: asyncio.TimerHandle | None = None
        self._start()

    def stop(self) -> None:
        """Accept no more, and close the socket."""
        asyncio.get_running_loop().remove_reader(self._listening)
        if self._again is not None:
            self._again.cancel()
        self._listening.close()

    def _start(self) -> None:
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, address = self._listening.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptors, or no memory
                log.error("accept_failed", reason=error)
                loop.remove_reader(self._listening)
                self._again = loop.call_later(ACCEPT_PAUSE, self._start)
                return
            self._accepted(connection, address)

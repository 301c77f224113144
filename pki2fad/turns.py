"""Shares the loop's time: root first, then each payer in turn, by the time that was measured.

This is deficit round robin (Shreedhar and Varghese, 1995). A payer in debt is not read until its debt is
worked off: what it sends stays in the kernel. One epoll descriptor holds all listening sockets and all
connections, so that everything that is ready is known before anything is done about it.
"""

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from pki2fad import clock
from pki2fad.acceptor import ACCEPT_PAUSE, Acceptor
from pki2fad.clock import boot
from pki2fad.connection import Connection
from pki2fad.payer import ROOT, STRANGERS, Payer

# Seconds that a payer has at a time: somebody who logs in waits for so much of each payer that is busy.
QUANTUM = 0.0005

# Seconds after which the loop does its other work: timers, signals, the minute log. What was changed is kept
# at the end of a turn, and the answers leave; both happen earlier for those who ask beside busy others.
TURN = 0.002
_FLUSH_AFTER = QUANTUM / 2

# Events taken from the kernel at once.
_EVENTS = 256

# That a connection is ready is said once (edge-triggered): what a payer in debt sends costs nothing more.
_CONNECTION_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Turns:
    """Takes what is ready, and has connections served until their payers have had their time.

    `flush` keeps what was changed and lets the answers go; `now` says how late it is, in seconds.
    """

    def __init__(self, flush: Callable[[], None], now: Callable[[], float] = boot) -> None:
        self._flush = flush
        self._now = now
        self._poll = select.epoll()
        self._acceptors: list[Acceptor] = []  # in the order in which they are served
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._root: Payer | None = None  # if it has something to be done
        self._ready: deque[Payer] = deque()  # all others that have
        self._running = self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._poll.fileno(), self.turn)

    def listen(self, listening: socket.socket, accepted: Callable[[socket.socket, Any], object]) -> None:
        """Accept connections on a socket that listens, after those of sockets that were given before."""
        acceptor = Acceptor(listening, accepted)
        self._acceptors.append(acceptor)
        self._poll.register(acceptor.fileno(), select.EPOLLIN)

    def stop_listening(self) -> None:
        """Accept no more."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()

    def close(self) -> None:
        """Do nothing more."""
        if self._poll.closed:
            return
        self._loop.remove_reader(self._poll.fileno())
        self._poll.close()

    def add(self, connection: Connection) -> None:
        """Serve a connection from now on, until it is removed."""
        self._connections[connection.descriptor] = connection
        self._poll.register(connection.descriptor, _CONNECTION_EVENTS)

    def remove(self, connection: Connection) -> None:
        """Serve it no more. Its descriptor is still open."""
        del self._connections[connection.descriptor]
        self._poll.unregister(connection.descriptor)

    def queue(self, connection: Connection) -> None:
        """Serve a connection when its payer's turn comes: there is something to be done."""
        if connection.queued:
            return
        connection.queued = True
        payer = connection.payer
        payer.waiting.append(connection)
        if not payer.ready:
            payer.ready = True
            if payer.key == ROOT:
                self._root = payer
            else:
                self._ready.append(payer)
        self.schedule()

    def schedule(self) -> None:
        """Take a turn soon."""
        if not self._scheduled and not self._running:
            self._scheduled = True
            self._loop.call_soon(self.turn)

    def turn(self) -> None:
        """Accept some, and serve the payers that are ready, one after the other, for so long."""
        self._scheduled = False
        if self._poll.closed:
            return
        self._running = True
        try:
            flushed = now = self._now()
            end = now + TURN
            before: Payer | None = None
            self._look(accept=True)
            while now < end and (payer := self._next()):
                if before is not None and _is_urgent(before, payer, now - flushed):
                    self._flush()
                    flushed = self._now()
                self._serve(payer)
                self._look(accept=False)
                before, now = payer, self._now()
            self._flush()
        finally:
            self._running = False
        if self._root is not None or self._ready:
            self.schedule()

    def _look(self, *, accept: bool) -> None:
        """Note what is ready now."""
        readable: set[int] = set()
        connections = self._connections
        for descriptor, events in self._poll.poll(0, _EVENTS):
            connection = connections.get(descriptor)
            if connection is None:
                readable.add(descriptor)
            elif connection.has_happened(events):
                self.queue(connection)
        if accept and readable:
            for acceptor in self._acceptors:
                if acceptor.fileno() in readable and not acceptor.accept():
                    self._pause(acceptor)

    def _pause(self, acceptor: Acceptor) -> None:
        """Accept nothing there for a while: there are no descriptors left."""
        self._poll.unregister(acceptor.fileno())

        def go_on() -> None:
            if acceptor in self._acceptors:
                self._poll.register(acceptor.fileno(), select.EPOLLIN)

        self._loop.call_later(ACCEPT_PAUSE, go_on)

    def _next(self) -> Payer | None:
        """The payer whose turn it is."""
        if self._root is not None:
            return self._root
        if not self._ready:
            return None
        return self._ready.popleft()

    def _serve(self, payer: Payer) -> None:
        """Serve its connections until its time is over."""
        begun = now = self._now()
        payer.credit = min(payer.credit + QUANTUM, QUANTUM)
        try:
            if payer.credit > 0:
                reading, end = clock.read(), begun + payer.credit
                while payer.waiting and now < end:
                    connection = payer.waiting.popleft()
                    connection.queued = False
                    if connection.serve(reading, end):
                        self.queue(connection)
                    now = self._now()
                payer.credit -= now - begun
        finally:  # a mistake of ours must not cost it its turns
            self._put_back(payer)

    def _put_back(self, payer: Payer) -> None:
        """Let its turn come again if there is more to do for it."""
        payer.ready = bool(payer.waiting)
        if not payer.ready:
            payer.credit = min(payer.credit, 0.0)  # time that was not needed is not saved
        if payer.key == ROOT:
            self._root = payer if payer.ready else None
        elif payer.ready:
            self._ready.append(payer)


def _is_urgent(before: Payer, payer: Payer, waited: float) -> bool:
    """True if answers to one payer leave before another is served.

    Root's wait for nobody, nobody's for strangers, and others' not for long.
    """
    return before is not payer and (before.key == ROOT or payer.key == STRANGERS or waited >= _FLUSH_AFTER)

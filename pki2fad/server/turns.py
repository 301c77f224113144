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

from pki2fad.rules import clock
from pki2fad.rules.clock import boot
from pki2fad.server import passing
from pki2fad.server.acceptor import ACCEPT_PAUSE, Acceptor
from pki2fad.server.payer import ROOT, STRANGERS, Client, Payer

# Seconds after which the loop does its other work: timers, signals, the minute log. What was changed is kept
# at the end of a turn, and the answers leave; both happen earlier for callers beside busy ones.
TURN = 0.002

# Events taken from the kernel at once: those of a crowd stand before that of a login.
_EVENTS = 1024

# That a connection is ready is said once (edge-triggered): what a payer in debt sends costs nothing more.
_CONNECTION_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Turns:
    """Takes what is ready, and has connections served until their payers have had their time.

    `flush` keeps what was changed and lets the answers go; `may_accept` says whether everybody is let in;
    `now` says how late it is, in seconds.
    """

    def __init__(
        self,
        flush: Callable[[], None],
        may_accept: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = boot,
    ) -> None:
        self._flush = flush
        self._may_accept = may_accept
        self._now = now
        self._poll = select.epoll()
        self._acceptors: list[Acceptor] = []  # in the order in which they are served
        self._for_all: set[Acceptor] = set()
        self._connections: dict[int, Client] = {}  # by descriptor
        self._queued: set[Client] = set()  # that are to be served
        self._root: Payer | None = None  # if it has something to be done
        self._ready: deque[Payer] = deque()  # all others that have
        self._running = self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._poll.fileno(), self.turn)

    def listen(
        self,
        listening: socket.socket,
        accepted: Callable[[socket.socket, Any], object],
        *,
        for_all: bool = False,
    ) -> None:
        """Accept connections on a socket that listens, after those of sockets that were given before.

        Where everybody may connect (`for_all`), some are accepted once in a turn: a flood takes no more.
        """
        passing.refuse(listening)
        acceptor = Acceptor(listening, accepted)
        self._acceptors.append(acceptor)
        if for_all:
            self._for_all.add(acceptor)
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

    def add(self, connection: Client) -> None:
        """Serve a connection from now on, until it is removed."""
        self._connections[connection.descriptor] = connection
        self._poll.register(connection.descriptor, _CONNECTION_EVENTS)

    def remove(self, connection: Client) -> None:
        """Serve it no more. Its descriptor is still open."""
        del self._connections[connection.descriptor]
        self._poll.unregister(connection.descriptor)

    def watch(self, connection: Client, *, room: bool) -> None:
        """Serve a connection too when its client has made room for answers, or no longer.

        Otherwise each answer that is taken would wake the loop for nothing.
        """
        events = _CONNECTION_EVENTS | select.EPOLLOUT if room else _CONNECTION_EVENTS
        self._poll.modify(connection.descriptor, events)

    def queue(self, connection: Client) -> None:
        """Serve a connection when its payer's turn comes: there is something to be done."""
        if connection in self._queued:
            return
        self._queued.add(connection)
        payer = connection.payer
        if payer.queue(connection):
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
            end = self._now() + TURN
            served: set[Payer] = set()  # whose answers have not left
            count = 0
            self._look(first=True)
            while payer := self._next():
                if served and _is_urgent(served - {payer}, payer):
                    self._flush()
                    served.clear()
                count += self._serve(payer)
                served.add(payer)
                if count == 1 and self._root is None and not self._ready:
                    break  # it is alone: whoever comes now is seen at the start of the next turn
                if self._now() >= end:
                    break
                self._look()
            self._flush()
        finally:
            self._running = False
        if self._root is not None or self._ready:
            self.schedule()

    def _look(self, *, first: bool = False) -> None:
        """Note what is ready now; `first` is for the first look of a turn."""
        readable: set[int] = set()
        connections = self._connections
        for descriptor, events in self._poll.poll(0, _EVENTS):
            connection = connections.get(descriptor)
            if connection is None:
                readable.add(descriptor)
            elif connection.has_happened(events):
                self.queue(connection)
        if readable:
            for acceptor in self._acceptors:
                if acceptor.fileno() in readable and (first or acceptor not in self._for_all):
                    self._accept(acceptor)

    def _accept(self, acceptor: Acceptor) -> None:
        is_refused = acceptor in self._for_all and not self._may_accept()
        if is_refused or not acceptor.accept():
            self._pause(acceptor)

    def _pause(self, acceptor: Acceptor) -> None:
        """Accept nothing there for a while: there are no descriptors left, or too much waits to be closed."""
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

    def _serve(self, payer: Payer) -> int:
        """Serve its connections until its time is over; returns how many."""
        begun = now = self._now()
        count = 0
        credit = payer.begin_turn()
        try:
            if credit > 0:
                reading, end = clock.read(), begun + credit
                while payer.waiting and now < end:
                    connection = payer.waiting.popleft()
                    self._queued.discard(connection)
                    if connection.serve(reading, end):
                        self.queue(connection)
                    now = self._now()
                    count += 1
                payer.pay(now - begun)
        finally:  # a mistake of ours must not cost it its turns
            self._put_back(payer)
        return count

    def _put_back(self, payer: Payer) -> None:
        """Let its turn come again if there is more to do for it."""
        payer.end_turn()
        if payer.key == ROOT:
            self._root = payer if payer.ready else None
        elif payer.ready:
            self._ready.append(payer)


def _is_urgent(answered: set[Payer], payer: Payer) -> bool:
    """True if the answers to these leave before another payer is served.

    Root's wait for nobody, and nobody's for one that is busy or for strangers. All others' leave together.
    """
    return bool(answered) and (
        payer.is_busy or payer.key == STRANGERS or any(other.key == ROOT for other in answered)
    )

"""The socket of one client: what the kernel has from it, and what the kernel has no room for."""

import select
import socket
from collections.abc import Callable

from pki2fad.errors import ProtocolError
from pki2fad.server import passing
from pki2fad.server.passing import Closer

# Bytes that are read at once: most requests are short, and the rest of a long one is there behind its start.
_READ_FIRST = 4 * 1024
_READ_MORE = 64 * 1024

_READABLE = select.EPOLLIN
_HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Stream:
    """A socket that does not block. `closer` closes what it may take long to close."""

    __slots__ = (
        "_closer",
        "_has_ended",
        "_may_bring",
        "_socket",
        "descriptor",
        "is_readable",
        "read_size",
        "unsent",
    )

    def __init__(self, connected: socket.socket, closer: Closer) -> None:
        self.descriptor = connected.fileno()
        self.read_size = _READ_FIRST  # bytes that the next `read` gives at most
        self.unsent: bytes | memoryview = b""  # what the kernel has no room for
        self._socket = connected
        self._closer = closer
        self._may_bring = passing.may_bring_some(connected)  # descriptors
        self.is_readable = False  # the kernel has something, or the end
        self._has_ended = False  # the end is among it

    @property
    def is_gone(self) -> bool:
        """True if the client takes nothing more; one that only sends no more may wait for answers."""
        poll = select.poll()
        poll.register(self.descriptor, 0)  # a closed peer and errors are told in any case
        return bool(poll.poll(0))

    def note(self, events: int) -> bool:
        """Note what the kernel says (epoll); True if something is to be done."""
        if events & _READABLE:
            self.is_readable = True
        if events & _HUNG_UP:
            self.is_readable = self._has_ended = True
        return self.is_readable or len(self.unsent) > 0

    def read(self) -> bytes | None:
        """What was sent: empty at the end, None if there is nothing yet.

        Raises `ConnectionError`, and `ProtocolError` if descriptors come with it.
        """
        try:
            data = self._receive() if self._may_bring else self._socket.recv(self.read_size)
        except BlockingIOError:
            self.is_readable = False
            return None
        if len(data) == self.read_size:
            self.read_size = _READ_MORE
            return data
        self.read_size = _READ_FIRST
        if not self._has_ended or not data:
            self.is_readable = False
        return data

    def put(self, data: bytes) -> None:
        """Have this sent next; all before it was."""
        self.unsent = data

    def send(self, data: bytes | memoryview) -> None:
        """Send this, as far as the kernel has room; the rest is in `unsent`.

        Raises `OSError` if nobody takes it.
        """
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        self.unsent = b"" if sent == len(data) else memoryview(data)[sent:]

    def shut(self) -> None:
        """Read no more."""
        self.is_readable = False

    def close(self, closed: Callable[[], object]) -> None:
        """Close it; `closed` is called when that is done, which may take long."""
        if self._may_bring and passing.has_unread(self._socket):
            self._closer.close(self._socket, closed)
        else:
            self._socket.close()
            closed()

    def _receive(self) -> bytes:
        """What was sent, where descriptors may come with it."""
        data, passed = passing.receive(self._socket, self.read_size)
        if passed:
            self._closer.close_passed(passed)
            raise ProtocolError("it passed descriptors")
        return data

"""Descriptors that clients pass (SCM_RIGHTS): nobody is to send any, and closing one may take minutes.

The kernel closes a passed descriptor in the thread that reads or closes the connection. A TCP socket with
SO_LINGER, for example, blocks that thread for as long as its sender likes. Linux 6.16 can refuse descriptors
at the sender (SO_PASSRIGHTS). Before that they are received, and closed by a thread.
"""

import array
import asyncio
import contextlib
import fcntl
import os
import queue
import socket
import struct
import termios
import threading
from collections.abc import Callable
from functools import partial

_SO_PASSRIGHTS = 83
_MOST = 253  # descriptors in one message (SCM_MAX_FD)
_BEHIND = 256  # what may wait to be closed before strangers are not let in any more
_SPACE = socket.CMSG_SPACE(_MOST * array.array("i").itemsize)


def refuse(listening: socket.socket) -> None:
    """Have the kernel refuse descriptors on all connections that are made from now on, if it can."""
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def may_bring_some(connection: socket.socket) -> bool:
    """True if descriptors can come over a connection: the kernel cannot refuse them, or did not yet."""
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS) != 0
    except OSError:
        return True


def receive(connection: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """What was sent, and the descriptors that came with it."""
    data, ancillary, _, _ = connection.recvmsg(size, _SPACE, socket.MSG_CMSG_CLOEXEC)
    if not ancillary:  # as nearly always
        return data, []
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return data, list(descriptors)


def has_unread(connection: socket.socket) -> bool:
    """True if something was sent that was not read: descriptors may be among it."""
    (unread,) = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0\0\0\0"))
    return bool(unread)


class Closer:
    """Closes what may block: in a thread, one after the other."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Callable[[], object], Callable[[], object] | None]] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def is_behind(self) -> bool:
        """True if so much waits that no more should come."""
        return self._queue.qsize() > _BEHIND

    def close(self, connection: socket.socket, closed: Callable[[], object]) -> None:
        """Close a connection; its client sees that at once. `closed` is called in the loop then."""
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        self._put(connection.close, closed)

    def close_passed(self, descriptors: list[int]) -> None:
        """Close descriptors that a client passed."""
        for descriptor in descriptors:
            self._put(partial(os.close, descriptor), None)

    def _put(self, close: Callable[[], object], closed: Callable[[], object] | None) -> None:
        self._queue.put((close, closed))
        if self._thread is None:
            # A daemon thread: it is not waited for at the end of the process.
            self._thread = threading.Thread(target=self._run, name="closer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            close, closed = self._queue.get()
            with contextlib.suppress(OSError):
                close()
            if closed is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(closed)

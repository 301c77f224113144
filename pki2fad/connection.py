"""One connection: bytes in and out, who is at the other end, deadlines and back-pressure."""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, cast

from pki2fad import clock, log, plain, wire
from pki2fad.access import NO_RIGHTS, Access, Peer
from pki2fad.errors import ProtocolError
from pki2fad.plain import Plain

if TYPE_CHECKING:
    from pki2fad.server import Server

# Seconds from the first byte of a message to its last: a load from a slow shell takes less.
MESSAGE_DEADLINE = 10.0

# Bytes that may wait for a slow reader; then no more of its requests are read.
WRITE_LIMIT = 64 * 1024

# Seconds for which a reader may be that slow before its connection is ended.
WRITE_DEADLINE = 10.0

_SO_PEERGROUPS = 59
_GROUPS_BUFFER = 1024  # bytes, the most that Python passes: 256 groups
_UCRED = struct.Struct("iII")


def credentials_of(connection: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid of the other end, as they were when it connected or began to listen."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid


def peer_of(connection: socket.socket, *, verify_only: bool = False) -> Peer:
    """The other end, as the kernel attested it when it connected."""
    pid, uid, gid = credentials_of(connection)
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BUFFER)
        groups = struct.unpack(f"{len(raw) // 4}I", raw)
    except OSError:  # ERANGE: more than 256
        log.warning("groups_ignored", pid=pid, uid=uid, reason="the peer is in more than 256 groups")
        return Peer(pid, uid, frozenset(), verify_only)
    return Peer(pid, uid, frozenset((gid, *groups)), verify_only)


class Connection(asyncio.Protocol):
    """One client; with `verify_only` it is answered nothing but `verify`."""

    __slots__ = (  # with many connections most time goes into reaching their memory
        "_blocked",
        "_decoder",
        "_ending",
        "_finished",
        "_held",
        "_lost",
        "_message_count",
        "_message_deadline",
        "_more",
        "_out",
        "_paused",
        "_plain",
        "_server",
        "_transport",
        "_verify_only",
        "_write_deadline",
        "access",
        "is_clear",
        "is_new",
        "peer",
        "rights",
        "subject",
        "write",
    )

    def __init__(self, server: "Server", *, verify_only: bool = False) -> None:
        self.is_new = True  # nothing has come yet
        self.is_clear = True  # all that was read is answered, and the client takes it
        self.access: Access | None = None  # by which the rights are
        self.rights = NO_RIGHTS
        self.subject = ""  # what a line of the log has before the account's name
        self._server = server
        self._verify_only = verify_only
        self._decoder = wire.Decoder(wire.REQUEST, wire.REQUEST_LIMIT)
        self._plain: list[Plain] = []  # of what was read, before what the decoder has
        self._out: list[bytes] = []  # answers that have not been written, in order
        self._held = 0  # of them, how many wait for a change to be kept
        self._more = False  # what was read is not all handled
        self._finished = False  # the client sends no more
        self._ending = False  # nothing more will be handled
        self._lost = False  # there is nobody to write to
        self._blocked = False  # the client does not read
        self._paused = False  # nothing more is read from it for now
        self._message_deadline: asyncio.TimerHandle | None = None
        self._message_count = -1
        self._write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Find out who it is, and whether there is room."""
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write  # for an answer before which there is none
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT)
        self.peer = peer_of(transport.get_extra_info("socket"), verify_only=self._verify_only)
        if not self._server.admit(self):
            self.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """Stop its timers and forget it."""
        self._lost = self._ending = True
        self._more = False
        _cancel(self._message_deadline)
        _cancel(self._write_deadline)
        self._server.forget(self)
        del self.write  # and with it what holds this connection: no memory waits for the garbage collector

    def data_received(self, data: bytes) -> None:
        """Take what arrived, and have it handled."""
        self.is_new = False
        if self._ending:
            return
        if not self.is_clear:
            self._decoder.feed(data)
        else:
            request = plain.alone(data)
            if request is None:
                self._plain, rest = plain.split(data)
                self._decoder.feed(rest)
                if self._plain:
                    self._plain = self._server.answer_some(self, self._plain)
                    if not self._plain and not rest:
                        return
            elif self._server.answer_one(self, request):
                return
            else:
                self._plain = [request]
            self.is_clear = False
        if not self._more:
            self._more = True
            self._server.arrived(self)

    def eof_received(self) -> bool:
        """The client sends no more; it still gets its answers."""
        self.finish()
        return True

    def finish(self) -> None:
        """Read no more, and end when what was read is answered."""
        self._finished = True
        if self._more:
            self._pause()
        else:
            self.end()

    def pause_writing(self) -> None:
        """Read no more from a client that does not read."""
        self._blocked = True
        self.is_clear = False
        self._pause()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._blocked = False
        if self._ending:
            return  # the deadline for taking the last answers stays
        _cancel(self._write_deadline)
        self._write_deadline = None
        if self._more:
            self._server.come_back(self)
        else:
            self._resume()

    @property
    def has_more(self) -> bool:
        """True if something was read that can be handled: the client takes its answers."""
        return self._more and not self._blocked

    def turn(self, reading: clock.Reading, end: float) -> None:
        """Handle what was read, until CLOCK_BOOTTIME is `end`, and a little in any case.

        `release` has to follow.
        """
        if not self.has_more:
            return
        try:
            self._handle_some(reading, end)
        except ProtocolError as error:
            self._violation(error)
        except Exception as error:  # a mistake of ours ends this connection, and keeps no other waiting
            log.failure("failed", error)
            self.end()
        if self._message_deadline is not None or self._decoder.partial:
            self._watch_message()
        if self._ending:
            return
        if self._more:
            self._pause()
        elif self._finished:
            self.end()
        else:
            self._resume()

    def learn_rights(self, access: Access) -> None:
        """Note what the peer may for every account alike, by these rules."""
        self.access, self.rights = access, access.rights(self.peer)
        self.subject = f"uid={self.peer.uid} pid={self.peer.pid} account="

    def add(self, answer: bytes) -> None:
        """An answer that may leave, behind those before it."""
        self._out.append(answer)

    def hold(self) -> int:
        """The place of an answer that may not leave yet, for `settle`."""
        self._out.append(b"")
        self._held += 1
        return len(self._out) - 1

    def settle(self, slot: int, answer: bytes) -> None:
        """The answer for a place that was held."""
        self._out[slot] = answer
        self._held -= 1

    def release(self) -> None:
        """Write all answers, if none of them is held."""
        if self._held or self._lost:
            return
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._ending:
            self._transport.close()
            self._watch_reader()

    def end(self) -> None:
        """Handle nothing more, and close when the answers have been taken."""
        self._more = False
        self._ending = True
        self.release()

    def abort(self) -> None:
        """End it now."""
        self._more = False
        self._ending = True
        self._transport.abort()

    def _pause(self) -> None:
        """Let nothing more be read for now."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Read on: all that was read is answered. A client that does not take it is waited for."""
        if self._blocked:
            return
        self.is_clear = not self._decoder.partial
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _handle_some(self, reading: clock.Reading, end: float) -> None:
        count = self._server.messages_per_turn(self)
        while self._plain:
            some, self._plain = self._plain[:count], self._plain[count:]
            self._server.handle_plain(self, some, reading)
            if self._plain and clock.boot() > end:
                return
        for _ in range(count):
            message = self._decoder.next()
            if message is None:
                self._more = False
                return
            if isinstance(message, wire.Request):
                self._server.handle(self, message, reading)
            if clock.boot() > end:
                return

    def _violation(self, error: ProtocolError) -> None:
        self._server.violated(self.peer, error)
        if error.msgid is not None:
            message = ["bad_request", f"bad_request: {error}"]
            self.add(wire.encode_response(error.msgid, message, None))
        self.end()

    def _watch_message(self) -> None:
        """Set a deadline for the message that has begun, and no longer for the one before."""
        if self._message_deadline is not None and self._decoder.count != self._message_count:
            self._message_deadline.cancel()
            self._message_deadline = None
        unfinished = self._decoder.partial and not self._more and not self._ending
        if self._message_deadline is None and unfinished:
            self._message_count = self._decoder.count
            self._message_deadline = asyncio.get_running_loop().call_later(
                MESSAGE_DEADLINE, self._expire, "its message is not finished"
            )

    def _watch_reader(self) -> None:
        """Set a deadline for a client that does not take its answers."""
        if self._write_deadline is None:
            self._write_deadline = asyncio.get_running_loop().call_later(
                WRITE_DEADLINE, self._expire, "it does not read"
            )

    def _expire(self, reason: str) -> None:
        self._server.violated(self.peer, reason)
        self.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()

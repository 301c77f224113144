"""One connection of the client on asyncio, on which many calls wait for their answers."""

import asyncio
import copy
import socket
from typing import TYPE_CHECKING

from pki2fad.client import connect, requests
from pki2fad.errors import ConnectionLost, Pki2fadError, ProtocolError
from pki2fad.wire import messages
from pki2fad.wire.decoder import Decoder

if TYPE_CHECKING:
    from pki2fad.client.requests import Request


class Connection(asyncio.Protocol):
    """One connection, and the calls that wait for an answer on it."""

    def __init__(self, connection: socket.socket) -> None:
        self.arrivals = 0  # how often something came
        self._socket = connection
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder(messages.RESPONSE, messages.RESPONSE_LIMIT)
        self._waiting: dict[int, asyncio.Future[messages.Response]] = {}  # by msgid; also those given up
        self._msgid = 0
        self._callers = 0  # calls that wait to be sent, or for an answer
        self._is_retired = False
        self._error: Pki2fadError | None = None  # why no more answers come
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()

    @classmethod
    async def opened(cls, connection: socket.socket) -> "Connection":
        """The calls over a socket that is connected."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_unix_connection(lambda: cls(connection), sock=connection)
        return protocol

    async def ask(self, request: "Request") -> messages.Response:
        """Send a call and wait for its answer."""
        self._callers += 1
        try:
            while not self._writable.is_set():  # the daemon does not read: memory must not grow
                await self._writable.wait()
            return await self._send(request)
        finally:
            self._callers -= 1
            self._end_if_done()

    def _send(self, request: "Request") -> "asyncio.Future[messages.Response]":
        """Send a call; the future of its answer."""
        if self._error is not None:
            raise copy.copy(self._error)
        assert self._transport is not None
        msgid = self._new_msgid()
        data = requests.encode(msgid, request)
        answer = self._waiting[msgid] = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return answer

    def retire(self) -> None:
        """End it as soon as nobody waits on it."""
        self._is_retired = True
        self._end_if_done()

    def is_in_use(self) -> bool:
        """True until it has ended."""
        return self._error is None

    def is_dead(self) -> bool:
        """True if it cannot be used, or closed while nobody was waiting."""
        return self._error is not None or (not self._waiting and connect.is_dead(self._socket))

    async def close(self) -> None:
        """End it, and all calls that wait."""
        assert self._transport is not None
        self._end(ConnectionLost("the client was closed before an answer came"))
        await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Give the answers in these bytes to the callers that wait for them."""
        self.arrivals += 1
        try:
            self._decoder.feed(data)
            while (message := self._decoder.next()) is not None:
                if isinstance(message, messages.Response):
                    self._take(message)
        except ProtocolError as error:
            self._end(error)

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed: nobody waits any more."""
        if isinstance(error, OSError):
            self._end(ConnectionLost(f"the connection broke: {error.strerror}"))
        else:
            self._end(ConnectionLost("the daemon closed the connection before it answered"))
        self._closed.set()

    def pause_writing(self) -> None:
        """The daemon does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable.set()

    def _take(self, response: messages.Response) -> None:
        answer = self._waiting.pop(response.msgid, None)
        if answer is None:
            raise ProtocolError("the daemon answered another request")
        if not answer.done():  # else the caller has given up
            answer.set_result(response)

    def _end(self, error: Pki2fadError) -> None:
        """Let nobody wait any more; the first reason is the one that counts."""
        assert self._transport is not None
        if self._error is not None:
            return
        self._error = error
        self._transport.abort()
        self._writable.set()
        for answer in self._waiting.values():
            if not answer.done():
                # To each its own: what a caller adds to it, or keeps with it, is no other's.
                answer.set_exception(copy.copy(error))
        self._waiting.clear()

    def _end_if_done(self) -> None:
        if self._is_retired and self._callers == 0:
            self._end(ConnectionLost("the daemon did not answer in time before"))

    def _new_msgid(self) -> int:
        while True:
            self._msgid = (self._msgid + 1) % 2**32
            if self._msgid not in self._waiting:
                return self._msgid

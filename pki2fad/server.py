"""All connections together: caps, decisions, and when an answer may leave.

What all connections read in one turn of the loop is handled at once; plain requests of which only codes have
to be compared as they arrive (`Shortcut`). Answers that depend on a change wait
until the change is kept; those of one turn are kept together.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from pki2fad import clock, log, plain, wire
from pki2fad.acceptor import Acceptor
from pki2fad.access import Peer
from pki2fad.agent import Agent
from pki2fad.changes import INVALID, NO, REPLAYED, Answer, Change, ClockEdit, Edit, Edits, Failure, Spend
from pki2fad.clock import boot, wall
from pki2fad.connection import Connection, credentials_of
from pki2fad.decisions import LOOKS, DecisionLog
from pki2fad.errors import Internal, Unavailable, UnusableState
from pki2fad.plain import Plain

# Connections beyond the caps that root may still make, to look at what is going on.
ROOT_RESERVE = 16

# Connections of one uid that has no role: it can only look at the status.
WITHOUT_ROLE = 32

# Seconds after which a turn of all connections ends, but that each has something handled; and messages of one
# connection, and of all of one uid, that are handled in it. Somebody who logs in waits for several turns.
SECONDS_PER_TURN = 0.005
MESSAGES_PER_TURN = 16
MESSAGES_OF_SHARE = 1024

# The same of one connection where requests are answered at once: that takes a microsecond each mostly.
MESSAGES_AT_ONCE = 64

# Seconds that a stop leaves to those who were just let in to ask: the next daemon is not asked instead.
NEWCOMERS_DEADLINE = 0.05

# Seconds that a stop leaves to clients to be answered; all of a stop takes at most 2.
STOP_DEADLINE = 1.5

_Share = tuple[bool, int]  # whether on the socket that only verifies, and the uid that pays

Keep = Callable[[Sequence[Change]], list[bool]]


class Server:
    """All connections, and the changes whose answers wait.

    `keep` is the store's: it keeps changes and gives one verdict for each, or raises `UnusableState`.
    """

    def __init__(self, agent: Agent, keep: Keep, max_connections: int, max_connections_per_uid: int) -> None:
        self.max_connections = max_connections
        self.max_connections_per_uid = max_connections_per_uid
        self._agent = agent
        self._keep = keep
        self._acceptors: list[Acceptor] = []
        self._connecting: set[asyncio.Task[Any]] = set()  # accepted, without a transport yet
        self._connections: dict[Connection, _Share] = {}  # and what each counts for
        self._by_share: Counter[_Share] = Counter()
        self._answered: list[Connection] = []  # whose answers may go
        self._arrived: dict[Connection, None] = {}  # whose turn comes, in order
        self._scheduled = False  # the next turn is
        self._at_once_until = 0.0  # CLOCK_BOOTTIME
        self._pending: list[_Pending] = []
        self._closed = asyncio.Event()  # some connection ended
        self._decisions = DecisionLog(agent.is_stale, agent.metrics)
        agent.metrics.connections = lambda: len(self._connections)
        self._last_use = boot()  # a look at the daemon is none

    async def start(self, listening: socket.socket, restricted: socket.socket | None = None) -> None:
        """Accept connections on a socket that listens already, and on one that is for `verify` alone."""
        self._acceptors.append(Acceptor(listening, partial(self._accept, verify_only=False)))
        if restricted is not None:
            self._acceptors.append(Acceptor(restricted, partial(self._accept, verify_only=True)))

    async def stop(self) -> None:
        """Accept no more, answer what was read, and end all connections before the deadline."""
        for acceptor in self._acceptors:
            acceptor.stop()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        if any(connection.is_new for connection in self._connections):
            await asyncio.sleep(NEWCOMERS_DEADLINE)
        for connection in list(self._connections):
            connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE):
                while self._connections:
                    self._closed.clear()
                    await self._closed.wait()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # for the transports to close their sockets

    def idle_for(self, reading: clock.Reading) -> float:
        """Seconds since somebody asked something that was not refused, and not only how the daemon is."""
        return reading.boot - self._last_use

    def admit(self, connection: Connection) -> bool:
        """Count a new connection, if the caps allow it."""
        peer = connection.peer
        share = self._share(peer.uid, verify_only=peer.verify_only)
        most = self.max_connections_per_uid
        if not self._agent.access.has_some_role(peer):
            most = min(most, WITHOUT_ROLE)
        if not self._has_room(share, most):
            return False
        self._connections[connection] = share
        self._by_share[share] += 1
        return True

    def arrived(self, connection: Connection) -> None:
        """Handle what a connection has read, together with what others have by the end of this turn."""
        if len(self._connections) == 1:
            self._take_turns([connection])
        else:
            self.come_back(connection)

    def come_back(self, connection: Connection) -> None:
        """Handle what a connection has read in the next turn."""
        self._arrived[connection] = None
        if not self._scheduled:
            self._schedule()

    def _let_go(self, connection: Connection, answer: bytes) -> None:
        """Let an answer go that waits for nothing but those before it, together with those to others."""
        if not connection.is_clear:
            connection.add(answer)  # its turn goes on
        elif len(self._connections) == 1 and not self._answered:  # nothing of it waits
            connection.write(answer)
        else:
            connection.add(answer)
            self._answered.append(connection)
            if not self._scheduled:
                self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        answered, self._answered = self._answered, []
        for connection in answered:
            connection.release()
        if self._arrived:
            arrived, self._arrived = self._arrived, {}
            self._take_turns(arrived)

    def _take_turns(self, connections: Collection[Connection]) -> None:
        """Handle what was read, keep what that changes, and let the answers go.

        The answers leave one after the other: whoever is woken by the first finds the others there.
        """
        reading = clock.read()
        end = reading.boot + SECONDS_PER_TURN
        for connection in connections:
            connection.turn(reading, end)
        self.commit()
        for connection in connections:
            connection.release()
            if connection.has_more:
                self.come_back(connection)

    def messages_per_turn(self, connection: Connection, most: int = MESSAGES_PER_TURN) -> int:
        """How many of its messages are handled before others have their turn."""
        beside = self._by_share[self._connections[connection]]
        return max(1, min(most, MESSAGES_OF_SHARE // beside))

    def _share(self, uid: int, *, verify_only: bool) -> _Share:
        return verify_only, self._agent.access.payer(uid)

    def _has_room(self, share: _Share, most: int) -> bool:
        # Root of a container that was shown the other socket takes nothing of what is kept for root.
        reserve = ROOT_RESERVE if share == (False, 0) else 0
        if len(self._connections) < self.max_connections + reserve and self._by_share[share] < most + reserve:
            return True
        self._decisions.warning(share[1], "connection_refused", reason="too many connections")
        return False

    def _accept(self, accepted: socket.socket, _address: object, *, verify_only: bool) -> None:
        share = self._share(credentials_of(accepted)[1], verify_only=verify_only)
        if not self._has_room(share, self.max_connections_per_uid):
            accepted.close()
            return
        loop = asyncio.get_running_loop()
        connecting = loop.create_task(
            loop.connect_accepted_socket(lambda: Connection(self, verify_only=verify_only), accepted)
        )
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    def forget(self, connection: Connection) -> None:
        """A connection ended."""
        self._closed.set()
        share = self._connections.pop(connection, None)
        if share is not None:
            self._by_share[share] -= 1
            if not self._by_share[share]:
                del self._by_share[share]

    def handle(self, connection: Connection, request: wire.Request, reading: clock.Reading) -> None:
        """Answer a request: at once, or when its change is kept."""
        try:
            answer = self._agent.handle(request, connection.peer, reading)
        except Exception as error:  # a mistake of ours must not end the connection
            answer = self._failed(request, error)
        self._conclude(connection, request, answer, reading)

    def answer_one(self, connection: Connection, request: Plain) -> bool:
        """Answer a plain request at once; False if its turn has to come."""
        answers = self._answer(connection, (request,), wall(), boot())
        if not answers:
            return False
        self._let_go(connection, answers[0].encode("latin-1"))
        return True

    def answer_some(self, connection: Connection, requests: list[Plain]) -> list[Plain]:
        """Answer plain requests at once, up to one whose turn has to come; returns it and those behind it."""
        now, begun = wall(), boot()
        if not self._scheduled:  # the first of those that were read together
            self._at_once_until = begun + SECONDS_PER_TURN
        answers: list[str] = []
        most = self.messages_per_turn(connection, MESSAGES_AT_ONCE)
        while len(answers) < most and begun <= self._at_once_until:
            some = requests[len(answers) : min(most, len(answers) + MESSAGES_PER_TURN)]
            answered = self._answer(connection, some, now, begun)
            answers += answered
            if not some or len(answered) < len(some):
                break
            begun = boot()
        if answers:
            self._let_go(connection, "".join(answers).encode("latin-1"))
        return requests[len(answers) :]

    def _answer(
        self, connection: Connection, requests: Sequence[Plain], now: float, begun: float
    ) -> list[str]:
        """The answers to those that come before one whose turn has to come, logged and counted."""
        agent = self._agent
        if connection.access is not agent.access:
            connection.learn_rights(agent.access)
        try:
            answers = agent.shortcut.answers(connection.rights, requests, now, begun)
        except Exception as error:  # a mistake of ours: the long way may be without one
            log.failure("failed", error)
            return []
        if answers:
            self._last_use = begun
            self._decisions.add_in_short(connection.subject, requests[: len(answers)], boot() - begun)
        return answers

    def handle_plain(self, connection: Connection, requests: list[Plain], reading: clock.Reading) -> None:
        """Answer plain requests like `handle`; behind one that needs it, again at once where that can be."""
        if reading.boot < self._decisions.no_lookups_until:  # the short way may be open since they came
            requests = self.answer_some(connection, requests)
        while requests:
            self._handle_one(connection, requests[0], reading)
            requests = requests[1:] and self.answer_some(connection, requests[1:])

    def _handle_one(self, connection: Connection, request: Plain, reading: clock.Reading) -> None:
        if connection.access is not self._agent.access:  # a reload came between
            connection.learn_rights(self._agent.access)
        _, name, code = request
        rights = connection.rights
        whole = plain.request(request)
        if code is None or not rights.verify:
            self.handle(connection, whole, reading)
            return
        whole.account = name
        try:
            answer = self._agent.verdict(rights, name, code, reading)
        except Exception as error:  # as above
            answer = _failed(error)
        if answer is NO:
            self._agent.shortcut.open(reading.wall, self._decisions.no_lookups_until)
        self._conclude(connection, whole, answer, reading)

    def _conclude(
        self, connection: Connection, request: wire.Request, answer: Answer, reading: clock.Reading
    ) -> None:
        """Let an answer go: at once, or when its change is kept."""
        if request.method not in LOOKS and answer.refusal is None:
            self._last_use = reading.boot  # who is refused keeps nothing unlocked
        if isinstance(answer.change, Edit | ClockEdit | Edits):
            try:
                self.edit(answer.change)
            except Exception as error:  # as above
                answer = self._failed(request, error)
        if isinstance(answer.change, Spend | Failure):
            waiting = _Pending(connection, connection.hold(), request, answer.change, answer, reading)
            self._pending.append(waiting)
            return
        connection.add(_encode(request, answer))
        self._decisions.add(request, connection.peer, answer, reading, boot())

    def edit(self, edit: Edit | ClockEdit | Edits) -> None:
        """Keep what is pending, then the edit, and then make it.

        Raises `UnusableState`, and then nothing has changed.
        """
        self.commit()
        self._keep([edit])
        self._agent.apply(edit)

    def commit(self) -> None:
        """Keep the changes of this turn, and let the answers go that waited for it."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            verdicts = self._keep([waiting.change for waiting in pending])
            answers = [
                waiting.answer if kept else replace(waiting.answer, result=INVALID, reason=REPLAYED)
                for waiting, kept in zip(pending, verdicts, strict=True)
            ]
        except Exception as error:  # whatever it was, nothing may leave as if it had been kept
            answers = [_failed(error)] * len(pending)
        for waiting, answer in zip(pending, answers, strict=True):
            waiting.connection.settle(waiting.slot, _encode(waiting.request, answer))
        ready = boot()
        for connection in {waiting.connection for waiting in pending}:
            connection.release()
        for waiting, answer in zip(pending, answers, strict=True):
            self._decisions.add(waiting.request, waiting.connection.peer, answer, waiting.reading, ready)

    def _failed(self, request: wire.Request, error: Exception) -> Answer:
        audit = "failed" if self._agent.is_administrative(request.method) else None
        return replace(_failed(error), audit=audit)

    def violated(self, peer: Peer, reason: object) -> None:
        """A connection is ended for what its client did."""
        self._decisions.warning(peer.uid, "connection_ended", pid=peer.pid, reason=reason)


class _Pending(NamedTuple):
    """An answer that waits for its change to be kept."""

    connection: Connection
    slot: int
    request: wire.Request
    change: Spend | Failure
    answer: Answer
    reading: clock.Reading


def _encode(request: wire.Request, answer: Answer) -> bytes:
    refusal = answer.refusal
    if refusal is None:
        return wire.encode_response(request.msgid, None, answer.result)
    error: list[Any] = [refusal.code, f"{refusal.code}: {refusal}"]
    if refusal.retry_after is not None:
        error.append(refusal.retry_after)
    return wire.encode_response(request.msgid, error, None)


def _failed(error: Exception) -> Answer:
    """The answer where something could not be carried out."""
    if isinstance(error, UnusableState):
        log.error("state_failed", reason=error)
        return Answer(refusal=Unavailable("the state cannot be written; the daemon's log says why"))
    log.failure("failed", error)
    return Answer(refusal=Internal("the daemon failed; its log says how"))

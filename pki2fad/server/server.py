"""Brings the parts of the server together: lets clients in, makes room for them, and ends them.

What is handled in one turn of the loop is kept together, and then the answers leave.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from pki2fad.methods.agent import Agent
from pki2fad.methods.metrics import CONNECTIONS
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Peer
from pki2fad.rules.clock import boot
from pki2fad.rules.outcomes import Keep
from pki2fad.server.admission import Admission
from pki2fad.server.commit import Commit
from pki2fad.server.connection import DEADLINE, Connection
from pki2fad.server.dispatch import Dispatch
from pki2fad.server.longwork import Changing, LongWork
from pki2fad.server.passing import Closer
from pki2fad.server.payer import Holding, Payer, Pool
from pki2fad.server.peer import peer_of
from pki2fad.server.requestlog import RequestLog
from pki2fad.server.stages import Stage
from pki2fad.server.stream import Stream
from pki2fad.server.turns import Turns

# Seconds between two looks whether the uid of a client is known.
_LOOK_PERIOD = 0.01

# Seconds between two looks for clients whose deadline is over.
_SWEEP = 1.0

# Seconds that a stop leaves to those who were just let in to ask: the next daemon is not asked instead.
NEWCOMERS_DEADLINE = 0.05

# Seconds that a stop leaves to clients to be answered; all of a stop takes at most 2, on a busy machine too.
STOP_DEADLINE = 1.2


class Server:
    """All connections. It is made in the loop that serves them.

    `keep` is the store's. `give_up` makes what it does for a long request fail soon.
    """

    def __init__(
        self,
        agent: Agent,
        keep: Keep,
        max_connections: int,
        max_connections_per_uid: int,
        give_up: Callable[[], object] = lambda: None,
    ) -> None:
        self.admission = Admission(max_connections, max_connections_per_uid)
        self.pool = Pool()
        self.closer = Closer()
        self.turns = Turns(self._flush, lambda: not self.closer.is_behind)
        self.commit = Commit(keep, agent.memory)
        changing = Changing(self.commit.alone, agent.memory.applied, lambda: agent.memory.version)
        self.long_work = LongWork(changing, self.commit, give_up)
        self._agent = agent
        self._connections: set[Connection] = set()
        self._answered: dict[Connection, None] = {}  # that have answers, in this order
        self._without_room: set[Connection] = set()  # that are read later
        self._closed = asyncio.Event()  # some connection ended
        self._request_log = RequestLog(agent.steps_off, agent.metrics, lambda peer: self._payer(peer).key)
        self._dispatch = Dispatch(agent, self.commit, self.long_work, self._request_log)
        self.handle = self._dispatch.handle
        agent.metrics.use_gauge(CONNECTIONS, lambda: len(self._connections))
        self._sweep()

    def start(self, listening: socket.socket, *, verify_only: bool = False, for_all: bool = False) -> None:
        """Accept connections on a socket that listens already, before those of sockets that come later.

        With `verify_only` nothing is answered there but `verify`; `for_all` says that everybody may connect.
        """
        self.turns.listen(
            listening, lambda connected, _: self.let_in(connected, verify_only=verify_only), for_all=for_all
        )

    async def stop(self) -> None:
        """Accept no more, answer what was read, and end all connections before the deadline."""
        self.turns.stop_listening()
        if any(connection.stage is Stage.NEW for connection in self._connections):
            await asyncio.sleep(NEWCOMERS_DEADLINE)
        for connection in list(self._connections):
            connection.finish()
        await self.long_work.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE):
                while self._connections:
                    self._closed.clear()
                    await self._closed.wait()
        for connection in list(self._connections):
            connection.close()
        self._sweeping.cancel()
        self.turns.close()

    @property
    def access(self) -> Access:
        """The rules that hold now."""
        return self._agent.access

    def idle_for(self, reading: clock.Reading) -> float:
        """Seconds since somebody asked something that was not refused, and not only how the daemon is."""
        return self._dispatch.idle_for(reading)

    def let_in(self, connected: socket.socket, *, verify_only: bool = False) -> Connection | None:
        """Serve a connection that was accepted, if there is room for it; else it is closed."""
        peer = peer_of(connected, verify_only=verify_only)
        payer = self._payer(peer)
        stream = Stream(connected, self.closer)
        if not self.admission.admit(payer, peer.uid):
            self._request_log.warning(peer, "connection_refused", reason="too many connections")
            stream.close(lambda: None)
            return None
        if not peer.gids:
            reason = "the peer is in more than 256 groups"
            self._request_log.warning(peer, "groups_ignored", pid=peer.pid, reason=reason)
        connection = Connection(self, stream, peer, Holding(self.pool, payer))
        self._connections.add(connection)
        self.turns.add(connection)
        return connection

    def reassign(self, connection: Connection) -> bool:
        """Let the rules that hold now say what a connection may, and who pays for it.

        False while the uid of somebody with a role is looked up, for a second at most: it is served when that
        is done. A name service that takes longer has it pay with the strangers.
        """
        access, peer = self.access, connection.peer
        is_unknown = access.has_some_role(peer) and access.is_being_looked_up(peer.uid)
        if is_unknown and connection.holding.may_look():
            asyncio.get_running_loop().call_later(_LOOK_PERIOD, self.turns.queue, connection)
            return False
        payer = self._payer(peer)
        if payer is not connection.payer:
            self.admission.move(connection.payer, payer, peer.uid)
            connection.move(payer)
        connection.holding.learn(None if is_unknown else access)
        return True

    def makes_room(self, connection: Connection, more: int = 0) -> bool:
        """Have clients that wait given up, the oldest first, until the pool has room for `more` bytes.

        False if there is no room, and nobody to be given up: the connection is served again when something
        was handled.
        """
        while payer := self.pool.too_large(connection.payer, more):
            oldest = next(iter(payer.stalled), None)
            if oldest is None:
                self._without_room.add(connection)
                return False
            oldest.give_up("its memory is needed for others")
        return True

    def has_answers(self, connection: Connection) -> None:
        """Let the answers of a connection go at the end of the turn."""
        self._answered[connection] = None
        self.turns.schedule()

    def watch(self, connection: Connection) -> None:
        """Serve a connection when its client has made room for answers, if some have none."""
        self.turns.watch(connection, room=len(connection.stream.unsent) > 0)

    def serve_again(self, connection: Connection) -> None:
        """Serve a connection in its payer's next turn."""
        self.turns.queue(connection)

    def forget(self, connection: Connection) -> None:
        """A connection ends. It counts until its stream is closed, which may take long."""
        self._connections.discard(connection)
        self._without_room.discard(connection)
        self.turns.remove(connection)
        payer, uid = connection.payer, connection.peer.uid
        connection.stream.close(lambda: self.admission.leave(payer, uid))
        self._closed.set()

    def violated(self, connection: Connection, reason: object) -> None:
        """A connection is ended for what its client did."""
        peer = connection.peer
        self._request_log.warning(peer, "connection_ended", pid=peer.pid, reason=reason)

    def _flush(self) -> None:
        """Keep what was changed, and let the answers go; their payers pay for it."""
        begun = boot()
        self.commit.flush()
        if not self._answered:
            return
        answered, self._answered = self._answered, {}
        for connection in answered:
            connection.release()
        each = (boot() - begun) / len(answered)
        for connection in answered:
            connection.payer.pay(each)
        self._read_again()

    def _sweep(self) -> None:
        """End connections whose clients have made no end for too long, and forget payers that are gone."""
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)
        latest = boot() - DEADLINE
        for payer in self.admission.payers:
            while payer.stalled:
                connection, since = next(iter(payer.stalled.items()))
                if since > latest:
                    break
                connection.expire()
        self.admission.forget()
        self._read_again()

    def _read_again(self) -> None:
        """Serve those again for which there was no room."""
        if not self._without_room:
            return
        without_room, self._without_room = self._without_room, set()
        for connection in without_room:
            self.turns.queue(connection)

    def _payer(self, peer: Peer) -> Payer:
        return self.admission.payer(self.access, peer)

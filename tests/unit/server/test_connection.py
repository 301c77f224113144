"""Who is at the other end, how much is taken from it, and that others have their turn."""

import asyncio
import grp
import os
import pwd
import socket
from typing import ClassVar

import pytest
from msgpack import packb
from support.agents import logged
from support.bench import Keeper, agent, bench, call, in_loop, receive, send_until_blocked
from support.peers import require_root
from support.raw import NOTIFICATION, REQUEST, RawPeer, pair_of

from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Access, Peer, Rule
from pki2fad.rules.changes import Answer
from pki2fad.rules.clock import Reading
from pki2fad.server.payer import SHARE, Payer, PayerKey
from pki2fad.server.peer import peer_of
from pki2fad.wire.messages import Request


def test_a_peer_is_who_the_kernel_says() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_of(one) == Peer(os.getpid(), os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


@pytest.mark.parametrize("count", [0, 3, 256])
def test_the_groups_of_a_peer_are_the_primary_and_all_others(count: int) -> None:
    require_root()
    one, other = pair_of(12345, count)
    with one, other:
        peer = peer_of(one)
    assert (peer.uid, peer.gids) == (12345, frozenset((12345, *range(20000, 20000 + count))))


@in_loop
async def test_of_a_peer_in_more_than_256_groups_none_counts_and_the_log_says_so() -> None:
    require_root()
    one, other = pair_of(12345, 257)
    with one, logged() as lines:
        async with bench(agent(), Keeper()) as at:
            connection = at.server.let_in(other)
            assert connection is not None
            assert (connection.peer.uid, connection.peer.gids) == (12345, frozenset())
    (line,) = lines
    assert "uid=12345" in line
    assert "256 groups" in line


class Recorder(Agent):
    """Notes in which order requests are handled."""

    order: ClassVar[list[int]] = []

    def handle(self, request: Request, peer: Peer, reading: Reading) -> Answer:
        self.order.append(request.msgid)
        return super().handle(request, peer, reading)


@in_loop
async def test_a_long_pipeline_leaves_room_for_the_others() -> None:
    Recorder.order.clear()
    async with bench(agent(Recorder), Keeper()) as at:
        long, short = await at.connect(), await at.connect()
        long.send(*([REQUEST, msgid, "status", []] for msgid in range(1000)))
        short.send([REQUEST, 2000, "status", []])
        answers = await receive(long, 1000)
        assert [msgid for _, msgid, _, _ in answers] == list(range(1000))
    assert Recorder.order.index(2000) <= 2 * 16  # messages in one turn, as PROTOCOL.md says


@in_loop
async def test_a_flood_of_notifications_leaves_room_for_the_others() -> None:
    Recorder.order.clear()
    async with bench(agent(Recorder), Keeper()) as at:
        long, short = await at.connect(), await at.connect()
        long.send(*[[NOTIFICATION, "x", []]] * 10_000, [REQUEST, 1, "status", []])
        short.send([REQUEST, 2, "status", []])
        assert [msgid for _, msgid, _, _ in await receive(long, 1)] == [1]
    assert Recorder.order == [2, 1]


@in_loop
async def test_from_a_client_that_does_not_read_little_is_taken_until_it_does() -> None:
    async with bench(agent(), Keeper()) as at:
        peer = await at.connect()
        count = await send_until_blocked(peer, "status")
        assert count < 100_000
        answers = await receive(peer, count)
        assert [(msgid, error) for _, msgid, error, _ in answers] == [(0, None)] * count


@in_loop
async def test_who_has_a_role_by_a_group_pays_for_itself_from_the_first_request_on() -> None:
    group, user = grp.getgrnam("daemon"), pwd.getpwnam("daemon")
    asked = agent()
    asked.access = Access([Rule("verify", (f"@{group.gr_name}",))], os.geteuid(), Users())
    async with bench(asked, Keeper()) as at:
        peer = await at.connect(Peer(7, user.pw_uid, frozenset((group.gr_gid,))))
        error, _ = await call(peer, "verify", account="nobody", code="000000")
        assert error is None
        assert at.connection.payer.key == PayerKey(user.pw_uid, verify_only=False)


HALF = packb([REQUEST, 1, "load", [{"sealed": bytes(60_000)}]])[:-1]


async def settle(count: int = 20) -> None:
    """Let the server take its turns."""
    for _ in range(count):
        await asyncio.sleep(0)


@in_loop
async def test_a_payer_with_too_many_half_messages_loses_the_oldest_and_no_other_payer_does() -> None:
    async with bench(agent(), Keeper()) as at:
        other = await at.connect()
        other.send_bytes(HALF)
        await settle()
        at.connection.move(Payer(PayerKey(4001, verify_only=False)))
        at.server.admission.most = at.server.admission.most_of_payer = 200
        peers = [await at.connect() for _ in range(150)]
        with logged() as lines:
            for peer in peers:
                peer.send_bytes(HALF)
                await settle()
                assert all(connection.payer.held <= SHARE for connection in at.server._connections)
        ended = [peer for peer in peers if is_ended(peer)]
        assert ended
        assert ended == peers[: len(ended)]
        assert not is_ended(other)
        assert any("its memory is needed for others" in line for line in lines)


@in_loop
async def test_an_oldest_half_message_that_goes_on_where_there_is_no_room_ends_without_a_mistake() -> None:
    async with bench(agent(), Keeper()) as at:
        oldest = await at.connect()
        payer = at.connection.payer
        oldest.send_bytes(HALF)
        await settle()
        at.server.pool.change(payer, SHARE - payer.held)
        with logged() as lines:
            oldest.send_bytes(b"\0" * 100)
            await settle()
        assert is_ended(oldest)
        (line,) = lines
        assert line.startswith("connection_ended ")
        at.server.pool.change(payer, -payer.held)


@in_loop
async def test_who_has_no_room_is_read_when_there_is_some_again() -> None:
    async with bench(agent(), Keeper()) as at:
        peer = await at.connect()
        payer = at.connection.payer
        at.server.pool.change(payer, SHARE)
        peer.send([REQUEST, 1, "status", []])
        await settle()
        assert not payer.waiting  # it is not tried again and again
        at.server.pool.change(payer, -SHARE)
        at.server._read_again()
        assert [msgid for _, msgid, _, _ in await receive(peer, 1)] == [1]


def is_ended(peer: RawPeer) -> bool:
    peer.stream.setblocking(False)
    try:
        return peer.stream.recv(1) == b""
    except ConnectionResetError:  # with something that was not read
        return True
    except BlockingIOError:
        return False

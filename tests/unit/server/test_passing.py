"""Descriptors that clients pass: closing one may take as long as the client likes, and holds nobody up."""

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import logged
from support.bench import Keeper, agent, bench, call, in_loop
from support.raw import RawPeer

from pki2fad.server import passing

_SO_PASSRIGHTS = 83
PATIENCE = 3  # seconds that closing the socket takes at least


@pytest.fixture
def slow() -> Iterator[int]:
    """The descriptor of a TCP connection on loopback whose last close blocks: nobody reads what it sent."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        sender = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):  # all that the kernel takes
                while True:
                    sender.send(bytes(65536))
            sender.setblocking(True)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, PATIENCE))
            yield sender.detach()


def send_with(peer: RawPeer, data: bytes, *descriptors: int) -> None:
    """Send this with descriptors, which are the receiver's alone then."""
    rights = array.array("i", descriptors)
    peer.stream.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    for descriptor in descriptors:
        os.close(descriptor)


@in_loop
async def test_who_passes_a_descriptor_is_ended_and_it_is_closed() -> None:
    async with bench(agent(), Keeper()) as at:
        peer = await at.connect()
        reading, writing = os.pipe()
        with logged() as lines:
            send_with(peer, b"\x94", writing)
            assert await asyncio.to_thread(peer.stream.recv, 1) == b""
        assert await asyncio.to_thread(os.read, reading, 1) == b""  # nobody can write to it any more
        os.close(reading)
        assert any("it passed descriptors" in line for line in lines)


@in_loop
async def test_a_descriptor_that_is_slow_to_close_holds_nobody_up(slow: int) -> None:
    async with bench(agent(), Keeper()) as at:
        peer, other = await at.connect(), await at.connect()
        send_with(peer, b"\x94", slow)
        assert await asyncio.to_thread(peer.stream.recv, 1) == b""
        error, _ = await call(other, "status")
        assert error is None
        after = asyncio.get_running_loop().create_future()
        at.server.closer._put(lambda: None, lambda: after.set_result(None))
        assert not after.done()  # the thread is still at it


@in_loop
async def test_one_that_was_not_read_holds_nobody_up_either_and_its_connection_counts_until_then(
    slow: int,
) -> None:
    async with bench(agent(), Keeper()) as at:
        other, peer = await at.connect(), await at.connect()
        send_with(peer, b"\x94", slow)
        (connection,) = (one for one in at.server._connections if passing.has_unread(one.stream._socket))
        connection.close()
        error, _ = await call(other, "status")
        assert error is None
        assert at.server.admission.count == 2


def test_the_kernel_refuses_them_at_the_sender_where_it_can(short_path: Path) -> None:
    path = str(short_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(path)
        listening.listen()
        passing.refuse(listening)
        client.connect(path)
        accepted, _ = listening.accept()
        with accepted:
            assert passing.may_bring_some(accepted) == (not is_known_to_the_kernel())
            if is_known_to_the_kernel():
                with pytest.raises(PermissionError):
                    client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])


def is_known_to_the_kernel() -> bool:
    one, other = socket.socketpair()
    with one, other:
        try:
            one.getsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS)
        except OSError:
            return False
    return True

"""The public client and servers that are silent, slow, or die."""

import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import msgpack
import pytest
from support.daemon import PATIENCE
from support.raw import NOTIFICATION, RESPONSE, Listener, RawPeer

from pki2fad.client import Client
from pki2fad.errors import ConnectionLost, TimedOut

STATUS = {"ready": True}
BRIEF = 0.2  # seconds, where a time-out is what is waited for


@pytest.fixture
def path(short_path: Path) -> Path:
    return short_path / "socket"


def test_a_silent_server_is_timed_out_and_the_client_is_usable_afterwards(path: Path) -> None:
    def serve(peer: RawPeer, number: int) -> None:
        request = peer.receive()
        if number > 1:
            peer.send([RESPONSE, request[1], None, STATUS])
        peer.receive()  # until the client leaves

    with Listener(path, serve) as listener, Client(str(path), BRIEF) as client:
        with pytest.raises(TimedOut, match=str(BRIEF)):
            client.status()
        assert client.status() == STATUS
        assert listener.connections == 2


def test_a_late_answer_is_not_taken_for_the_next_one(path: Path) -> None:
    late = threading.Event()

    def serve(peer: RawPeer, number: int) -> None:
        request = peer.receive()
        if number == 1:
            assert late.wait(PATIENCE)
        peer.send([RESPONSE, request[1], None, {"number": number}])

    with Listener(path, serve), Client(str(path), BRIEF) as client:
        with pytest.raises(TimedOut):
            client.status()
        late.set()
        assert client.status() == {"number": 2}


@pytest.mark.parametrize("size", [0, 4 * 1024 * 1024], ids=["sent", "not all sent"])
def test_a_request_that_nobody_takes_is_timed_out(path: Path, size: int) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with Client(str(path), BRIEF) as client, pytest.raises(TimedOut):
            client.load(bytes(size))


def test_the_time_out_is_for_the_call_as_a_whole(path: Path) -> None:
    def serve(peer: RawPeer, _number: int) -> None:
        peer.receive()
        while not select.select([peer.stream], [], [], BRIEF / 10)[0]:
            peer.send([NOTIFICATION, "alive", []])

    with Listener(path, serve), Client(str(path), BRIEF) as client, pytest.raises(TimedOut):
        client.status()


def test_a_thread_that_waits_for_another_threads_call_is_timed_out_too(path: Path) -> None:
    received = threading.Event()
    timed_out = []

    def serve(peer: RawPeer, _number: int) -> None:
        peer.receive()
        received.set()
        peer.receive()  # until the client leaves

    def call() -> None:
        with pytest.raises(TimedOut):
            client.status()
        timed_out.append(True)

    with Listener(path, serve), Client(str(path), BRIEF) as client:
        thread = threading.Thread(target=call)
        thread.start()
        assert received.wait(PATIENCE)
        call()
        thread.join(PATIENCE)
    assert timed_out == [True, True]


PARTS = [b"", b"\x94", msgpack.packb([RESPONSE, 1, None, {"valid": True}])[:-1]]


@pytest.mark.parametrize("part", PARTS, ids=["nothing", "a byte", "all but a byte"])
def test_a_server_that_dies_before_its_answer_is_whole_is_not_asked_again(path: Path, part: bytes) -> None:
    requests = []

    def serve(peer: RawPeer, _number: int) -> None:
        requests.append(peer.receive())
        peer.send_bytes(part)

    with Listener(path, serve) as listener, Client(str(path)) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.verify("123456")
        assert type(caught.value) is ConnectionLost
        assert [request[2] for request in requests] == ["verify"]
        assert listener.connections == 1
        with pytest.raises(ConnectionLost):  # the next call is another one
            client.verify("123456")
        assert listener.connections == len(requests) == 2


def test_a_server_that_dies_with_the_request_unread_is_not_asked_again(path: Path) -> None:
    def serve(peer: RawPeer, _number: int) -> None:
        select.select([peer.stream], [], [])

    with Listener(path, serve) as listener, Client(str(path)) as client:
        with pytest.raises(ConnectionLost):
            client.verify("123456")
        assert listener.connections == 1


def test_a_connection_that_died_between_two_calls_is_opened_again_once(path: Path) -> None:
    closed = threading.Event()

    def serve(peer: RawPeer, _number: int) -> None:
        peer.send([RESPONSE, peer.receive()[1], None, STATUS])
        peer.close()
        closed.set()

    with Listener(path, serve) as listener, Client(str(path)) as client:
        for connections in (1, 2, 3):
            assert client.status() == STATUS
            assert closed.wait(PATIENCE)
            closed.clear()
            assert listener.connections == connections


def test_the_end_of_the_with_block_closes_the_connection(path: Path) -> None:
    closed = threading.Event()

    def serve(peer: RawPeer, _number: int) -> None:
        peer.send([RESPONSE, peer.receive()[1], None, STATUS])
        if not peer.receive_bytes():
            closed.set()

    with Listener(path, serve):
        with Client(str(path)) as client:
            client.status()
            assert not closed.is_set()
        assert closed.wait(PATIENCE)


def test_a_child_that_was_forked_in_the_middle_of_a_threads_call_can_call(path: Path) -> None:
    script = """
import os, sys, threading
from pki2fad.client import Client
client = Client(sys.argv[1], 5)
thread = threading.Thread(target=client.status)
thread.start()
sys.stdin.readline()  # the server has the request, and does not answer yet
child = os.fork()
if not child:
    os._exit(0 if client.status()["number"] == 2 else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("the child ended", flush=True)
thread.join()
sys.exit(status)
"""
    received, answer = threading.Event(), threading.Event()

    def serve(peer: RawPeer, number: int) -> None:
        request = peer.receive()
        if number == 1:
            received.set()
            assert answer.wait(PATIENCE)
        peer.send([RESPONSE, request[1], None, {"number": number}])

    command = [sys.executable, "-P", "-c", script, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with Listener(path, serve), subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert received.wait(PATIENCE)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "the child ended\n"
        answer.set()
        assert process.wait(PATIENCE) == 0

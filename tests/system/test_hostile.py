"""Hostile messages: their connection ends, all others go on, and nothing of them stays behind."""

import contextlib
import select
import socket
import threading
import time

import msgpack
import pytest
from support.bystander import MARGIN, Bystander
from support.daemon import PATIENCE, Daemon
from support.raw import NOTIFICATION, REQUEST, RESPONSE, connect

LIMIT = 64 * 1024  # bytes of a message

STATUS = msgpack.packb([REQUEST, 1, "status", []])
REQUEST_HEAD = STATUS[:-1]
NOTIFICATION_HEAD = msgpack.packb([NOTIFICATION, "x", []])[:-1]

ATTACKS = {
    "noise": bytes(range(255, -1, -1)) * 64,
    "ones": b"\xff" * LIMIT,
    "zeros": bytes(LIMIT),
    "the byte that is never used": b"\xc1",
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303"),
    "a request over the limit": msgpack.packb([REQUEST, 1, "load", [{"sealed": bytes(LIMIT)}]]),
    "a request far over the limit": msgpack.packb([REQUEST, 1, "load", [{"sealed": bytes(100 * LIMIT)}]]),
    "a notification over the limit": msgpack.packb([NOTIFICATION, "x", [bytes(10 * LIMIT)]]),
    "over the limit in small parts": msgpack.packb([REQUEST, 1, "status", [bytes(500)] * 200]),
    "nested arrays": REQUEST_HEAD + b"\x91" * (LIMIT - 100),
    "nested maps": REQUEST_HEAD + b"\x81\xa0" * (LIMIT // 2 - 100),
    "nested keys": REQUEST_HEAD + b"\x81" * (LIMIT - 100),
    "nested in a notification": NOTIFICATION_HEAD + b"\x91" * (LIMIT - 100),
    "nested and wide": REQUEST_HEAD + b"\xdc\x01\x00" * (LIMIT // 3 - 100),
    "a giant string": REQUEST_HEAD + b"\xdb\xff\xff\xff\xff" + bytes(LIMIT),
    "giant bytes": REQUEST_HEAD + b"\xc6\xff\xff\xff\xff" + bytes(LIMIT),
    "a giant extension": REQUEST_HEAD + b"\xc9\xff\xff\xff\xff\x01",
    "a giant method": b"\x94\x00\x01\xdb\xff\xff\xff\xff" + b"x" * LIMIT,
    "a giant message": b"\xdd\xff\xff\xff\xff",
}

# What could go on to be a message, as far as can be told before it is whole.
HALVES = {
    "as large as can be announced": REQUEST_HEAD + b"\xdc\xff\xff" * 1000,
    "a giant array": REQUEST_HEAD + b"\xdd\xff\xff\xff\xff",
    "a giant map": REQUEST_HEAD + b"\xdf\xff\xff\xff\xff",
    "a large array": REQUEST_HEAD + b"\xdd\x01\x00\x00\x00",
    "a large map": REQUEST_HEAD + b"\xdf\x01\x00\x00\x00",
    "the beginning of a giant string": REQUEST_HEAD + b"\xdb\xff\xff\xff\xff",
    "one byte": b"\x94",
    "a message without its end": REQUEST_HEAD,
    "nearly 64 KiB": msgpack.packb([REQUEST, 1, "load", [{"sealed": bytes(LIMIT - 100)}]])[:-1],
}


def attack(daemon: Daemon, data: bytes) -> list[list[object]]:
    """Send this over a connection of its own; returns the answers until the daemon ends it."""
    with connect(daemon.socket) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # ended before we were done
            peer.send_bytes(data)
        return list(peer.messages())


@pytest.mark.parametrize("data", ATTACKS.values(), ids=ATTACKS.keys())
def test_what_cannot_be_a_message_ends_its_connection_at_once(bystander: Bystander, data: bytes) -> None:
    answers = attack(bystander.daemon, data)
    assert len(answers) <= 1
    for kind, msgid, error, result in answers:
        assert (kind, msgid, error[0], result) == (RESPONSE, 1, "bad_request", None)


def test_attacks_leave_neither_memory_nor_descriptors_behind(bystander: Bystander) -> None:
    def attack_with_everything() -> None:
        for data in ATTACKS.values():
            attack(bystander.daemon, data)
        for half in HALVES.values():
            with connect(bystander.daemon.socket) as peer:
                peer.send_bytes(half)

    attack_with_everything()  # what it takes once, it may keep
    memory, descriptors = bystander.memory(), bystander.descriptors()
    for _ in range(20):
        attack_with_everything()
    assert bystander.memory() - memory < MARGIN
    bystander.wait_for_descriptors(descriptors)


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
def test_a_client_that_ends_in_the_middle_of_a_message_gets_the_end_alone(
    bystander: Bystander, half: bytes
) -> None:
    with connect(bystander.daemon.socket) as peer:
        peer.send_bytes(half)
        peer.finish()
        assert list(peer.messages()) == []


def test_a_message_that_drips_in_by_bytes_is_answered(bystander: Bystander) -> None:
    with connect(bystander.daemon.socket) as peer:
        for byte in msgpack.packb([REQUEST, 1, "load", [{"sealed": bytes(4096)}]]):
            peer.send_bytes(bytes([byte]))
        assert peer.receive()[2][0] == "bad_seal"


def test_20_000_pipelined_requests_are_answered_in_order(bystander: Bystander) -> None:
    count = 20_000
    with connect(bystander.daemon.socket) as peer:
        peer.call("status")
        memory = bystander.memory()
        methods = ("generate", "status", "nonsense", "verify")
        requests = [[REQUEST, msgid, methods[msgid % 4], []] for msgid in range(count)]
        sender = threading.Thread(target=peer.send, args=requests)
        sender.start()
        assert [peer.receive()[1] for _ in range(count)] == list(range(count))
        sender.join(PATIENCE)
        assert bystander.memory() - memory < MARGIN


def test_who_sends_no_more_gets_all_answers_and_then_the_end(bystander: Bystander) -> None:
    with connect(bystander.daemon.socket) as peer:
        peer.send(*([REQUEST, msgid, "status", []] for msgid in range(2000)))
        peer.finish()
        assert [msgid for _, msgid, _, _ in peer.messages()] == list(range(2000))


def test_clients_that_leave_without_reading_are_forgotten(bystander: Bystander) -> None:
    descriptors = bystander.descriptors()
    for _ in range(50):
        with connect(bystander.daemon.socket) as peer:
            peer.send_bytes(STATUS * 1000)
    bystander.wait_for_descriptors(descriptors)


class Slow:
    """What a client does that never comes to an end, a step at a time."""

    def __init__(self, daemon: Daemon) -> None:
        self.peer = connect(daemon.socket)
        self.stream: socket.socket = self.peer.stream
        self.stream.setblocking(False)
        self.steps = 0

    def step(self) -> None:
        """Do a little."""
        self.steps += 1


class Silent(Slow):
    """Begins a message and says no more."""

    def step(self) -> None:
        super().step()
        if self.steps == 1:
            self.peer.send_bytes(REQUEST_HEAD)


class Dripping(Slow):
    """Sends a byte at a time of a message that does not end."""

    def step(self) -> None:
        super().step()
        self.peer.send_bytes(NOTIFICATION_HEAD + b"\xc5\xff\x00" if self.steps == 1 else b"x")


class Deaf(Slow):
    """Asks as fast as it can, and never reads."""

    sent = 0  # bytes

    def step(self) -> None:
        super().step()
        with contextlib.suppress(BlockingIOError):
            while True:
                self.sent += self.stream.send((STATUS * 1000)[self.sent % len(STATUS) :])


class Idle(Slow):
    """Is there, and asks nothing."""


class Steady(Slow):
    """Ends a message each time, and begins another."""

    def step(self) -> None:
        super().step()
        self.peer.send_bytes(STATUS[:5] if self.steps == 1 else STATUS[5:] + STATUS[:5])


@pytest.mark.slow
def test_who_does_not_finish_a_message_or_never_reads_is_ended_and_nobody_else(bystander: Bystander) -> None:
    memory = bystander.memory()
    ended = bystander.daemon.log().count("connection_ended")
    with contextlib.ExitStack() as resources:

        def begin(kind: type[Slow]) -> Slow:
            slow = kind(bystander.daemon)
            resources.callback(slow.peer.close)
            return slow

        doomed = [begin(kind) for kind in (Silent, Dripping, *[Deaf] * 10)]
        others = [begin(kind) for kind in (Idle, Steady)]
        at_work = {slow.stream.fileno(): slow for slow in (*doomed, *others)}
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        for descriptor in at_work:
            poll.register(descriptor, 0)  # POLLHUP and POLLERR come unasked
        while len(at_work) > len(others):
            assert time.monotonic() < deadline
            for slow in at_work.values():
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # poll will tell
                    slow.step()
            bystander.check()
            for descriptor, _ in poll.poll(500):
                assert at_work.pop(descriptor) in doomed
                poll.unregister(descriptor)
        assert bystander.memory() - memory < MARGIN
        assert bystander.daemon.log().count("connection_ended") - ended == len(doomed)
        idle, steady = others
        for slow in others:
            slow.stream.settimeout(PATIENCE)
        assert idle.peer.call("status")["ready"] is True
        assert [steady.peer.receive()[1] for _ in range(steady.steps - 1)] == [1] * (steady.steps - 1)

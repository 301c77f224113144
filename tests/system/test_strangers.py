"""What uids without a role, and uids that only verify, can cost others: nothing but their own time."""

import contextlib
import re
import signal
import time
from collections.abc import Iterator

import msgpack
import pytest
from support.bystander import MARGIN, Bystander, besieged, standing_by
from support.daemon import wait_until
from support.peers import require_root
from support.raw import REQUEST, connect, connect_as, fill_queue

from pki2fad.client import Client
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.server.admission import WITHOUT_ROLE
from pki2fad.server.listener import BACKLOG
from pki2fad.server.payer import SHARE

STRANGER, VERIFIER = 47_111, 47_112
SETTINGS = f'[[access]]\nrole = "verify"\nwho = [{VERIFIER}]\n'
HALF = msgpack.packb([REQUEST, 1, "load", [{"sealed": bytes(60_000)}]])[:-1]
MANY_ARGUMENTS = msgpack.packb([REQUEST, 1, "verify", [{f"{number:04x}": 0 for number in range(7_000)}]])


@pytest.fixture
def bystander(host_key: PrivateKey) -> Iterator[Bystander]:
    require_root()
    with besieged(host_key, SETTINGS) as daemon, standing_by(daemon, host_key) as bystander:
        yield bystander


def test_who_fills_the_queue_of_the_main_socket_keeps_nobody_from_the_others(bystander: Bystander) -> None:
    daemon = bystander.daemon
    daemon.signal(signal.SIGSTOP)  # nobody is accepted meanwhile
    try:
        with contextlib.ExitStack() as crowd:
            assert BACKLOG <= fill_queue(crowd, daemon.socket) <= BACKLOG + 1
            for name in ("root.sock", "verify.sock"):
                connect(daemon.root / name).close()  # at once, and not when the others were accepted
    finally:
        daemon.signal(signal.SIGCONT)
    bystander.check()


def test_requests_with_thousands_of_arguments_are_refused_and_take_no_memory(
    bystander: Bystander,
) -> None:
    memory = bystander.memory()
    with contextlib.ExitStack() as crowd:
        peers = [crowd.enter_context(peer) for peer in connect_as(STRANGER, bystander.daemon.socket, 8)]
        for peer in peers:
            peer.send_bytes(MANY_ARGUMENTS)
        for peer in peers:
            _, msgid, error, _ = peer.receive()
            assert (msgid, error[0]) == (1, "bad_request")
        assert bystander.memory() - memory < MARGIN / 2


def test_half_messages_of_one_uid_take_no_more_than_its_share(bystander: Bystander) -> None:
    daemon, memory = bystander.daemon, bystander.memory()
    count = 3 * SHARE // len(HALF)
    with contextlib.ExitStack() as crowd:
        for peer in connect_as(VERIFIER, daemon.socket, count):
            crowd.enter_context(peer)
            with contextlib.suppress(OSError):  # it may be given up before it was sent
                peer.send_bytes(HALF)
        wait_until(lambda: "its memory is needed for others" in daemon.log(), "none is given up")
        bystander.check()
        assert bystander.memory() - memory < SHARE + MARGIN


def test_what_many_strangers_do_wrong_is_logged_as_of_one(bystander: Bystander) -> None:
    began = time.monotonic()
    daemon = bystander.daemon
    for uid in range(STRANGER, STRANGER + 5):
        for peer in connect_as(uid, daemon.socket, WITHOUT_ROLE + 30):
            peer.close()
    wait_until(lambda: "connection_refused" in daemon.log(), "nobody is refused")
    bystander.settle()
    refused = re.findall(r"connection_refused uid=(\d+)", daemon.log())
    assert len(refused) <= 20 * (time.monotonic() - began + 2)


def test_a_uid_with_a_role_is_served_while_strangers_have_all_that_they_may(bystander: Bystander) -> None:
    daemon = bystander.daemon
    with contextlib.ExitStack() as crowd:
        for uid in range(STRANGER, STRANGER + 3):
            for peer in connect_as(uid, daemon.socket, WITHOUT_ROLE):
                crowd.enter_context(peer)
                peer.send_bytes(HALF)
        (verifier,) = connect_as(VERIFIER, daemon.socket)
        with verifier:
            assert verifier.call("verify", account="nobody", code="123456") == {"valid": False}
        with Client(str(daemon.root / "root.sock")) as root:
            assert root.status()["ready"]

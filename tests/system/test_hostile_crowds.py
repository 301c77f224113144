"""Crowds: everybody has a share of the connections, root gets in, and a code is good for one of them."""

import asyncio
import contextlib
import pwd
import resource
import signal
import threading
from collections.abc import Iterator

import msgpack
import pytest
from support.bystander import MARGIN, Bystander, besieged, standing_by
from support.daemon import Daemon, wait_until
from support.peers import missing, require_root
from support.raw import REQUEST, RawPeer, Seed, connect, connect_as, fill_queue

from pki2fad.client import AsyncClient, Client
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import Busy
from pki2fad.server.admission import WITHOUT_ROLE

pytestmark = pytest.mark.slow  # crowds

CAP, CAP_PER_UID, ROOT_RESERVE = 80, 20, 16
USER = pwd.getpwnam("daemon").pw_uid
VERIFIERS = (USER, 12345, 12346, 12347)
CAPS = f"""
[server]
max_connections = {CAP}
max_connections_per_uid = {CAP_PER_UID}
[[access]]
role = "verify"
who = {list(VERIFIERS)}
"""


@pytest.fixture
def capped(host_key: PrivateKey) -> Iterator[Bystander]:
    """A daemon with small caps, and root's client at it."""
    require_root()
    with besieged(host_key, CAPS) as daemon, standing_by(daemon, host_key) as bystander:
        yield bystander


@pytest.fixture
def crowd() -> Iterator[contextlib.ExitStack]:
    """Closes its members at the end."""
    with contextlib.ExitStack() as crowd:
        yield crowd


def gather(crowd: contextlib.ExitStack, daemon: Daemon, count: int, uid: int = 0) -> list[RawPeer]:
    """So many connections."""
    peers = connect_as(uid, daemon.socket, count) if uid else [connect(daemon.socket) for _ in range(count)]
    return [crowd.enter_context(peer) for peer in peers]


def served(peers: list[RawPeer]) -> list[RawPeer]:
    """Those of them that are answered; all others were closed."""
    return [peer for peer in peers if is_served(peer)]


def is_served(peer: RawPeer) -> bool:
    try:
        return peer.call("status")["ready"] is True
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return False


def allow_descriptors(count: int) -> None:
    """Let this process have so many open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        missing(f"{count} descriptors (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def test_one_uid_takes_its_share_and_no_more(capped: Bystander, crowd: contextlib.ExitStack) -> None:
    assert len(served(gather(crowd, capped.daemon, CAP_PER_UID + 5, uid=12345))) == CAP_PER_UID
    assert len(served(gather(crowd, capped.daemon, 2, uid=USER))) == 2


def test_a_connection_that_ends_makes_room_for_another(
    capped: Bystander, crowd: contextlib.ExitStack
) -> None:
    peers = gather(crowd, capped.daemon, CAP_PER_UID, uid=12345)
    assert len(served(peers)) == CAP_PER_UID
    for peer in peers[:3]:
        peer.close()
    capped.settle()
    assert len(served(gather(crowd, capped.daemon, 5, uid=12345))) == 3


def test_all_without_a_role_together_have_half_of_all(capped: Bystander, crowd: contextlib.ExitStack) -> None:
    gathered = [gather(crowd, capped.daemon, WITHOUT_ROLE + 5, uid=uid) for uid in (20001, 20002)]
    assert [len(served(peers)) for peers in gathered] == [WITHOUT_ROLE, CAP // 2 - WITHOUT_ROLE]
    assert len(served(gather(crowd, capped.daemon, 2, uid=USER))) == 2


def test_when_all_are_taken_root_still_gets_in(capped: Bystander, crowd: contextlib.ExitStack) -> None:
    gathered = [gather(crowd, capped.daemon, CAP_PER_UID, uid=uid) for uid in VERIFIERS]
    assert sum(len(served(peers)) for peers in gathered) == CAP - 1  # the bystander's is among them
    capped.check()
    assert len(served(gather(crowd, capped.daemon, ROOT_RESERVE + 4))) == ROOT_RESERVE
    capped.check()


def test_512_clients_with_the_same_code_and_one_of_them_gets_in(
    bystander: Bystander, crowd: contextlib.ExitStack, host_key: PrivateKey
) -> None:
    allow_descriptors(1024)
    peers = gather(crowd, bystander.daemon, 512)
    seed = Seed()
    peers[0].call("load", sealed=seed.sealed(host_key), replace=True)
    request = [REQUEST, 1, "verify", [{"code": seed.code()}]]
    for peer in peers:
        peer.send(request)
    answers = [peer.receive() for peer in peers]
    assert [error for _, _, error, _ in answers] == [None] * 512
    assert sorted(result["valid"] for *_, result in answers) == [False] * 511 + [True]


def test_a_thousand_connections_that_die_in_the_middle_of_a_message_leave_nothing_behind(
    bystander: Bystander,
) -> None:
    message = msgpack.packb([REQUEST, 1, "load", [{"sealed": bytes(40_000)}]])
    descriptors = bystander.descriptors()
    memory = []
    for _ in range(5):  # the first time takes what so many connections need at once
        with contextlib.ExitStack() as crowd:
            for number, peer in enumerate(gather(crowd, bystander.daemon, 250)):
                peer.send_bytes(message[: 1 + 10 * number])
            bystander.check()
        bystander.wait_for_descriptors(descriptors)
        memory.append(bystander.memory())
    assert memory[-1] - memory[0] < MARGIN / 2


def test_a_thousand_connections_that_say_nothing_leave_nothing_behind(
    bystander: Bystander, crowd: contextlib.ExitStack
) -> None:
    allow_descriptors(1300)
    descriptors = bystander.descriptors()
    gather(crowd, bystander.daemon, 1000)
    wait_until(lambda: bystander.descriptors() >= 1000, "not all are accepted")
    bystander.check()
    crowd.close()
    bystander.wait_for_descriptors(descriptors)


def test_who_has_no_role_has_few_connections_and_others_answers_do_not_wait_for_them(
    besieged_daemon: Daemon, bystander: Bystander, crowd: contextlib.ExitStack
) -> None:
    require_root()
    besieged_daemon.root.chmod(0o755)
    besieged_daemon.socket.chmod(0o666)
    peers = served(gather(crowd, besieged_daemon, 200, uid=USER))
    assert len(peers) == WITHOUT_ROLE
    bystander.check()


def test_root_waits_where_others_fill_the_queue_of_those_to_be_accepted(
    host_key: PrivateKey, crowd: contextlib.ExitStack
) -> None:
    with besieged(host_key, "[server]\nmax_connections_per_uid = 16000\n") as daemon:
        daemon.signal(signal.SIGSTOP)  # nobody is accepted meanwhile
        fill_queue(crowd, daemon.socket)
        with pytest.raises(Busy, match="too many others"), Client(str(daemon.socket), timeout=0.2) as client:
            client.status()

        async def ask() -> bool:
            async with AsyncClient(str(daemon.socket)) as client:
                asyncio.get_running_loop().call_later(0.1, daemon.signal, signal.SIGCONT)
                return (await client.status())["ready"] is True

        assert asyncio.run(ask())
        daemon.signal(signal.SIGSTOP)
        fill_queue(crowd, daemon.socket)
        timer = threading.Timer(0.2, daemon.signal, [signal.SIGCONT])
        timer.start()
        with daemon.client() as client:
            assert client.status()["ready"]
        timer.join()

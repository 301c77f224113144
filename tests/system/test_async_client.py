"""The client on asyncio: against a real daemon, and against servers that are slow, wrong, or die."""

import asyncio
import inspect
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.daemon import PATIENCE, Daemon
from support.raw import NOTIFICATION, RESPONSE, Listener, RawPeer, Seed

from pki2fad import client as public
from pki2fad.client import Account, AsyncClient, Client, Code, Enrolment
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadRequest, ConnectionLost, NoSuchAccount, NotReachable, ProtocolError, TimedOut

BRIEF = 0.2  # seconds, where a time-out is what is waited for


@pytest.fixture
def seeds(lasting: Daemon, host_key: PrivateKey) -> dict[str, Seed]:
    """New seeds, loaded as eight accounts."""
    seeds = {f"account{number}": Seed() for number in range(8)}
    with lasting.client() as client:
        for name, seed in seeds.items():
            client.load(seed.sealed(host_key), name, replace=True)
    return seeds


@pytest.fixture
def path(short_path: Path) -> Path:
    return short_path / "socket"


Use = Callable[[AsyncClient], Coroutine[Any, Any, None]]


def run(path: Path, use: Use, timeout: float = PATIENCE) -> None:
    """Run with a client whose connection is closed at the end."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), AsyncClient(str(path), timeout) as client:
            await use(client)

    asyncio.run(main(), debug=True)


async def wait_for(event: threading.Event) -> None:
    """Wait for what happens in the server's thread, and let the loop run."""
    assert await asyncio.to_thread(event.wait, PATIENCE)


def test_it_has_the_methods_of_the_blocking_client() -> None:
    def methods(kind: type) -> dict[str, list[inspect.Parameter]]:
        functions = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: list(inspect.signature(function).parameters.values())
            for name, function in functions
            if not name.startswith("_") or name == "__init__"
        }

    assert methods(AsyncClient) == methods(Client)
    coroutines = {name for name in methods(Client) if inspect.iscoroutinefunction(getattr(AsyncClient, name))}
    assert coroutines == methods(Client).keys() - {"__init__"}


def test_the_module_has_no_other_names_than_it_says() -> None:
    with pytest.raises(AttributeError, match="Asyncclient"):
        _ = public.Asyncclient  # type: ignore[attr-defined]


def test_every_method_answers(lasting: Daemon, host_key: PrivateKey) -> None:
    seed = Seed("SHA256", 8, 60)

    async def use(client: AsyncClient) -> None:
        sealed = seed.sealed(host_key)
        assert await client.load(sealed, "every", **seed.parameters, replace=True) is True
        assert await client.load(sealed, "every", **seed.parameters) is False
        code = await client.generate("every")
        assert type(code) is Code
        assert code.code == seed.code(code.step)
        assert await client.verify(code.code, "every") is True
        assert await client.verify(code.code, "every") is False
        (account,) = [account for account in await client.accounts() if account.account == "every"]
        assert type(account) is Account
        assert (account.algorithm, account.digits, account.period) == ("SHA256", 8, 60)
        assert (await client.status())["pid"] == lasting.pid
        enrolment = await client.enroll()
        assert type(enrolment) is Enrolment
        assert enrolment.seed.hex() not in repr(enrolment)
        own = Seed()
        own.hex = enrolment.seed.hex()
        assert await client.enroll_confirm("0000000") is False
        assert await client.enroll_confirm(own.code()) is True
        assert await client.remove(enrolment.account) is None
        assert await client.remove("every") is None
        with pytest.raises(NoSuchAccount, match="every"):
            await client.generate("every")
        with pytest.raises(BadRequest):
            await client.load(b"", "every", period=2**70)
        assert (await client.status())["ready"] is True

    run(lasting.socket, use)


def test_where_nobody_listens_the_error_names_the_path(path: Path) -> None:
    async def use(client: AsyncClient) -> None:
        with pytest.raises(NotReachable, match=str(path)):
            await client.status()

    run(path, use)


def test_calls_at_once_share_a_connection_and_each_gets_its_own_answer(path: Path) -> None:
    def serve(peer: RawPeer, _number: int) -> None:
        requests = [peer.receive() for _ in range(500)]  # all are here before the first answer
        for _, msgid, _, [arguments] in reversed(requests):
            code = {"code": arguments["account"], "valid_for": 1, "step": 1}
            peer.send([NOTIFICATION, "hello", []], [RESPONSE, msgid, None, code])

    async def use(client: AsyncClient) -> None:
        names = [str(number) for number in range(500)]
        codes = await asyncio.gather(*map(client.generate, names))
        assert [code.code for code in codes] == names

    with Listener(path, serve) as listener:
        run(path, use)
        assert listener.connections == 1


def test_a_code_that_many_ask_for_at_once_is_accepted_once(lasting: Daemon, seeds: dict[str, Seed]) -> None:
    async def use(client: AsyncClient) -> None:
        for name, seed in seeds.items():
            code = seed.code()
            verdicts = await asyncio.gather(*(client.verify(code, name) for _ in range(64)))
            assert verdicts.count(True) == 1

    run(lasting.socket, use)


def test_calls_that_are_cancelled_anywhere_confuse_no_other(lasting: Daemon, seeds: dict[str, Seed]) -> None:
    chance = random.Random(20260101)
    made: list[tuple[str, Code]] = []

    async def use(client: AsyncClient) -> None:
        async def generate(name: str) -> None:
            made.append((name, await client.generate(name)))

        for _ in range(200):
            tasks = [asyncio.create_task(generate(name)) for name in seeds]
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            for task in tasks:
                if chance.random() < 0.5:
                    task.cancel()
            await asyncio.wait(tasks)

    run(lasting.socket, use)
    right = {(name, step): seeds[name].code(step) for name, step in {(n, code.step) for n, code in made}}
    assert len(made) > 200
    assert [code.code for _, code in made] == [right[name, code.step] for name, code in made]


def test_a_late_answer_is_dropped_and_the_connection_stays_in_use(path: Path) -> None:
    received, late = threading.Event(), threading.Event()

    def serve(peer: RawPeer, _number: int) -> None:
        timed_out, cancelled = peer.receive(), peer.receive()
        peer.send([NOTIFICATION, "slow", []])  # else it might as well hang
        received.set()
        assert late.wait(PATIENCE)
        for number, request in enumerate((timed_out, cancelled, peer.receive())):
            peer.send([RESPONSE, request[1], None, {"number": number}])

    async def use(client: AsyncClient) -> None:
        timed_out = asyncio.create_task(client.status())
        cancelled = asyncio.create_task(client.status())
        await wait_for(received)
        cancelled.cancel()
        with pytest.raises(TimedOut, match=str(BRIEF)):
            await timed_out
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        late.set()
        assert await client.status() == {"number": 2}

    with Listener(path, serve) as listener:
        run(path, use, BRIEF)
        assert listener.connections == 1


def test_a_connection_on_which_nothing_comes_is_left_to_those_who_wait_on_it(path: Path) -> None:
    received, answer, ended = threading.Semaphore(0), threading.Event(), threading.Event()

    def serve(peer: RawPeer, number: int) -> None:
        for request in peer.messages():
            received.release()
            if number == 1 and request[2] == "accounts":
                assert answer.wait(PATIENCE)
            if number == 2 or request[2] == "accounts":
                peer.send([RESPONSE, request[1], None, []])
        if number == 1:
            ended.set()

    async def use(client: AsyncClient) -> None:
        hanging = asyncio.create_task(client.verify("123456"))
        assert await asyncio.to_thread(received.acquire, timeout=PATIENCE)
        client._timeout = PATIENCE
        patient = asyncio.create_task(client.accounts())
        with pytest.raises(TimedOut):
            await hanging
        assert await client.accounts() == []  # of the second connection
        assert not patient.done()
        answer.set()
        assert await patient == []
        await wait_for(ended)

    with Listener(path, serve) as listener:
        run(path, use, BRIEF)
        assert listener.connections == 2


def test_a_daemon_that_hangs_is_asked_no_more_when_another_has_its_place(path: Path) -> None:
    ended = threading.Event()

    def hang(peer: RawPeer, _number: int) -> None:
        assert len(list(peer.messages())) == 1
        ended.set()

    def serve(peer: RawPeer, _number: int) -> None:
        peer.send([RESPONSE, peer.receive()[1], None, {"valid": True}])

    async def use(client: AsyncClient) -> None:
        with pytest.raises(TimedOut):
            await client.verify("123456")
        await wait_for(ended)
        await asyncio.to_thread(path.unlink)
        with Listener(path, serve):
            assert await client.verify("123456") is True
            await client.close()

    with Listener(path, hang):
        run(path, use, BRIEF)


def test_in_another_event_loop_nothing_is_sent(path: Path) -> None:
    received = []

    def serve(peer: RawPeer, _number: int) -> None:
        for request in peer.messages():
            received.append(request[2])
            peer.send([RESPONSE, request[1], None, {}])

    client = AsyncClient(str(path), PATIENCE)
    with Listener(path, serve), asyncio.Runner() as own:
        own.run(client.status())
        for use in (client.verify("123456"), client.close()):
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(use)
        own.run(client.status())
        own.run(client.close())
    assert received == ["status", "status"]


def test_a_call_that_is_cancelled_while_it_connects_leaves_the_client_usable(lasting: Daemon) -> None:
    async def use(client: AsyncClient) -> None:
        for turns in range(6):
            task = asyncio.create_task(client.status())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert (await client.status())["pid"] == lasting.pid
            await client.close()

    run(lasting.socket, use)


DIE: dict[str, Callable[[RawPeer, int], None]] = {
    "nothing": lambda _peer, _msgid: None,
    "half an answer": lambda peer, msgid: peer.send_bytes(bytes([0x94, RESPONSE, msgid])),
}
LIE: dict[str, Callable[[RawPeer, int], None]] = {
    "another msgid": lambda peer, _msgid: peer.send([RESPONSE, 77, None, {"valid": True}]),
    "no message": lambda peer, _msgid: peer.send_bytes(b"\xc1"),
    "a string": lambda peer, _msgid: peer.send("HTTP/1.1 200 OK"),
}


@pytest.mark.parametrize(
    ("act", "kind"),
    [*((act, ConnectionLost) for act in DIE.values()), *((act, ProtocolError) for act in LIE.values())],
    ids=[*DIE, *LIE],
)
def test_when_the_server_dies_or_lies_all_that_wait_are_told_and_none_is_sent_again(
    path: Path, act: Callable[[RawPeer, int], None], kind: type[Exception]
) -> None:
    def serve(peer: RawPeer, number: int) -> None:
        msgids = [peer.receive()[1] for _ in range(3 if number == 1 else 1)]
        if number == 1:
            act(peer, msgids[0])
            if kind is ProtocolError:
                assert peer.receive_bytes() == b""  # the client closes
        else:
            peer.send([RESPONSE, msgids[0], None, {"valid": True}])

    async def use(client: AsyncClient) -> None:
        verdicts = await asyncio.gather(*(client.verify("123456") for _ in range(3)), return_exceptions=True)
        assert [type(verdict) for verdict in verdicts] == [kind] * 3
        assert len(set(map(str, verdicts))) == 1
        assert len(set(map(id, verdicts))) == 3  # what one caller notes on it is no other's
        assert await client.verify("123456") is True

    with Listener(path, serve) as listener:
        run(path, use)
        assert listener.connections == 2


def test_a_connection_that_died_between_two_calls_is_opened_again(path: Path) -> None:
    closed = threading.Event()

    def serve(peer: RawPeer, number: int) -> None:
        peer.send([RESPONSE, peer.receive()[1], None, {"number": number}])
        peer.close()
        closed.set()

    async def use(client: AsyncClient) -> None:
        for number in (1, 2, 3):
            assert await client.status() == {"number": number}
            assert closed.wait(PATIENCE)  # without a turn of the loop, which would tell the client
            closed.clear()

    with Listener(path, serve) as listener:
        run(path, use)
        assert listener.connections == 3


def test_a_client_outlives_a_restart_of_the_daemon(daemon: Daemon, host_key: PrivateKey) -> None:
    seed = Seed()
    daemon.start()

    async def use(client: AsyncClient) -> None:
        await client.load(seed.sealed(host_key))
        code = seed.code()
        assert await client.verify(code) is True
        await asyncio.to_thread(daemon.kill)
        with pytest.raises(NotReachable):
            await client.verify(code)
        await asyncio.to_thread(daemon.start)
        assert await client.verify(code) is False

    run(daemon.socket, use)


def test_no_more_is_kept_for_a_server_that_does_not_read_than_one_buffer(path: Path) -> None:
    read = threading.Event()
    received = []

    def serve(peer: RawPeer, _number: int) -> None:
        assert read.wait(PATIENCE)
        received.extend(message[1] for message in peer.messages())

    async def use(client: AsyncClient) -> None:
        loads: list[Awaitable[bool]] = [client.load(bytes(50_000)) for _ in range(200)]
        for error in await asyncio.gather(*loads, return_exceptions=True):
            assert type(error) is TimedOut
        read.set()
        with pytest.raises(TimedOut):  # this one is written when there is room
            await client.status()

    with Listener(path, serve):
        run(path, use, BRIEF)
    assert 1 < len(received) < 100  # of 201


def test_closing_ends_the_calls_that_wait_and_another_call_opens_again(path: Path) -> None:
    received = threading.Event()

    def serve(peer: RawPeer, number: int) -> None:
        request = peer.receive()
        received.set()
        if number == 1:
            assert peer.receive_bytes() == b""
        else:
            peer.send([RESPONSE, request[1], None, {"number": number}])

    async def use(client: AsyncClient) -> None:
        waiting = asyncio.create_task(client.status())
        await wait_for(received)
        await client.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await waiting
        assert await client.status() == {"number": 2}
        await client.close()
        await client.close()

    with Listener(path, serve):
        run(path, use)


@pytest.mark.parametrize("turns", range(1, 6))
def test_no_connection_stays_that_was_being_opened_when_the_client_was_closed(path: Path, turns: int) -> None:
    ended = threading.Event()

    def serve(peer: RawPeer, _number: int) -> None:
        try:
            for request in peer.messages():
                peer.send([RESPONSE, request[1], None, {}])
        finally:  # it may be closed before the answer
            ended.set()

    async def main() -> None:
        client = AsyncClient(str(path), PATIENCE)
        task = asyncio.create_task(client.status())
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.close()
        (answer,) = await asyncio.gather(task, return_exceptions=True)
        assert answer == {} or type(answer) is ConnectionLost
        await wait_for(ended)

    with Listener(path, serve):
        asyncio.run(main(), debug=True)

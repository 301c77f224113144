"""When an answer may leave, what happens when a change cannot be kept, and how the server stops."""

import asyncio
import math
import select
import socket
from pathlib import Path
from typing import Any

import pytest
from support.agents import logged
from support.bench import TIMEOUT, Keeper, agent, arrived, bench, call, in_loop, receive, send_until_blocked
from support.raw import REQUEST, Seed, connect

from pki2fad.errors import UnusableState
from pki2fad.methods.agent import Agent
from pki2fad.rules import clock
from pki2fad.rules.access import Peer
from pki2fad.rules.changes import Answer, Edit, Spend
from pki2fad.rules.clock import Reading
from pki2fad.rules.outcomes import KEPT, Outcome
from pki2fad.server import passing
from pki2fad.server.server import Server
from pki2fad.wire.messages import Request


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def seed() -> Seed:
    return Seed()


def assert_error(code: str, error: Any) -> None:
    assert error[0] == code
    assert error[1].startswith(f"{code}: ")


@in_loop
async def test_a_code_whose_spend_cannot_be_kept_is_unavailable_and_not_good_later(
    keeper: Keeper, seed: Seed
) -> None:
    async with bench(agent(default=seed), keeper) as at:
        peer = await at.connect()
        keeper.failure = UnusableState("the disk is full")
        error, _ = await call(peer, "verify", code=seed.code())
        assert_error("unavailable", error)
        keeper.failure = None
        assert await call(peer, "verify", code=seed.code()) == (None, {"valid": False})


@in_loop
async def test_what_changes_nothing_is_answered_while_nothing_can_be_kept(keeper: Keeper, seed: Seed) -> None:
    async with bench(agent(default=seed), keeper) as at:
        peer = await at.connect()
        keeper.failure = UnusableState("the disk is full")
        _, result = await call(peer, "generate")
        assert result["code"] == seed.code(result["step"])
        assert await call(peer, "verify", code="00000000") == (None, {"valid": False})


@in_loop
async def test_a_code_whose_spend_is_refused_is_not_valid(keeper: Keeper, seed: Seed) -> None:
    async with bench(agent(default=seed), keeper) as at:
        keeper.refused = {"default"}
        assert await call(await at.connect(), "verify", code=seed.code()) == (None, {"valid": False})
        assert keeper.kinds == [[Spend]]


@pytest.mark.parametrize("method", ["load", "remove"])
@in_loop
async def test_an_edit_that_cannot_be_kept_changes_nothing(keeper: Keeper, seed: Seed, method: str) -> None:
    arguments = {"sealed": Seed().hex.encode(), "replace": True} if method == "load" else {}
    async with bench(agent(default=seed), keeper) as at:
        peer = await at.connect()
        before = await call(peer, "accounts")
        keeper.failure = UnusableState("the disk is full")
        error, _ = await call(peer, method, **arguments)
        assert_error("unavailable", error)
        assert await call(peer, "accounts") == before
        _, kept = await call(peer, "generate")
        assert kept["code"] == seed.code(kept["step"])
        keeper.failure = None
        error, _ = await call(peer, method, **arguments)
        assert error is None
        assert keeper.kinds == [[Edit], [Edit]]


@in_loop
async def test_no_answer_leaves_before_the_spend_before_it_is_kept(keeper: Keeper, seed: Seed) -> None:
    kept = asyncio.Event()
    async with bench(agent(default=seed), keeper) as at:
        peer = await at.connect()
        early: list[Any] = []  # answers that are there before the spend is kept

        def look() -> None:
            early.extend(arrived(peer))
            kept.set()

        keeper.before = look
        tails = [["status", []], ["verify", [{"code": seed.code()}]], ["status", []], ["generate", []]]
        peer.send(*([REQUEST, msgid, *tail] for msgid, tail in enumerate(tails)))
        async with asyncio.timeout(TIMEOUT):
            await kept.wait()
        assert [msgid for _, msgid, _, _ in early] in ([], [0])  # the turn may end behind the first
        answers = early + await receive(peer, 4 - len(early))
        assert [msgid for _, msgid, _, _ in answers] == [0, 1, 2, 3]
        assert answers[1][3] == {"valid": True}
        assert keeper.kinds == [[Spend]]


@in_loop
async def test_the_spends_of_one_turn_are_kept_together_and_each_has_its_verdict(keeper: Keeper) -> None:
    seeds = {name: Seed() for name in ("a", "b", "c", "d")}
    async with bench(agent(**seeds), keeper) as at:
        keeper.refused = {"b", "d"}
        one, other = await at.connect(), await at.connect()
        requests = [
            [REQUEST, 1, "verify", [{"account": name, "code": seed.code()}]] for name, seed in seeds.items()
        ]
        one.send(*requests[:2])
        other.send(*requests[2:])
        for connection in at.server._connections:
            connection.has_happened(select.EPOLLIN)
            connection.serve(clock.read(), end=math.inf)
        for peer in (one, other):
            assert [answer[3]["valid"] for answer in await receive(peer, 2)] == [True, False]
        assert keeper.kinds == [[Spend] * 4]


@in_loop
async def test_a_spend_is_kept_before_the_edit_behind_it(keeper: Keeper, seed: Seed) -> None:
    async with bench(agent(default=seed), keeper) as at:
        peer = await at.connect()
        verify = ["verify", [{"code": seed.code()}]]
        tails = [verify, ["remove", []], ["load", [{"sealed": seed.hex.encode()}]], verify]
        peer.send(*([REQUEST, msgid, *tail] for msgid, tail in enumerate(tails)))
        answers = await receive(peer, 4)
        assert [msgid for _, msgid, _, _ in answers] == [0, 1, 2, 3]
        assert answers[0][3] == {"valid": True}
        assert answers[3][3] == {"valid": False}
        assert keeper.kinds == [[Spend], [Edit], [Edit]]


@in_loop
async def test_an_edit_of_the_daemons_own_comes_behind_the_spends_before_it(
    keeper: Keeper, seed: Seed
) -> None:
    at_work = agent(default=seed)
    async with bench(at_work, keeper) as at:
        peer = await at.connect()
        spend = Request(1, "verify", {"code": seed.code()})
        connection = next(iter(at.server._connections))
        at.server.handle(connection, [spend], clock.read(), end=float("inf"))
        edit = at_work.provision("default", Seed().hex.encode(), b"digest", clock.read())
        outcomes: list[Outcome] = []
        at.server.commit.edit(edit, outcomes.append)
        assert outcomes == [KEPT]
        assert keeper.kinds == [[Spend], [Edit]]
        assert [(msgid, result) for _, msgid, _, result in await receive(peer, 1)] == [(1, {"valid": True})]


@in_loop
async def test_a_code_is_spent_also_when_its_client_is_gone_before_the_answer(
    keeper: Keeper, seed: Seed
) -> None:
    async with bench(agent(default=seed), keeper) as at:
        gone = await at.connect()
        gone.send([REQUEST, 1, "verify", [{"code": seed.code()}]])
        gone.close()
        assert await call(await at.connect(), "verify", code=seed.code()) == (None, {"valid": False})
        assert keeper.kinds == [[Spend]]


class BrokenAgent(Agent):
    """An agent with a mistake in it."""

    def handle(self, request: Request, peer: Peer, reading: Reading) -> Answer:
        if request.method == "generate":
            raise LookupError("123456 is not in the list")
        return super().handle(request, peer, reading)


@in_loop
async def test_an_unexpected_failure_is_internal_and_the_connection_lives(keeper: Keeper) -> None:
    async with bench(agent(BrokenAgent), keeper) as at:
        peer = await at.connect()
        with logged() as lines:
            error, _ = await call(peer, "generate")
        assert_error("internal", error)
        assert "123456" not in error[1]
        assert any("generate" in line for line in lines)
        _, result = await call(peer, "status")
        assert result["ready"] is True


@pytest.mark.parametrize("method", ["verify", "load", "remove"])
@in_loop
async def test_an_unexpected_failure_of_the_store_is_internal_and_the_connection_lives(
    keeper: Keeper, seed: Seed, method: str
) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "verify": {"code": seed.code()},
        "load": {"sealed": Seed().hex.encode(), "replace": True},
        "remove": {},
    }
    async with bench(agent(default=seed), keeper) as at:
        peer = await at.connect()
        keeper.failure = LookupError("a mistake")
        error, _ = await call(peer, method, **arguments[method])
        assert_error("internal", error)
        _, kept = await call(peer, "generate")
        assert kept["code"] == seed.code(kept["step"])


@in_loop
async def test_a_stop_answers_what_was_read_whatever_the_other_clients_do(keeper: Keeper, seed: Seed) -> None:
    many = {f"user{number}": Seed() for number in range(100)}
    async with bench(agent(default=seed, **many), keeper) as at:
        reading, connection = await at.connect(), at.connection
        silent, half, *deaf = [await at.connect() for _ in range(7)]
        for peer in deaf:  # what each of them has sent takes longer to answer than a stop may take
            await send_until_blocked(peer, "accounts")
        half.send_bytes(b"\x94\x00")
        verify = [REQUEST, 0, "verify", [{"code": seed.code()}]]
        reading.send(verify, *([REQUEST, msgid, "status", []] for msgid in range(1, 1000)))
        for _ in range(1000):  # turns of the loop, in which all of it is read
            if not passing.has_unread(connection.stream._socket):
                break
            await asyncio.sleep(0)
        reader = asyncio.create_task(asyncio.to_thread(lambda: list(reading.messages())))
        async with asyncio.timeout(TIMEOUT / 2):  # a client that does not read has all of it otherwise
            await at.server.stop()
        answers = await reader
        assert [msgid for _, msgid, _, _ in answers] == list(range(1000))
        assert answers[0][3] == {"valid": True}
        assert list(silent.messages()) == list(half.messages()) == []
        for peer in deaf:
            assert len(list(peer.messages())) > 0  # what was in the socket already, and then the end


@in_loop
async def test_who_was_just_let_in_is_answered_by_a_stop(keeper: Keeper, seed: Seed) -> None:
    async with bench(agent(default=seed), keeper) as at:
        peer = await at.connect()
        stop = asyncio.create_task(at.server.stop())
        await asyncio.sleep(0)  # it has begun
        assert not stop.done()
        peer.send([REQUEST, 0, "generate", []])
        ((_, _, error, _),) = await receive(peer, 1)
        assert error is None
        await stop


@in_loop
async def test_after_a_stop_nobody_is_accepted(keeper: Keeper, short_path: Path) -> None:
    path = short_path / "socket"
    server = Server(agent(), keeper.keep, 100, 100)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        server.start(listening)
        with connect(path) as peer:
            _, result = await call(peer, "status")
            assert result["ready"] is True
            await server.stop()
            assert list(peer.messages()) == []
        with pytest.raises(ConnectionRefusedError):
            connect(path)

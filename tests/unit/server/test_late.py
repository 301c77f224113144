"""A store that answers later: answers keep their order, nothing leaves before its time, nobody else waits."""

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.agents import OTHER_SEED, SEED, reference_code, sealed
from support.bench import arrived, call, in_loop, receive
from support.late import code, late_bench, turns
from support.raw import REQUEST

from pki2fad.errors import UnusableState
from pki2fad.rules.outcomes import SPENT, STALE, NotKept, Outcome, Unknown
from pki2fad.server.answers import MOST_HELD

FULL = UnusableState("the disk is full")


def verify(msgid: int, account: str, ahead: int = 0) -> list[Any]:
    return [REQUEST, msgid, "verify", [{"account": account, "code": code(ahead)}]]


def generate(msgid: int, account: str = "a0") -> list[Any]:
    return [REQUEST, msgid, "generate", [{"account": account}]]


def replace(msgid: int, account: str) -> list[Any]:
    return [REQUEST, msgid, "load", [{"account": account, "sealed": sealed(OTHER_SEED), "replace": True}]]


def msgids(answers: list[Any]) -> list[int]:
    return [msgid for _, msgid, _, _ in answers]


@in_loop
async def test_answers_leave_in_the_order_of_the_requests_however_the_store_settles(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 3) as (at, late):
        peer = await at.connect()
        peer.send(generate(0), verify(1, "a0"), verify(2, "a1"), generate(3), verify(4, "a2"), generate(5))
        await turns(lambda: len(late.unsettled) == 3)
        await turns()
        assert msgids(arrived(peer)) == [0]
        late.settle(2)
        await turns()
        assert arrived(peer) == []
        late.settle(0)
        await turns()
        assert msgids(arrived(peer)) == [1]
        late.settle(0)
        await turns()
        assert msgids(arrived(peer)) == [2, 3, 4, 5]


@in_loop
async def test_others_are_answered_while_a_connection_waits(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 1) as (at, late):
        waits, other = await at.connect(), await at.connect()
        waits.send(verify(1, "a0"))
        await turns(lambda: len(late.unsettled) == 1)
        assert (await call(other, "generate", account="a0"))[0] is None
        assert arrived(waits) == []


@in_loop
async def test_no_more_is_handled_behind_so_many_answers_that_are_held(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 300) as (at, late):
        peer = await at.connect()
        peer.send(*(verify(msgid, f"a{msgid}") for msgid in range(300)))
        await turns(lambda: len(late.unsettled) == MOST_HELD)
        await turns(count=100)
        assert late.count == MOST_HELD
        late.settle(0)
        await turns(lambda: late.count == MOST_HELD + 1)
        answers = arrived(peer)
        while len(answers) < 300:
            late.settle_all()
            await turns()
            answers += arrived(peer)
        assert answers == [[1, msgid, None, {"valid": True}] for msgid in range(300)]


@in_loop
async def test_answers_that_wait_for_nothing_count_too_behind_one_that_waits(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 1) as (at, late):
        peer, connection = await at.connect(), at.connection
        peer.send(verify(0, "a0"), *(generate(msgid) for msgid in range(1, 300)))
        await turns(lambda: len(connection._answers.pending) == MOST_HELD)
        await turns(count=100)
        assert len(connection._answers.pending) == MOST_HELD
        assert connection.payer.held > 0  # they count in the pool
        late.settle_all()
        assert msgids(await receive(peer, 300)) == list(range(300))
        assert connection.payer.held < MOST_HELD  # bytes: of an empty buffer


@in_loop
async def test_nothing_is_handled_behind_an_edit_before_it_is_settled(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 2) as (at, late):
        peer = await at.connect()
        peer.send(verify(0, "a1"), replace(1, "a0"), generate(2), verify(3, "a1", 1), generate(4))
        await turns(lambda: late.accounts() == ["a1", "a0"])
        late.settle(0)
        await turns()
        assert msgids(arrived(peer)) == [0]
        assert late.accounts() == ["a0"]
        late.settle(0)
        await turns()
        _, second = arrived(peer)
        assert second[3]["code"] == reference_code(OTHER_SEED, second[3]["step"])
        late.settle_all()
        assert msgids(await receive(peer, 2)) == [3, 4]


@in_loop
async def test_an_account_whose_edit_is_on_its_way_is_neither_verified_nor_edited(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 2) as (at, late):
        peer, other = await at.connect(), await at.connect()
        peer.send(replace(1, "a0"))
        await turns(lambda: len(late.unsettled) == 1)
        busy = ["unavailable", "unavailable: the account is being changed; try again", 1]
        assert (await call(other, "verify", account="a0", code=code()))[0] == busy
        assert (await call(other, "remove", account="a0"))[0] == busy
        _, before = await call(other, "generate", account="a0")
        assert before["code"] == reference_code(SEED, before["step"])
        assert late.count == 1
        late.settle_all()
        await receive(peer, 1)
        _, after = await call(other, "generate", account="a0")
        assert after["code"] == reference_code(OTHER_SEED, after["step"])


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (NotKept(FULL), "the state cannot be written; the daemon's log says why"),
        (Unknown(FULL), "it is not known whether this was stored: look before you try again"),
    ],
)
@in_loop
async def test_a_code_that_was_not_kept_or_may_be_is_never_good(
    tmp_path: Path, told: Outcome, error: str
) -> None:
    async with late_bench(tmp_path, 2) as (at, late):
        peer = await at.connect()
        for account in ("a0", "a1"):  # of what is unknown one is kept, and one is not
            late.told[account] = told
            peer.send(verify(1, account))
            await turns(lambda: len(late.unsettled) == 1)
            late.settle_all()
            assert await receive(peer, 1) == [[1, 1, ["unavailable", f"unavailable: {error}"], None]]
            assert await call(peer, "verify", account=account, code=code()) == (None, {"valid": False})
        assert late.count == 2  # nothing was tried again


@pytest.mark.parametrize("told", [NotKept(FULL), Unknown(FULL), SPENT])
@in_loop
async def test_an_edit_that_is_not_known_to_be_kept_moves_no_memory(tmp_path: Path, told: Outcome) -> None:
    async with late_bench(tmp_path, 1) as (at, late):
        peer = await at.connect()
        late.told["a0"] = told
        peer.send(replace(1, "a0"), generate(2))
        await turns(lambda: len(late.unsettled) == 1)
        late.settle_all()
        first, second = await receive(peer, 2)
        assert first[2][0] == "unavailable"
        assert second[3]["code"] == reference_code(SEED, second[3]["step"])
        assert late.count == 1
        del late.told["a0"]
        peer.send(replace(3, "a0"))  # it is not held any more
        await turns(lambda: len(late.unsettled) == 1)
        late.settle_all()
        assert (await receive(peer, 1))[0][2] is None


@in_loop
async def test_a_code_that_another_host_spent_is_not_valid(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 1) as (at, late):
        peer = await at.connect()
        late.told["a0"] = SPENT
        peer.send(verify(1, "a0"))
        await turns(lambda: len(late.unsettled) == 1)
        late.settle_all()
        assert await receive(peer, 1) == [[1, 1, None, {"valid": False}]]


@in_loop
async def test_what_was_planned_on_what_is_not_so_any_more_is_handled_once_more(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 2) as (at, late):
        peer = await at.connect()
        late.told["a0"] = STALE
        load = [REQUEST, 1, "load", [{"account": "new", "sealed": sealed(OTHER_SEED)}]]
        late.told["new"] = STALE
        peer.send(verify(0, "a0"), load, generate(2, "new"))
        await turns(lambda: len(late.unsettled) == 2)
        keyring = at.server._agent._keyring  # another host has given both accounts seeds, and memory knows it
        for name in ("a0", "new"):
            keyring.put(
                keyring.seal(name, bytearray(b"of another host there"), keyring.accounts["a1"].parameters)
            )
        late.settle_all()
        first, second, third = await receive(peer, 3)
        assert first[3] == {"valid": False}  # of the seed that was there before
        assert second[2][0] == "account_exists"
        assert third[2] is None
        assert late.count == 2


@in_loop
async def test_what_is_stale_twice_is_refused(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 1) as (at, late):
        peer = await at.connect()
        late.told["a0"] = STALE
        peer.send(replace(1, "a0"))
        for _ in range(2):
            await turns(lambda: len(late.unsettled) == 1)
            late.settle_all()
        refused = ["unavailable", "unavailable: another change came between; try again", 1]
        assert await receive(peer, 1) == [[1, 1, refused, None]]
        assert late.count == 2


@in_loop
async def test_who_sends_no_more_gets_the_answers_that_wait_and_then_the_end(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 2) as (at, late):
        peer = await at.connect()
        peer.send(verify(0, "a0"), replace(1, "a1"), generate(2, "a1"))
        peer.finish()
        await turns(lambda: len(late.unsettled) == 2)
        late.settle(1, 0)
        assert msgids(await asyncio.to_thread(lambda: list(peer.messages()))) == [0, 1, 2]


@in_loop
async def test_what_is_settled_for_who_is_gone_is_done_all_the_same(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 2) as (at, late):
        gone, other = await at.connect(), await at.connect()
        gone.send(verify(0, "a0"), replace(1, "a1"))
        await turns(lambda: len(late.unsettled) == 2)
        gone.close()
        await turns()
        late.settle_all()
        await turns(lambda: len(at.server._connections) == 1)
        _, result = await call(other, "generate", account="a1")
        assert result["code"] == reference_code(OTHER_SEED, result["step"])
        assert await call(other, "verify", account="a0", code=code()) == (None, {"valid": False})


@in_loop
async def test_a_stop_waits_for_the_store_and_answers(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 1) as (at, late):
        peer = await at.connect()
        peer.send(verify(1, "a0"))
        await turns(lambda: len(late.unsettled) == 1)
        stop = asyncio.create_task(at.server.stop())
        await turns()
        assert not stop.done()
        late.settle_all()
        await stop
        assert list(peer.messages()) == [[1, 1, None, {"valid": True}]]


@in_loop
async def test_a_stop_ends_though_the_store_never_answers(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 1) as (at, late):
        peer, admin = await at.connect(), await at.connect()
        peer.send(verify(1, "a0"))
        await turns(lambda: len(late.unsettled) == 1)
        admin.send([REQUEST, 1, "clock_accept", []])
        await turns(lambda: len(late.unsettled) == 2)
        begun = time.monotonic()
        await at.server.stop()
        assert time.monotonic() - begun < 2  # all that a stop may take
        late.settle_all()  # and what comes then does no harm
        assert list(peer.messages()) == []


@in_loop
async def test_many_accounts_are_not_changed_while_an_edit_is_on_its_way(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 1) as (at, late):
        peer, admin = await at.connect(), await at.connect()
        peer.send(replace(1, "a0"))
        await turns(lambda: len(late.unsettled) == 1)
        error, _ = await call(admin, "clock_accept")
        assert error == ["unavailable", "unavailable: another change came between; try again", 1]
        late.settle_all()
        assert (await receive(peer, 1))[0][2] is None


@in_loop
async def test_a_long_work_goes_on_with_each_edit_when_it_is_settled(tmp_path: Path) -> None:
    async with late_bench(tmp_path, 2) as (at, late):
        agent, events = at.server._agent, []

        def work() -> Any:
            for name in ("a0", "a1"):
                yield agent.provision(name, sealed(OTHER_SEED), b"digest", agent._watch.last)
                events.append(agent.memory.file_digests.get(name))
            return None

        at.server.long_work.begin(work(), events.append)
        await turns(lambda: late.accounts() == ["a0"])
        assert events == []
        late.settle_all()
        await turns(lambda: late.accounts() == ["a1"])
        assert events == [b"digest"]
        late.unsettled[0] = late.unsettled[0]._replace(outcome=NotKept(FULL))
        late.settle_all()
        await turns(lambda: len(events) == 2)
        assert events == [b"digest", FULL]


@in_loop
async def test_ten_thousand_requests_are_answered_in_order_and_each_code_is_good_once(tmp_path: Path) -> None:
    chance = random.Random(14)
    count, accounts = 10_000, 2_000
    async with late_bench(tmp_path, accounts) as (at, late):
        peer = await at.connect()
        names = [f"a{chance.randrange(accounts)}" for _ in range(count)]
        requests = [
            verify(msgid, name) if msgid % 3 else generate(msgid, name) for msgid, name in enumerate(names)
        ]
        unsent = b"".join(map(msgpack.packb, requests))
        answers: list[Any] = []
        async with asyncio.timeout(120):
            while len(answers) < count:
                await turns(count=2)
                places = range(len(late.unsettled))
                late.settle(*chance.sample(places, chance.randint(0, len(places))))
                answers += arrived(peer)  # in between, or neither side could send more
                peer.stream.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    unsent = unsent[peer.stream.send(unsent) :]
        assert msgids(answers) == list(range(count))
        good = [
            name
            for name, (*_, error, result) in zip(names, answers, strict=True)
            if result == {"valid": True}
        ]
        asked = {name for msgid, name in enumerate(names) if msgid % 3}
        assert sorted(good) == sorted(asked)

"""Requests are answered, counted and logged alike, in whatever encoding and company they come."""

import asyncio
import contextlib
import os
import re
import select
from itertools import chain
from typing import Any

import pytest
from msgpack import packb
from support.agents import logged
from support.bench import Keeper, agent, arrived, bench, in_loop, receive, send_until_blocked
from support.raw import Seed

from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Peer, Rule
from pki2fad.rules.changes import Answer, Failure, Spend, Work
from pki2fad.rules.clock import Reading
from pki2fad.server import requestlog
from pki2fad.server.connection import MESSAGES_AT_ONCE
from pki2fad.server.requestlog import NEAR_LOOKUPS_PER_SECOND
from pki2fad.wire.messages import Request

RULES = [
    Rule("verify", (4001, 4003)),
    Rule("generate", (4002, 4003)),
    Rule("verify", (4004,), ("deploy",)),
]
PEERS = {
    "root": Peer(7, 0, frozenset()),
    "who verifies": Peer(7, 4001, frozenset()),
    "who generates": Peer(7, 4002, frozenset()),
    "who does both": Peer(7, 4003, frozenset()),
    "who verifies for one account": Peer(7, 4004, frozenset()),
    "who has no role": Peer(7, 4005, frozenset()),
    "root where only verify is answered": Peer(7, 0, frozenset(), verify_only=True),
}

Call = tuple[str, dict[str, Any]]

FOREVER = float("inf")
FIRST = NEAR_LOOKUPS_PER_SECOND + 3  # wrong codes, after which none is looked up any more


def encoded(msgid: int, call: Call, *, shortest: bool) -> bytes:
    method, args = call
    data: bytes = packb([0, msgid, method, [args]])
    return data if shortest else data.replace(b"\x94\x00", b"\xdc\x00\x04\x00", 1)


async def ask(
    seeds: dict[str, Seed], peer: Peer, calls: list[Call], *, shortest: bool, throttled: bool
) -> tuple[list[Any], list[str], dict[str, Any], list[type]]:
    """What comes of calls that arrive in two pieces: answers, lines, counts, and changes that were kept."""
    keeper, asked = Keeper(), agent(**seeds)
    asked.access = Access(RULES, os.geteuid(), Users())
    asked._throttle.enabled = throttled
    with logged() as lines:
        async with bench(asked, keeper) as at:
            client = await at.connect(peer)
            messages = [encoded(msgid, call, shortest=shortest) for msgid, call in enumerate(calls)]
            answers = []
            for some in (messages[:FIRST], messages[FIRST:]):
                client.send_bytes(b"".join(some))
                answers += await receive(client, len(some))
    for answer in answers:  # the second may have ended meanwhile
        if isinstance(answer[3], dict):
            answer[3].pop("valid_for", None)
        elif answer[2] is not None:
            answer[2] = answer[2][:1]
    lines = [re.sub(" reason=.*try again at .*| until=.*", "", line) for line in lines]
    return answers, sorted(lines), asked.metrics.read()["requests"], [*chain.from_iterable(keeper.kinds)]


def step_now() -> int:
    return int(clock.wall() // 30)


def calls_of(seeds: dict[str, Seed]) -> list[Call]:
    """One of each kind, one after the other."""
    deploy, other = seeds["deploy"], seeds["x.y@z"]
    wrong: list[Call] = [("verify", {"account": "x.y@z", "code": "00000000"})]
    return [
        *wrong * FIRST,
        ("generate", {"account": "deploy"}),
        ("verify", {"account": "deploy", "code": deploy.code()}),
        ("verify", {"account": "deploy", "code": deploy.code()}),
        ("verify", {"account": "nobody", "code": "1234567"}),
        ("generate", {"account": "nobody"}),
        ("generate", {"account": "x.y@z"}),
        *wrong,
        ("verify", {"account": "x.y@z", "code": other.code()}),
        ("generate", {"account": "deploy"}),
    ]


@pytest.mark.parametrize("throttled", [False, True])
@pytest.mark.parametrize("who", PEERS)
@in_loop
async def test_the_encoding_changes_nothing(who: str, throttled: bool) -> None:
    while True:
        step = step_now()
        seeds = {"deploy": Seed(), "x.y@z": Seed()}
        calls = calls_of(seeds)
        one = await ask(seeds, PEERS[who], calls, shortest=True, throttled=throttled)
        other = await ask(seeds, PEERS[who], calls, shortest=False, throttled=throttled)
        if step_now() == step:  # the codes are of one step then
            break
    assert one == other
    assert [msgid for _, msgid, _, _ in one[0]] == list(range(len(calls)))


@in_loop
async def test_root_is_answered_all_of_it() -> None:
    while True:
        step = step_now()
        seeds = {"deploy": Seed(), "x.y@z": Seed()}
        calls = calls_of(seeds)
        answers, lines, counts, kept = await ask(seeds, PEERS["root"], calls, shortest=True, throttled=False)
        if step_now() == step:
            break
    results = [error[0] if error else result.get("valid", "code") for _, _, error, result in answers]
    assert results == [
        *[False] * 8, "code", True, False, "no_such_account", "no_such_account", "code", False, True, "code",
    ]  # fmt: skip
    assert kept == [Spend, Spend]
    assert counts["verify"] == {"ok": 2, "invalid": 10, "throttled": 0, "no_such_account": 1}
    assert counts["generate"] == {"ok": 3, "no_such_account": 1}
    assert len(lines) == len(calls)
    codes = {args["code"] for _, args in calls if "code" in args}
    assert not codes & set(re.findall("[0-9]+", " ".join(lines)))


@in_loop
async def test_wrong_codes_are_counted_where_they_are_throttled() -> None:
    seeds = {"deploy": Seed()}
    wrong: list[Call] = [("verify", {"account": "deploy", "code": "00000000"})]
    answers, _, counts, kept = await ask(
        seeds, PEERS["root"], wrong * (FIRST + 2), shortest=True, throttled=True
    )
    assert kept == [Failure] * 4
    assert [error and error[0] for _, _, error, _ in answers] == [None] * 4 + ["throttled"] * 6
    assert counts["verify"] == {"ok": 0, "invalid": 4, "throttled": 6}


@in_loop
async def test_half_a_request_is_handled_behind_whole_ones_when_the_rest_has_come() -> None:
    seeds = {"deploy": Seed()}
    async with bench(agent(**seeds), Keeper()) as at:
        client = await at.connect()
        verify = ("verify", {"account": "deploy", "code": "00000000"})
        data = b"".join(encoded(msgid, verify, shortest=True) for msgid in range(3))
        status = packb([0, 3, "status", []])
        client.send_bytes(data + status[:4])
        assert [msgid for _, msgid, _, _ in await receive(client, 3)] == [0, 1, 2]
        client.send_bytes(status[4:] + encoded(4, verify, shortest=True))
        assert [msgid for _, msgid, _, _ in await receive(client, 2)] == [3, 4]
        client.send_bytes(encoded(5, verify, shortest=True) + b"\xc1")
        assert [msgid for _, msgid, _, _ in await receive(client, 1)] == [5]
        assert client.stream.recv(1) == b""


@in_loop
@pytest.mark.parametrize("account", ["deploy", "nobody"])
async def test_only_so_many_requests_are_answered_at_once(account: str) -> None:
    async with bench(agent(deploy=Seed()), Keeper()) as at:
        client, sender = await at.connect(), at.connection
        client.send_bytes(encoded(1, ("generate", {"account": account}), shortest=True) * 21)
        sender.has_happened(select.EPOLLIN)
        assert sender.serve(clock.read(), end=FOREVER)
        assert len(sender._answers.pending) == MESSAGES_AT_ONCE
        assert not sender.serve(clock.read(), end=FOREVER)
        assert len(await receive(client, 21)) == 21


@in_loop
async def test_an_answer_that_waits_for_nothing_leaves_before_the_turn_ends() -> None:
    async with bench(agent(deploy=Seed()), Keeper()) as at:
        client, sender = await at.connect(), at.connection
        client.send_bytes(encoded(1, ("generate", {"account": "deploy"}), shortest=True))
        sender.has_happened(select.EPOLLIN)
        sender.serve(clock.read(), end=FOREVER)
        assert [msgid for _, msgid, _, _ in arrived(client)] == [1]


@in_loop
@pytest.mark.parametrize("throttled", [False, True])
async def test_what_waits_for_its_turn_is_answered_by_the_rights_of_then(throttled: bool) -> None:
    asked = agent(deploy=Seed())
    asked.access = Access(RULES, os.geteuid(), Users())
    asked._throttle.enabled = throttled
    async with bench(asked, Keeper()) as at:
        client, sender = await at.connect(PEERS["who generates"]), at.connection
        request = encoded(1, ("generate", {"account": "deploy"}), shortest=True)
        client.send_bytes(request * (MESSAGES_AT_ONCE + 2))
        sender.has_happened(select.EPOLLIN)
        assert sender.serve(clock.read(), end=FOREVER)
        asked.access = Access([], os.geteuid(), Users())
        at.server.turns.queue(sender)
        errors = [error and error[0] for _, _, error, _ in await receive(client, MESSAGES_AT_ONCE + 2)]
        assert errors == [None] * MESSAGES_AT_ONCE + ["forbidden"] * 2


@in_loop
async def test_nothing_more_is_read_from_a_client_that_takes_no_answers() -> None:
    asked = agent(deploy=Seed())
    asked._throttle.enabled = True
    async with bench(asked, Keeper()) as at:
        client, sender = await at.connect(), at.connection
        wrong = encoded(1, ("verify", {"account": "deploy", "code": "00000000"}), shortest=True)
        with contextlib.suppress(BlockingIOError):  # what the kernel takes is full
            while True:
                sender.stream._socket.send(bytes(65536))
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.stream._socket.send(b"\0")
        client.send_bytes(wrong + encoded(2, ("remove", {"account": "deploy"}), shortest=True))
        while asked.account_count:  # noqa: ASYNC110 - nothing tells of it: the answer does not leave
            await asyncio.sleep(0)
        client.send_bytes(encoded(3, ("generate", {"account": "deploy"}), shortest=True))
        await asyncio.sleep(0)
        before = sender.payer.held
        assert before > 0
        assert not sender.serve(clock.read(), end=0.0)
        assert sender.payer.held == before
        client.close()


@in_loop
async def test_lines_come_in_the_order_of_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requestlog, "NEAR_LOOKUPS_PER_SECOND", 0)  # the line of one comes after the others
    calls: list[Call] = [
        *[("verify", {"account": "deploy", "code": "00000000"})] * 2,
        ("generate", {"account": "nobody"}),
        ("generate", {"account": "deploy"}),
    ]
    with logged() as lines:
        async with bench(agent(deploy=Seed()), Keeper()) as at:
            client = await at.connect()
            client.send_bytes(b"".join(encoded(1, call, shortest=True) for call in calls))
            await receive(client, len(calls))
    assert [line.split()[0] for line in lines] == ["verify", "verify", "refused", "generate"]


@in_loop
async def test_the_line_of_a_wrong_code_is_written_by_the_end_of_a_stop() -> None:
    with logged() as lines:
        async with bench(agent(deploy=Seed()), Keeper()) as at:
            client = await at.connect()
            client.send_bytes(
                encoded(1, ("verify", {"account": "deploy", "code": "00000000"}), shortest=True)
            )
            await receive(client, 1)
            client.close()
            await at.server.stop()
    assert len(lines) == 1


@in_loop
async def test_a_mistake_of_ours_ends_one_connection_and_keeps_no_other_waiting() -> None:
    class Broken(Agent):
        def handle(self, request: Request, peer: Peer, reading: Reading) -> Answer:
            if request.method == "verify":
                return Answer({"no verdict": True})
            return super().handle(request, peer, reading)

    verify, generate = ("verify", {"code": "000000"}), ("generate", {"account": "deploy"})
    async with bench(agent(Broken, deploy=Seed()), Keeper()) as at:
        one, other = await at.connect(), await at.connect()
        with logged() as lines:
            one.send_bytes(encoded(1, verify, shortest=True))
            other.send_bytes(encoded(1, generate, shortest=True))
            await receive(other, 1)
            await receive(one, 1)
            assert await asyncio.to_thread(one.stream.recv, 1) == b""
            other.send_bytes(encoded(2, generate, shortest=True))
            await receive(other, 1)
        assert any(line.startswith("failed\nTraceback") for line in lines)


@in_loop
@pytest.mark.parametrize("way", ["at once", "when it is kept", "when its work is done"])
async def test_who_asked_for_what_cannot_be_sent_is_told_of_a_mistake(way: str) -> None:
    def work() -> Work:
        yield None
        return Answer(object())

    class Broken(Agent):
        def handle(self, request: Request, peer: Peer, reading: Reading) -> Answer:
            if request.method == "lock":
                return super().handle(request, peer, reading)
            if way == "when its work is done":
                return Answer(work=work())
            change = Spend("deploy", 1, 30, reading.wall) if way == "when it is kept" else None
            return Answer({"valid": object()}, change=change)

    async with bench(agent(Broken, deploy=Seed()), Keeper()) as at:
        client = await at.connect()
        with logged() as lines:
            client.send_bytes(encoded(1, ("accounts", {}), shortest=True))
            client.send_bytes(encoded(2, ("lock", {}), shortest=True))
            answers = await receive(client, 2)
        assert [(msgid, error and error[0]) for _, msgid, error, _ in answers] == [(1, "internal"), (2, None)]
        assert any(line.startswith("failed\nTraceback") for line in lines)


@in_loop
async def test_a_request_that_is_carried_out_is_a_use() -> None:
    async with bench(agent(deploy=Seed()), Keeper()) as at:
        client = await at.connect()
        begun = clock.read()
        generate, unknown = ("generate", {"account": "deploy"}), ("generate", {"account": "nobody"})
        client.send_bytes(b"".join(encoded(1, call, shortest=True) for call in (unknown, generate, unknown)))
        await receive(client, 3)
        assert at.server.idle_for(begun) <= 0
        now = clock.read()
        client.send_bytes(encoded(1, unknown, shortest=True))
        await receive(client, 1)
        assert at.server.idle_for(now) > 0


@in_loop
async def test_a_client_that_reads_late_gets_all_answers() -> None:
    async with bench(agent(deploy=Seed()), Keeper()) as at:
        client = await at.connect()
        sent = await send_until_blocked(client, "generate", {"account": "deploy"})
        assert len(await receive(client, sent)) == sent

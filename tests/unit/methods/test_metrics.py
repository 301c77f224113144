"""What is counted of requests, and what a server counts of those that it answers."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import ROOT, STARTED, STRANGER, at, logged, make_agent, make_keyring
from support.agents import call as ask
from support.bench import Keeper, agent, bench, call, in_loop
from support.raw import Seed

from pki2fad.errors import Forbidden, UnusableState
from pki2fad.methods.agent import Agent
from pki2fad.methods.metrics import BOUNDS, Metrics
from pki2fad.methods.table import METHODS
from pki2fad.rules.access import Peer, Rule


def plain(value: Any) -> Iterator[Any]:
    """What is in nested maps and lists."""
    if isinstance(value, dict):
        for one in value.values():
            yield from plain(one)
    elif isinstance(value, list):
        for one in value:
            yield from plain(one)
    else:
        yield value


def test_requests_are_counted_by_method_and_outcome() -> None:
    metrics = Metrics(METHODS[name] for name in ("verify", "generate", "load"))
    for outcome in ("ok", "throttled", "ok"):
        metrics.add("verify", outcome, 0.0)
    metrics.add("load", "bad_seal", 0.002)
    assert metrics.read()["requests"] == {
        "verify": {"ok": 2, "invalid": 0, "throttled": 1},  # these are there before they happen
        "load": {"bad_seal": 1},
    }


@given(st.lists(st.text()))
def test_methods_that_do_not_exist_are_one(names: list[str]) -> None:
    metrics = Metrics([METHODS["verify"]])
    for name in names:
        metrics.add(name, "unknown_method", 0.0)
    assert metrics.read()["requests"].keys() <= {"verify", "unknown"}
    assert sum(sum(of.values()) for of in metrics.read()["requests"].values()) == len(names)


@given(st.lists(st.floats(0, 10) | st.sampled_from([1e-6, 25e-6, 1e-4, 1e-3])))
def test_each_request_is_in_the_class_of_its_latency(latencies: list[float]) -> None:
    metrics = Metrics([METHODS["verify"]])
    for seconds in latencies:
        metrics.add("verify", "ok", seconds)
    counts = metrics.read()["latencies"]["verify"]
    below = [sum(seconds * 1e6 <= bound for seconds in latencies) for bound in metrics.read()["bounds"]]
    assert [sum(counts[: place + 1]) for place in range(len(BOUNDS))] == below
    assert sum(counts) == len(latencies)
    assert metrics.read()["microseconds"]["verify"] == pytest.approx(
        sum(latencies) * 1e6, abs=len(latencies) + 1
    )  # each may lose its fraction


def test_the_answer_has_the_status_and_no_name_of_an_account() -> None:
    agent = make_agent(make_keyring({"alice": b"12345678901234567890"}))
    status = ask(agent, "status", Peer(3, 1001, frozenset({1001})), at(STARTED.wall + 5))  # for everybody
    metrics = ask(agent, "metrics", ROOT, at(STARTED.wall + 5))
    of_root_and_admin = {"log", "cheap_passphrase"}
    assert {name: metrics[name] for name in status.keys() - of_root_and_admin}.items() <= status.items()
    assert "alice" not in str(metrics)
    numbers = [value for value in plain(metrics) if not isinstance(value, str | None)]
    assert all(type(number) in (int, bool) and number >= 0 for number in numbers)


def test_the_counts_are_for_monitors_alone() -> None:
    monitor, of_one = Peer(3, 1001, frozenset({1001})), Peer(4, 1002, frozenset({1002}))
    others = [Rule(role, (4711,)) for role in ("verify", "generate", "admin", "relay")]
    rules = [*others, Rule("monitor", (1001,)), Rule("monitor", (1002,), ("default",))]
    agent = make_agent(make_keyring({"default": b"12345678901234567890"}), rules, own_uid=500)
    for peer in (monitor, ROOT, Peer(5, 500, frozenset())):
        assert ask(agent, "metrics", peer, STARTED)["accounts"] == 1
    for peer in (STRANGER, of_one):
        with pytest.raises(Forbidden, match="monitor"):
            ask(agent, "metrics", peer, STARTED)
    for method in ("generate", "accounts", "lock", "remove"):
        with pytest.raises(Forbidden):
            ask(agent, method, monitor, STARTED)


def counts(agent: Agent) -> dict[str, dict[str, int]]:
    answered: dict[str, dict[str, int]] = agent.metrics.read()["requests"]
    return answered


@in_loop
async def test_the_server_counts_what_it_answers_however_it_ends() -> None:
    seed, keeper = Seed(), Keeper()
    working = agent(default=seed)
    async with bench(working, keeper) as at_work:
        peer = await at_work.connect()
        code = seed.code()
        for candidate in (code, code, "0000000"):
            await call(peer, "verify", code=candidate)
        keeper.failure = UnusableState("the disk is full")
        await call(peer, "remove")
        keeper.failure = None
        await call(peer, "remove", account="nobody")
        await call(peer, "verify")
        await call(peer, "no such method")
        await call(peer, "status")
    assert counts(working) == {
        "verify": {"ok": 1, "invalid": 2, "throttled": 0, "bad_request": 1},
        "remove": {"unavailable": 1, "no_such_account": 1},
        "unknown": {"unknown_method": 1},
        "status": {"ok": 1},
    }
    answered = working.metrics.read()
    assert {name: sum(of) for name, of in answered["latencies"].items()} == {
        name: sum(of.values()) for name, of in answered["requests"].items()
    }


@in_loop
async def test_a_code_whose_spend_was_not_kept_counts_as_it_was_answered() -> None:
    seed, keeper = Seed(), Keeper()
    working = agent(default=seed)
    async with bench(working, keeper) as at_work:
        peer = await at_work.connect()
        keeper.refused = {"default"}
        await call(peer, "verify", code=seed.code())
        keeper.failure = UnusableState("the disk is full")
        await call(peer, "verify", code=seed.code(int(time.time()) // 30 + 1))
    assert counts(working)["verify"] == {"ok": 0, "invalid": 1, "throttled": 0, "unavailable": 1}


@in_loop
async def test_connections_are_those_that_are_open() -> None:
    working = agent()
    async with bench(working, Keeper()) as at_work:
        peers = [await at_work.connect() for _ in range(3)]
        _, answered = await call(peers[0], "metrics")
        assert answered["connections"] == 3
    assert working.metrics.read()["connections"] == 0


@in_loop
async def test_a_look_at_the_counts_is_not_logged_and_a_refused_one_is() -> None:
    working = agent()
    async with bench(working, Keeper()) as at_work:
        peer = await at_work.connect()
        with logged() as lines:
            await call(peer, "metrics")
            await call(peer, "status")
            await call(peer, "metrics", account="default")
    assert [line.split()[:3] for line in lines] == [["refused", f"uid={os.geteuid()}", "method=metrics"]]


@in_loop
async def test_a_look_at_the_daemon_is_no_use_of_it() -> None:
    working = agent(default=Seed())
    async with bench(working, Keeper()) as at_work:
        peer = await at_work.connect()
        later = at(0)
        before = at_work.server.idle_for(later)
        await call(peer, "metrics")
        await call(peer, "status")
        assert at_work.server.idle_for(later) == before
        await call(peer, "generate")
        assert at_work.server.idle_for(later) < before

"""Administrators see who has to wait, and everybody who waits sees until when."""

from datetime import UTC, datetime

import pytest
from support.agents import ROOT, at, call
from support.callers import (
    CODE,
    NOW,
    OTHER_VERIFIER,
    RELAY,
    VERIFIER,
    ask,
    fill,
    fresh_agent,
    peer,
    tire,
)
from support.throttles import DAY

from pki2fad.errors import BadRequest, NoSuchAccount, Throttled
from pki2fad.methods.agent import Agent
from pki2fad.rules.changes import Answer, Work
from pki2fad.rules.clock import Reading
from pki2fad.rules.pieces import PIECE
from pki2fad.rules.refusals import LIMIT
from pki2fad.wire.messages import Encoded, Request


@pytest.fixture
def agent() -> Agent:
    return fresh_agent()


def listed(agent: Agent, reading: Reading = NOW, **args: object) -> dict[str, list[dict[str, object]]]:
    result = call(agent, "throttled", ROOT, reading, **args)
    assert set(result) == {"accounts", "refusals", "caller"}
    return result  # type: ignore[no-any-return]


def test_nobody_is_listed_before_anybody_failed(agent: Agent) -> None:
    assert listed(agent) == {"accounts": [], "refusals": [], "caller": None}


def test_an_account_that_refuses_callers_it_does_not_know_is_listed_until_it_does_not(agent: Agent) -> None:
    fill(agent)
    (row,) = listed(agent)["accounts"]
    assert row == {"account": "default", "until": int(NOW.wall + DAY / 9), "known": []}
    assert listed(agent, at(NOW.wall + DAY / 9))["accounts"] == []


def test_known_callers_are_listed_with_what_they_wait_for(agent: Agent) -> None:
    assert ask(agent, "default", CODE).result == {"valid": True}
    tire(agent)
    (row,) = listed(agent, at(NOW.wall + 1))["accounts"]
    assert row["until"] is None
    who = {"uid": VERIFIER, "origin": ""}  # since it was refused
    assert row["known"] == [{**who, "last_success": int(NOW.wall), "until": int(NOW.wall + 60)}]


def test_an_account_that_is_named_is_listed_in_any_case(agent: Agent) -> None:
    assert ask(agent, "default", CODE).result == {"valid": True}
    (row,) = listed(agent, account="default")["accounts"]
    assert row == {
        "account": "default",
        "until": None,
        "known": [{"uid": None, "origin": None, "last_success": int(NOW.wall), "until": None}],
    }
    with pytest.raises(NoSuchAccount):
        listed(agent, account="missing")


def test_refusals_are_listed_with_who_what_and_until_when_the_latest_first(agent: Agent) -> None:
    tire(agent)
    for name in ("default", "missing", "default"):
        for _ in range(5):
            ask(agent, name, "000000", uid=OTHER_VERIFIER)
    call_as_relay = {"code": "000000", "origin": "192.0.2.1"}
    for _ in range(4):
        call(agent, "verify", peer(RELAY), NOW, **call_as_relay)
    with pytest.raises(Throttled):
        call(agent, "verify", peer(RELAY), at(NOW.wall + 10), **call_as_relay)
    told = [
        (row["method"], row["uid"], row["origin"], row["account"], row["times"])
        for row in listed(agent)["refusals"]
    ]
    assert told[:3] == [
        ("verify", RELAY, "192.0.2.1", "default", 1),
        ("verify", OTHER_VERIFIER, "", "default", 6),
        ("verify", OTHER_VERIFIER, "", "missing", 1),
    ]
    (first, *_) = listed(agent, account="default")["refusals"]
    assert (first["time"], first["until"]) == (int(NOW.wall + 10), int(NOW.wall + 60))
    assert all(row["account"] == "default" for row in listed(agent, account="default")["refusals"])


def test_the_last_1024_callers_that_were_refused_are_remembered(agent: Agent) -> None:
    fill(agent)
    for number in range(LIMIT + 3):
        with pytest.raises(Throttled):
            call(agent, "verify", peer(RELAY), NOW, code="000000", origin=f"other-{number}")
    origins = [row["origin"] for row in listed(agent)["refusals"]]
    assert LIMIT == 1024
    assert origins == [f"other-{number}" for number in reversed(range(3, LIMIT + 3))]


def test_what_is_told_of_one_account_goes_in_pieces_and_may_count_as_a_long_answer(agent: Agent) -> None:
    fill(agent)
    for number in range(LIMIT):
        with pytest.raises(Throttled):
            call(agent, "verify", peer(RELAY), NOW, code="000000", origin=f"other-{number}".ljust(255, "."))
    work = agent.handle(Request(1, "throttled", {"account": "default"}), ROOT, NOW).work
    assert work is not None
    answers: list[Answer] = []

    def result() -> Work:
        answers.append((yield from work))
        return answers[0]

    pieces = sum(1 for _ in result())
    assert pieces >= 2 * LIMIT / PIECE  # they are looked up, and encoded
    assert isinstance(answers[0].result, Encoded)


def test_one_caller_can_be_asked_about(agent: Agent) -> None:
    for _ in range(4):
        call(agent, "verify", peer(RELAY), NOW, code="000000", origin="192.0.2.1")
    caller = listed(agent, account="default", uid=RELAY, origin="192.0.2.1")["caller"]
    assert caller == {"uid": RELAY, "origin": "192.0.2.1", "known": False, "until": int(NOW.wall + 60)}
    caller = listed(agent, account="default", uid=RELAY)["caller"]
    assert caller == {"uid": RELAY, "origin": "", "known": False, "until": None}
    assert ask(agent, "default", CODE).result == {"valid": True}
    caller = listed(agent, account="default", uid=VERIFIER)["caller"]
    assert caller == {"uid": VERIFIER, "origin": "", "known": True, "until": None}


@pytest.mark.parametrize(
    "args",
    [
        {"uid": 1},
        {"account": "default", "origin": "192.0.2.1"},
        {"account": "default", "uid": -1},
        {"account": "default", "uid": 2**32},
        {"account": "default", "uid": True},
    ],
    ids=str,
)
def test_a_question_about_a_caller_names_uid_and_account(agent: Agent, args: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        listed(agent, **args)


def test_no_more_than_1024_accounts_are_listed(agent: Agent) -> None:
    account = agent._keyring.accounts["default"]
    fill(agent)
    for number in range(1100):
        other = account.with_tally(agent._keyring.accounts["default"].tally)
        other.name = f"n{number:04}"
        agent._keyring.accounts[other.name] = other
    rows = listed(agent)["accounts"]
    assert [row["account"] for row in rows] == ["default", *(f"n{number:04}" for number in range(1023))]


# Until when


def test_whoever_is_throttled_is_told_until_when(agent: Agent) -> None:
    tire(agent)
    told = str(ask(agent, "default", "000000").refusal).rpartition(" ")[2]
    assert datetime.fromisoformat(told) == datetime.fromtimestamp(NOW.wall + 60, UTC)

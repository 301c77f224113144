"""With `explain` administrators get why a code is not valid, and nothing about codes to come."""

from pathlib import Path

import pytest
from support.agents import ROOT, call
from support.authenticators import HOTP, is_good, load, token_code
from support.callers import (
    CODE,
    LOCAL_ADMIN,
    NOW,
    STEP,
    VERIFIER,
    WITH_LOCAL_ADMIN,
    ask,
    at_step,
    codes_of,
    fresh_agent,
    peer,
)
from support.host import Host

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import Forbidden, Throttled
from pki2fad.methods.agent import Agent
from pki2fad.rules.clock import Reading


@pytest.fixture
def agent() -> Agent:
    return fresh_agent(rules=WITH_LOCAL_ADMIN)


def explain(agent: Agent, code: str, reading: Reading = NOW) -> dict[str, object]:
    return dict(call(agent, "verify", ROOT, reading, code=code, explain=True))


def test_who_administers_all_accounts_may_ask_why_a_code_is_not_valid() -> None:
    agent = fresh_agent(enabled=False)
    assert explain(agent, CODE) == {"valid": True}
    assert explain(agent, CODE) == {"valid": False, "reason": "used"}
    assert explain(agent, codes_of(-1)[0]) == {"valid": False, "reason": "used"}
    assert explain(agent, "00000000") == {"valid": False}


@pytest.mark.parametrize("distance", [*range(-13, -1), *range(2, 13)])
def test_of_steps_before_the_window_it_is_told_that_they_are_old_and_of_those_behind_it_nothing(
    distance: int,
) -> None:
    answer = explain(fresh_agent(enabled=False), codes_of(distance)[0])
    expected = {"valid": False, "reason": "old"} if -11 <= distance < 0 else {"valid": False}
    assert answer == expected


@pytest.mark.parametrize("offset", [-8, 8])
def test_nothing_is_told_of_a_step_to_come_whatever_the_offset(offset: int) -> None:
    agent = fresh_agent(enabled=False)
    first, second = codes_of(offset - 1, offset)
    call(agent, "resync", ROOT, NOW, first=first, second=second)
    told = {}
    for distance in range(-25, 25):
        if distance != offset + 1:  # which is good
            told[distance] = explain(agent, codes_of(distance)[0]).get("reason")
    said = {distance: reason for distance, reason in told.items() if reason is not None}
    gone_by = range(offset - 11, min(offset, 0) + 1)
    assert said == {distance: "used" if distance >= offset - 1 else "old" for distance in gone_by}


def test_a_used_code_of_the_next_step_is_not_explained() -> None:
    agent = fresh_agent(enabled=False)
    (code,) = codes_of(1)
    assert explain(agent, code) == {"valid": True}
    assert explain(agent, code) == {"valid": False}
    assert explain(agent, code, at_step(STEP + 1)) == {"valid": False, "reason": "used"}


def test_codes_of_counters_that_are_gone_by_are_used_and_of_those_to_come_nothing_is_told(
    tmp_path: Path, master: MasterKey
) -> None:
    with Host(tmp_path / "state.db", master) as host:
        load(host, "token", of=HOTP, counter=20)
        assert is_good(host, token_code(22))  # 20 and 21 are skipped
        told = {
            counter: host.call("verify", code=token_code(counter), explain=True).get("reason")
            for counter in (*range(10, 23), *range(27, 40))
        }
    assert {counter for counter, reason in told.items() if reason is not None} == {*range(13, 23)}
    assert {*told.values()} == {None, "used"}


@pytest.mark.parametrize("uid", [VERIFIER, LOCAL_ADMIN])
def test_nobody_else_is_told_why(agent: Agent, uid: int) -> None:
    with pytest.raises(Forbidden, match="explain"):
        call(agent, "verify", peer(uid), NOW, code=CODE, explain=True)
    assert ask(agent, "default", CODE).result == {"valid": True}  # it is not spent by that


def test_who_asks_why_is_throttled_like_others(agent: Agent) -> None:
    for _ in range(4):
        explain(agent, "000000")
    with pytest.raises(Throttled):
        explain(agent, "000000")

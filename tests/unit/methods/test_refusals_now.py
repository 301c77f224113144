"""`throttled` says of each caller that was refused whether it still has to wait."""

from contextlib import suppress
from datetime import datetime

import pytest
from support.agents import OTHER_SEED, SEED, at, call, reference_code, sealed
from support.callers import (
    CODE,
    NOW,
    OTHER_VERIFIER,
    RELAY,
    STEP,
    VERIFIER,
    ask,
    fresh_agent,
    is_throttled,
    peer,
    tire,
)
from support.throttles import DAY

from pki2fad.errors import BadRequest, Throttled
from pki2fad.methods.agent import Agent
from pki2fad.rules.clock import Reading

ROOT = peer(0)


@pytest.fixture
def agent() -> Agent:
    return fresh_agent()


def waits(agent: Agent, reading: Reading = NOW, **args: object) -> list[int | None]:
    """Until when those that were refused have to wait, the latest first."""
    rows = call(agent, "throttled", ROOT, reading, **args)["refusals"]
    return [row["waits_until"] for row in rows]


def test_a_caller_that_has_to_wait_is_told_apart_from_one_whose_time_is_over(agent: Agent) -> None:
    tire(agent)
    (row,) = call(agent, "throttled", ROOT, NOW)["refusals"]
    assert row["until"] == row["waits_until"] == int(NOW.wall + 60)
    assert waits(agent, account="default") == [int(NOW.wall + 60)]
    for over in (60, DAY):
        (row,) = call(agent, "throttled", ROOT, at(NOW.wall + over))["refusals"]
        assert (row["until"], row["waits_until"]) == (int(NOW.wall + 60), None)


def test_after_unthrottle_nobody_waits_and_a_caller_that_goes_on_guessing_waits_again(agent: Agent) -> None:
    tire(agent)
    call(agent, "unthrottle", ROOT, NOW)
    assert waits(agent) == [None]
    tire(agent)
    assert waits(agent) == [int(NOW.wall + 60)]


def test_who_failed_once_more_meanwhile_waits_longer_than_was_said(agent: Agent) -> None:
    tire(agent)
    later = at(NOW.wall + 60)
    assert not is_throttled(ask(agent, "default", "000000", reading=later))
    assert waits(agent, later) == [int(later.wall + 120)]


def test_a_caller_waits_for_the_account_too_unless_it_is_known(agent: Agent) -> None:
    assert ask(agent, "default", CODE).result == {"valid": True}
    for uid in (VERIFIER, OTHER_VERIFIER):
        tire(agent, uid=uid)
    for host in range(60):
        with suppress(Throttled):
            call(agent, "verify", peer(RELAY), NOW, code="000000", origin=f"host-{host}")
    later = at(NOW.wall + 120)  # their own waits are over
    rows = call(agent, "throttled", ROOT, later)["refusals"]
    until = {row["uid"]: row["waits_until"] for row in rows}
    assert until[VERIFIER] is None
    refused = ask(agent, "default", "000000", uid=OTHER_VERIFIER, reading=later).refusal
    assert isinstance(refused, Throttled)
    told = datetime.fromisoformat(str(refused).rpartition(" ")[2])
    assert until[OTHER_VERIFIER] == told.timestamp()
    assert until[RELAY] == until[OTHER_VERIFIER]


def test_a_name_that_is_no_account_is_looked_up_as_verify_does(agent: Agent) -> None:
    tire(agent, "missing")
    assert waits(agent) == [int(NOW.wall + 60)]
    assert waits(agent, at(NOW.wall + 60)) == [None]


def test_while_there_is_a_successor_the_wait_is_that_of_two_seeds(agent: Agent) -> None:
    call(agent, "load", ROOT, NOW, sealed=sealed(bytes(20)), successor=True)
    for waited in (0, 0, 0, 0, 60, 180):
        ask(agent, "default", "000000", reading=at(NOW.wall + waited))
    later = at(NOW.wall + 180)
    refused = ask(agent, "default", "000000", reading=later).refusal
    assert isinstance(refused, Throttled)
    assert waits(agent, later) == [int(later.wall) + (refused.retry_after or 0)] == [int(NOW.wall + 2 * DAY)]


def test_a_resync_that_was_refused_has_a_wait_of_its_own(agent: Agent) -> None:
    wrong = {"first": "000000", "second": "000000"}
    for _ in range(4):
        with pytest.raises(BadRequest):
            call(agent, "resync", ROOT, NOW, **wrong)
    with pytest.raises(Throttled):
        call(agent, "resync", ROOT, NOW, **wrong)
    assert waits(agent) == [int(NOW.wall + 60)]
    assert call(agent, "throttled", ROOT, NOW, account="default", uid=0)["caller"]["until"] is None
    call(agent, "unthrottle", ROOT, NOW)
    assert waits(agent) == [None]


def test_a_seed_that_replaces_another_frees_nobody(agent: Agent) -> None:
    tire(agent)
    call(agent, "load", ROOT, NOW, sealed=sealed(OTHER_SEED), replace=True)
    assert waits(agent) == [int(NOW.wall + 60)]
    assert is_throttled(ask(agent, "default", reference_code(OTHER_SEED, STEP)))
    assert is_throttled(ask(agent, "default", reference_code(SEED, STEP)))

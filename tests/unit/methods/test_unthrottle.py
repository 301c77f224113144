"""Administrators let people in again who gave too many wrong codes, and so does a successful resync."""

import pytest
from support.agents import OTHER_SEED, ROOT, at, call, sealed
from support.callers import (
    CODE,
    LOCAL_ADMIN,
    NOW,
    OTHER_VERIFIER,
    STEP,
    VERIFIER,
    WITH_LOCAL_ADMIN,
    ask,
    at_step,
    codes_of,
    fill,
    fresh_agent,
    is_throttled,
    peer,
    tire,
)
from support.throttles import DAY

from pki2fad.errors import BadRequest, Forbidden, NoSuchAccount, Throttled
from pki2fad.methods.agent import Agent
from pki2fad.rules.changes import Edit, Failure
from pki2fad.rules.clock import Reading
from pki2fad.wire.messages import Request


@pytest.fixture
def agent() -> Agent:
    return fresh_agent(rules=WITH_LOCAL_ADMIN)


def unthrottle(agent: Agent, reading: Reading = NOW, **args: object) -> int:
    result = call(agent, "unthrottle", ROOT, reading, **args)
    assert result["account"] == args.get("account", "default")
    return int(result["left"])


def resync(agent: Agent, *codes: str, caller: int = 0, reading: Reading = NOW) -> object:
    return call(agent, "resync", peer(caller), reading, first=codes[0], second=codes[1])


# unthrottle


def test_who_is_throttled_gets_in_again_when_the_account_is_unthrottled(agent: Agent) -> None:
    tire(agent)
    assert is_throttled(ask(agent, "default", CODE))
    unthrottle(agent)
    assert ask(agent, "default", CODE).result == {"valid": True}


def test_whom_the_account_refuses_gets_in_again_too(agent: Agent) -> None:
    fill(agent)
    assert is_throttled(ask(agent, "default", CODE))
    unthrottle(agent)
    assert ask(agent, "default", CODE).result == {"valid": True}


def test_other_accounts_and_who_waits_for_them_are_left_alone(agent: Agent) -> None:
    for account in ("default", "other"):
        tire(agent, account)
    unthrottle(agent)
    assert is_throttled(ask(agent, "other", "000000"))
    assert not is_throttled(ask(agent, "default", "000000"))


def test_nothing_in_the_shared_table_is_cleared(agent: Agent) -> None:
    fill(agent)
    before = dict(agent._throttle._slots)
    unthrottle(agent)
    assert agent._throttle._slots == before


def test_known_callers_stay_known_and_begin_anew(agent: Agent) -> None:
    assert ask(agent, "default", CODE).result == {"valid": True}
    tire(agent)
    unthrottle(agent)
    assert not is_throttled(ask(agent, "default", "000000"))
    fill(agent)
    assert is_throttled(ask(agent, "default", "000000", uid=OTHER_VERIFIER))
    assert not is_throttled(ask(agent, "default", "000000"))


def test_it_is_an_edit_and_for_the_audit(agent: Agent) -> None:
    answer = agent.handle(Request(1, "unthrottle", {}), ROOT, NOW)
    assert isinstance(answer.change, Edit)
    assert (answer.audit, answer.details) == ("unthrottled", {"forced": False})


def test_an_account_with_a_successor_keeps_it(agent: Agent) -> None:
    call(agent, "load", ROOT, NOW, sealed=sealed(bytes(20)), successor=True)
    unthrottle(agent)
    (row, _) = call(agent, "accounts", ROOT, NOW)
    assert row["successor"] is not None


def test_a_name_that_is_no_account_cannot_be_unthrottled(agent: Agent) -> None:
    with pytest.raises(NoSuchAccount):
        unthrottle(agent, account="missing")


@pytest.mark.parametrize("method", ["throttled", "unthrottle"])
@pytest.mark.parametrize("uid", [VERIFIER, LOCAL_ADMIN], ids=["no admin", "admin of one account"])
def test_it_takes_the_role_admin_for_all_accounts(agent: Agent, method: str, uid: int) -> None:
    with pytest.raises(Forbidden, match="for all accounts"):
        call(agent, method, peer(uid), NOW, account="default")


def test_the_fourth_within_thirty_days_needs_force(agent: Agent) -> None:
    days = [0.0, 10.0, 20.0]
    assert [unthrottle(agent, at(NOW.wall + day * DAY)) for day in days] == [2, 1, 0]
    with pytest.raises(BadRequest, match="force"):
        unthrottle(agent, at(NOW.wall + 30 * DAY))
    assert unthrottle(agent, at(NOW.wall + 30.1 * DAY)) == 0  # the first does not count any more
    with pytest.raises(BadRequest, match="force"):
        unthrottle(agent, at(NOW.wall + 39 * DAY))
    assert unthrottle(agent, at(NOW.wall + 39 * DAY), force=True) == 0
    assert unthrottle(agent, at(NOW.wall + 39 * DAY), account="other") == 2


def test_the_days_are_counted_by_the_clock_that_nobody_sets(agent: Agent) -> None:
    for _ in range(3):
        unthrottle(agent)
    with pytest.raises(BadRequest, match="force"):
        unthrottle(agent, Reading(NOW.wall + 365 * DAY, NOW.boot))


# resync


def test_a_resync_lets_in_again_who_was_locked_out_by_a_clock_that_is_off(agent: Agent) -> None:
    tire(agent)
    fill(agent)
    assert resync(agent, *codes_of(-6, -5)) == {"account": "default", "offset": -5}
    later = at_step(STEP + 1)
    assert ask(agent, "default", codes_of(-4)[0], reading=later).result == {"valid": True}


def test_the_force_rule_is_not_for_resync(agent: Agent) -> None:
    for _ in range(3):
        unthrottle(agent)
    tire(agent)
    resync(agent, *codes_of(2, 3))
    resync(agent, *codes_of(4, 5))
    assert not is_throttled(ask(agent, "default", "000000"))
    with pytest.raises(BadRequest, match="force"):
        unthrottle(agent)


def test_a_wrong_resync_costs_what_a_wrong_code_costs_and_is_kept(agent: Agent) -> None:
    for _ in range(4):
        answer = agent.handle(
            Request(1, "resync", {"account": "default", "first": "000000", "second": "000000"}), ROOT, NOW
        )
        assert isinstance(answer.refusal, BadRequest)
        assert isinstance(answer.change, Failure)
        assert answer.change.tally is None
        assert answer.audit == "refused"
    with pytest.raises(Throttled) as caught:
        resync(agent, *codes_of(2, 3))  # the right ones too
    assert caught.value.retry_after == 60


def test_a_wrong_resync_counts_for_its_peer_and_account_alone(agent: Agent) -> None:
    for _ in range(4):
        with pytest.raises(BadRequest):
            resync(agent, "000000", "000000")
    assert not is_throttled(ask(agent, "default", "000000", uid=0))
    with pytest.raises(BadRequest):
        resync(agent, "000000", "000000", caller=LOCAL_ADMIN)
    with pytest.raises(BadRequest):
        call(agent, "resync", ROOT, NOW, account="other", first="000000", second="000000")
    with pytest.raises(Throttled):
        resync(agent, "000000", "000000")


def test_a_resync_is_not_refused_for_what_was_counted_for_codes(agent: Agent) -> None:
    tire(agent, uid=LOCAL_ADMIN)
    fill(agent)
    assert resync(agent, *codes_of(2, 3), caller=LOCAL_ADMIN)


def test_while_there_is_a_successor_a_wrong_resync_counts_twice_too(agent: Agent) -> None:
    call(agent, "load", ROOT, NOW, sealed=sealed(OTHER_SEED), successor=True)
    for waited in (0, 0, 0, 0, 60, 180):
        with pytest.raises(BadRequest):
            resync(agent, "000000", "000000", reading=at(NOW.wall + waited))
    for day, refusal in ((1, Throttled), (2, BadRequest)):
        with pytest.raises(refusal):
            resync(agent, "000000", "000000", reading=at(NOW.wall + day * DAY))


def test_an_unthrottled_account_lets_its_administrators_resync_again(agent: Agent) -> None:
    for _ in range(4):
        with pytest.raises(BadRequest):
            resync(agent, "000000", "000000")
    unthrottle(agent)
    assert resync(agent, *codes_of(2, 3))

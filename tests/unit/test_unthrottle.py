"""Administrators let people in again who gave too many wrong codes, and see who has to wait."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from support.agents import OTHER_SEED, SEED, at, call, reference_code, sealed
from support.callers import (
    CODE,
    NOW,
    OTHER_VERIFIER,
    RELAY,
    RULES,
    STEP,
    VERIFIER,
    ask,
    at_step,
    fresh_agent,
    is_throttled,
    peer,
    tire,
)
from support.throttles import DAY

from pki2fad.access import Rule
from pki2fad.agent import Agent
from pki2fad.changes import Edit, Failure
from pki2fad.clock import Reading
from pki2fad.errors import BadRequest, Forbidden, NoSuchAccount, Throttled
from pki2fad.refusals import LIMIT
from pki2fad.wire import Request

ROOT, LOCAL_ADMIN = peer(0), peer(5010)


@pytest.fixture
def agent() -> Agent:
    uids = (LOCAL_ADMIN.uid,)
    return fresh_agent(rules=(*RULES, Rule("verify", uids), Rule("admin", uids, ("default",))))


def fill(agent: Agent, reading: Reading = NOW) -> None:
    """Let strangers fail until the account refuses everybody it does not know."""
    for host in range(60):
        with suppress(Throttled):
            call(agent, "verify", peer(RELAY), reading, code="000000", origin=f"host-{host}")


def unthrottle(agent: Agent, reading: Reading = NOW, **args: object) -> int:
    result = call(agent, "unthrottle", ROOT, reading, **args)
    assert result["account"] == args.get("account", "default")
    return int(result["left"])


def resync(agent: Agent, *codes: str, caller: int = 0) -> object:
    return call(agent, "resync", peer(caller), NOW, first=codes[0], second=codes[1])


def codes_of(*steps: int) -> list[str]:
    return [reference_code(SEED, STEP + step) for step in steps]


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
@pytest.mark.parametrize("caller", [peer(VERIFIER), LOCAL_ADMIN], ids=["no admin", "admin of one account"])
def test_it_takes_the_role_admin_for_all_accounts(agent: Agent, method: str, caller: object) -> None:
    with pytest.raises(Forbidden, match="for all accounts"):
        call(agent, method, caller, NOW, account="default")  # type: ignore[arg-type]


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
        resync(agent, "000000", "000000", caller=LOCAL_ADMIN.uid)
    with pytest.raises(BadRequest):
        call(agent, "resync", ROOT, NOW, account="other", first="000000", second="000000")
    with pytest.raises(Throttled):
        resync(agent, "000000", "000000")


def test_a_resync_is_not_refused_for_what_was_counted_for_codes(agent: Agent) -> None:
    tire(agent, uid=LOCAL_ADMIN.uid)
    fill(agent)
    assert resync(agent, *codes_of(2, 3), caller=LOCAL_ADMIN.uid)


def test_while_there_is_a_successor_a_wrong_resync_counts_twice_too(agent: Agent) -> None:
    call(agent, "load", ROOT, NOW, sealed=sealed(OTHER_SEED), successor=True)
    for _ in range(3):
        with pytest.raises(BadRequest):
            resync(agent, "000000", "000000")
    with pytest.raises(Throttled):
        resync(agent, "000000", "000000")


def test_an_unthrottled_account_lets_its_administrators_resync_again(agent: Agent) -> None:
    for _ in range(4):
        with pytest.raises(BadRequest):
            resync(agent, "000000", "000000")
    unthrottle(agent)
    assert resync(agent, *codes_of(2, 3))


# throttled


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
        other = account.moved(0, -1)
        other.name = f"n{number:04}"
        other.tally = agent._keyring.accounts["default"].tally
        agent._keyring.accounts[other.name] = other
    rows = listed(agent)["accounts"]
    assert [row["account"] for row in rows] == ["default", *(f"n{number:04}" for number in range(1023))]


# Until when


def test_whoever_is_throttled_is_told_until_when(agent: Agent) -> None:
    tire(agent)
    told = str(ask(agent, "default", "000000").refusal).rpartition(" ")[2]
    assert datetime.fromisoformat(told) == datetime.fromtimestamp(NOW.wall + 60, UTC)


# Why


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
    resync(agent, *codes_of(offset - 1, offset))
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


@pytest.mark.parametrize("caller", [peer(VERIFIER), LOCAL_ADMIN])
def test_nobody_else_is_told_why(agent: Agent, caller: object) -> None:
    with pytest.raises(Forbidden, match="explain"):
        call(agent, "verify", caller, NOW, code=CODE, explain=True)  # type: ignore[arg-type]
    assert ask(agent, "default", CODE).result == {"valid": True}  # it is not spent by that


def test_who_asks_why_is_throttled_like_others(agent: Agent) -> None:
    for _ in range(4):
        explain(agent, "000000")
    with pytest.raises(Throttled):
        explain(agent, "000000")

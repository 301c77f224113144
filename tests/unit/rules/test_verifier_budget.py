"""Whose budget pays for a wrong code, and what is counted at all."""

import pwd

import pytest
from support.agents import (
    SEED,
    STARTED,
    add_authenticators,
    at,
    call,
    make_agent,
    make_keyring,
    reference_code,
    sealed,
    shared_step,
)
from support.callers import (
    ADMIN,
    CODE,
    GENERATOR,
    GROUP,
    NOW,
    PERIOD,
    RELAY,
    RULES,
    STEP,
    VERIFIER,
    ask,
    at_step,
    fresh_agent,
    is_throttled,
    peer,
    seen,
    tire,
)
from support.daemon import wait_until
from support.throttles import DAY

from pki2fad.errors import BadRequest, Forbidden, Throttled, Unavailable
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Rule
from pki2fad.rules.changes import REPLAYED, WRONG, Spend
from pki2fad.rules.otp import Parameters
from pki2fad.rules.throttle import Throttle

# Whose budget it is


def test_origins_and_uids_and_accounts_have_budgets_of_their_own(agent: Agent) -> None:
    tire(agent, uid=RELAY, origin="192.0.2.1")
    for more in ({"origin": "192.0.2.2"}, {"origin": ""}, {}, {"origin": "192.0.2.1", "account": "other"}):
        assert call(agent, "verify", peer(RELAY), NOW, code="000000", **more) == {"valid": False}
    assert call(agent, "verify", peer(VERIFIER), NOW, code=CODE) == {"valid": True}


@pytest.mark.parametrize("origin", ["", "192.0.2.1", "x" * 255])
def test_an_origin_needs_the_role_relay(agent: Agent, origin: str) -> None:
    for uid in (VERIFIER, GENERATOR, ADMIN):
        with pytest.raises(Forbidden, match="relay"):
            call(agent, "verify", peer(uid), NOW, code="000000", origin=origin)
    assert call(agent, "verify", peer(RELAY), NOW, code="000000", origin=origin) == {"valid": False}


def test_the_role_relay_for_one_account_is_for_no_other() -> None:
    agent = fresh_agent(rules=(Rule("verify", (RELAY,)), Rule("relay", (RELAY,), ("other",))))
    assert call(agent, "verify", peer(RELAY), NOW, account="other", code="000000", origin="a") == {
        "valid": False
    }
    with pytest.raises(Forbidden):
        call(agent, "verify", peer(RELAY), NOW, code="000000", origin="a")


@pytest.mark.parametrize("origin", ["x" * 256, "\0" * 256, 1, b"x" * 256, None])
def test_an_origin_is_a_string_of_at_most_255_characters(agent: Agent, origin: object) -> None:
    for uid in (RELAY, VERIFIER):
        with pytest.raises(BadRequest):
            call(agent, "verify", peer(uid), NOW, code="000000", origin=origin)


def test_an_origin_may_be_any_string(agent: Agent) -> None:
    for origin in ("\0", "\udcff", "é", "１", "a b\n"):  # noqa: RUF001 - bytes that are no UTF-8 among them
        tire(agent, uid=RELAY, origin=origin)


def test_uids_that_the_system_does_not_know_share_a_budget() -> None:
    known = next(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid not in (0, 65534))
    users = {entry.pw_uid for entry in pwd.getpwall()}
    unknown = [uid for uid in range(400_000, 400_100) if uid not in users]
    agent = fresh_agent()
    agent.access._everywhere["verify"].gids.add(GROUP)
    for uid in unknown[:4]:
        assert call(agent, "verify", peer(uid, GROUP), NOW, code="000000") == {"valid": False}
    with pytest.raises(Throttled):
        call(agent, "verify", peer(unknown[-1], GROUP), NOW, code="000000")
    wait_until(lambda: agent.access.payer(known) == known, "the user is not looked up")
    for uid in (known, VERIFIER):
        assert call(agent, "verify", peer(uid, GROUP), NOW, code="000000") == {"valid": False}


# What is counted


def test_a_code_that_was_used_is_no_guess(agent: Agent) -> None:
    assert call(agent, "verify", peer(VERIFIER), NOW, code=CODE) == {"valid": True}
    earlier = reference_code(SEED, STEP - 1)
    for code in [CODE, earlier] * 10:
        answer = ask(agent, "default", code)
        assert (answer.result, answer.reason, answer.change) == ({"valid": False}, REPLAYED, None)
    tire(agent)


def test_a_success_begins_anew_and_tells_the_store_so(agent: Agent) -> None:
    spends = []
    for step in (STEP, STEP + 1, STEP + 2):
        if step == STEP + 2:
            assert ask(agent, "default", "000000", reading=at_step(step)).reason == WRONG
        answer = ask(agent, "default", reference_code(SEED, step), reading=at_step(step))
        assert answer.result == {"valid": True}
        assert isinstance(answer.change, Spend)
        spends.append(answer.change.tally is not None)
    assert spends == [True, False, True]  # nothing had changed for the second
    tire(agent)


def test_what_cannot_be_a_code_is_not_counted(agent: Agent) -> None:
    assert call(agent, "verify", peer(VERIFIER), NOW, code=CODE) == {"valid": True}
    full_width = "".join(chr(ord("０") + int(digit)) for digit in CODE)  # noqa: RUF001
    for code in [f" {CODE}", f"{CODE} ", f"{CODE}\n", f"\0{CODE}", f"{CODE[:3]} {CODE[3:]}", full_width] * 3:
        with pytest.raises(BadRequest):
            call(agent, "verify", peer(VERIFIER), NOW, code=code)
    tire(agent)


def test_below_the_floor_nothing_is_counted() -> None:
    throttle, keyring = Throttle(b"secret", (), STARTED), make_keyring({"default": SEED})
    keyring.raise_floors({PERIOD: (STEP + 1) * PERIOD})
    agent = make_agent(keyring, RULES, throttle=throttle)
    for _ in range(10):
        with pytest.raises(Unavailable):
            call(agent, "verify", peer(VERIFIER), NOW, code="000000")
    keyring.floors.clear()
    tire(agent)


def test_a_wrong_guess_does_not_block_a_right_code_later(agent: Agent) -> None:
    code = reference_code(SEED, STEP + 2)
    assert ask(agent, "default", code).result == {"valid": False}
    assert ask(agent, "default", code, reading=at_step(STEP + 1)).result == {"valid": True}


def test_both_steps_of_a_shared_code_are_spent_and_bringing_it_again_is_a_replay(agent: Agent) -> None:
    step = shared_step()
    code = reference_code(SEED, step)
    assert ask(agent, "default", code, reading=at_step(step - 1)).result == {"valid": True}
    for later in range(step - 1, step + 3):
        answer = ask(agent, "default", code, reading=at_step(later))
        assert (answer.result, answer.reason) == ({"valid": False}, REPLAYED)


def test_another_seed_gives_who_guesses_no_new_budget(agent: Agent) -> None:
    for host in range(54):
        call(agent, "verify", peer(RELAY), NOW, code="000000", origin=f"host-{host}")
    assert is_throttled(ask(agent, "default", "000000"))
    call(agent, "load", peer(0), NOW, sealed=sealed(b"another seed of this account"), replace=True)
    assert is_throttled(ask(agent, "default", "000000"))


def test_with_four_authenticators_six_failures_fit_and_then_one_in_four_days(agent: Agent) -> None:
    add_authenticators(agent._keyring, [bytes([number]) * 20 for number in range(1, 4)])
    for waited in (0, 0, 0, 0, 60, 180):
        assert ask(agent, "default", "000000", reading=at(NOW.wall + waited)).result == {"valid": False}
    refusal = ask(agent, "default", CODE, reading=at(NOW.wall + 180)).refusal
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(4 * DAY - 180, abs=1)


def test_a_wrong_code_for_a_counter_costs_four_units() -> None:
    throttle = Throttle(b"secret", (), STARTED)
    hotp = Parameters(period=0, kind="hotp")
    agent = make_agent(make_keyring({"default": SEED}, hotp), RULES, throttle=throttle)
    for waited in (0, 0, 0, 0, 60, 180):
        assert ask(agent, "default", "000000", reading=at(NOW.wall + waited)).result == {"valid": False}
    assert agent._keyring.accounts["default"].tally.level.units == pytest.approx(6 * 4, abs=0.1)
    refusal = ask(agent, "default", "000000", reading=at(NOW.wall + 180)).refusal
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(4 / 3 * DAY - 180, abs=1)


def test_more_and_fewer_authenticators_free_nobody_and_hold_nobody_longer(agent: Agent) -> None:
    keyring = agent._keyring
    tire(agent)
    before = seen(ask(agent, "default", CODE))
    add_authenticators(keyring, [bytes(20)])
    assert seen(ask(agent, "default", CODE)) == before
    fewer = keyring.accounts["default"].without("1")
    assert fewer is not None
    keyring.put(fewer)
    assert seen(ask(agent, "default", CODE)) == before


def test_who_waits_waits_for_the_account_that_is_made_again_too(agent: Agent) -> None:
    tire(agent)
    call(agent, "remove", peer(0), NOW, account="default")
    call(agent, "load", peer(0), NOW, account="default", sealed=sealed(bytes(20)))
    assert is_throttled(ask(agent, "default", "000000"))


def test_switched_off_nothing_is_counted() -> None:
    agent = fresh_agent(enabled=False)
    for account in ("default", "missing"):
        for _ in range(200):
            answer = ask(agent, account, "000000")
            assert (answer.result, answer.change) == ({"valid": False}, None)
    assert call(agent, "status", peer(VERIFIER), NOW)["throttling"] is False
    assert call(fresh_agent(), "status", peer(VERIFIER), NOW)["throttling"] is True

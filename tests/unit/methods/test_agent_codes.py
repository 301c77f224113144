"""Codes and verdicts of `Agent.handle`, with the reading passed in."""

import itertools
from typing import Any

import pytest
from support.agents import (
    CODE,
    NOW,
    OTHER_SEED,
    ROOT,
    SEED,
    STEP,
    STRANGER,
    USUAL,
    at,
    at_step,
    call,
    is_valid,
    make_agent,
    make_keyring,
    oathtool_code,
    reference_code,
    shared_step,
)

from pki2fad.errors import BadRequest, NoSuchAccount, Unavailable
from pki2fad.methods.agent import Agent
from pki2fad.rules.changes import Spend
from pki2fad.rules.otp import Parameters
from pki2fad.wire.messages import Request


@pytest.mark.parametrize("vector", range(18))
def test_codes_are_those_of_rfc_6238(rfc: dict[str, list[dict[str, Any]]], vector: int) -> None:
    assert len(rfc["totp"]) == 18
    of = rfc["totp"][vector]
    parameters = Parameters(of["algorithm"], of["digits"], of["period"])
    agent = make_agent(make_keyring({"default": bytes.fromhex(of["seed_hex"])}, parameters))
    generated = call(agent, "generate", ROOT, at(of["time"]))
    assert (generated["code"], generated["step"]) == (of["code"], of["step"])
    assert is_valid(agent, of["code"], at(of["time"]))


def test_codes_are_those_of_rfc_4226(rfc: dict[str, list[dict[str, Any]]]) -> None:
    for of in rfc["hotp"]:
        agent = make_agent(make_keyring({"default": bytes.fromhex(of["seed_hex"])}))
        assert call(agent, "generate", ROOT, at_step(of["counter"]))["code"] == of["code"]


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512"])
@pytest.mark.parametrize("digits", [6, 7, 8])
@pytest.mark.parametrize("period", [1, 29, 30, 60, 120])
def test_codes_are_those_of_oathtool(algorithm: str, digits: int, period: int) -> None:
    parameters = Parameters(algorithm, digits, period)
    agent = make_agent(make_keyring({"default": OTHER_SEED}, parameters))
    code = oathtool_code(OTHER_SEED, NOW.wall, parameters)
    assert call(agent, "generate", ROOT, NOW)["code"] == code
    assert is_valid(agent, code, NOW)
    assert reference_code(OTHER_SEED, int(NOW.wall) // period, parameters) == code


@pytest.mark.parametrize(
    ("wall", "period", "valid_for", "step"),
    [
        (0.0, 30, 30, 0),
        (29.999, 30, 1, 0),
        (30.0, 30, 30, 1),
        (59.0, 30, 1, 1),
        (1_700_000_000.75, 120, 40, 14_166_666),
        (1_700_000_000.999, 1, 1, 1_700_000_000),
    ],
)
def test_valid_for_is_the_whole_seconds_that_the_step_still_lasts(
    wall: float, period: int, valid_for: int, step: int
) -> None:
    parameters = Parameters(period=period)
    agent = make_agent(make_keyring({"default": SEED}, parameters))
    result = call(agent, "generate", ROOT, at(wall))
    assert result == {"code": reference_code(SEED, step, parameters), "valid_for": valid_for, "step": step}


def test_generate_spends_nothing(agent: Agent) -> None:
    for _ in range(3):
        assert agent.handle(Request(1, "generate", {}), ROOT, NOW).change is None
    assert call(agent, "accounts", ROOT, NOW)[0]["last_used"] is None
    assert is_valid(agent, CODE, NOW)


# Verdicts


@pytest.mark.parametrize(
    ("offset", "valid"), [(-3, False), (-2, False), (-1, True), (0, True), (1, True), (2, False), (3, False)]
)
@pytest.mark.parametrize("within", [0.0, 29.999])
def test_the_window_is_one_step_on_either_side(agent: Agent, offset: int, valid: bool, within: float) -> None:
    assert is_valid(agent, reference_code(SEED, STEP + offset), at(STEP * 30 + within)) is valid


@pytest.mark.parametrize("step", [0, 1])
def test_the_window_ends_at_1970(agent: Agent, step: int) -> None:
    assert is_valid(agent, reference_code(SEED, 0), at_step(step))


@pytest.mark.parametrize(("digits", "other"), list(itertools.permutations((6, 7, 8), 2)))
def test_a_code_of_another_length_than_the_accounts_is_invalid(digits: int, other: int) -> None:
    agent = make_agent(make_keyring({"default": SEED}, Parameters(digits=digits)))
    assert not is_valid(agent, reference_code(SEED, STEP, Parameters(digits=other)), NOW)
    assert is_valid(agent, reference_code(SEED, STEP, Parameters(digits=digits)), NOW)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "12345",
        "123456789",
        " 123456",
        "123456 ",
        "123456\n",
        "123 456",
        "12345a",
        "-12345",
        "+12345",
        "1_2345",
        "0x1234",
        "12e456",
        "１２３４５６",  # noqa: RUF001 - full-width digits are what is refused
        "١٢٣٤٥٦",
        "12345\0",
        "12345\udcff",
    ],
)
def test_what_is_not_6_to_8_ascii_digits_is_a_bad_request(agent: Agent, code: str) -> None:
    for account in ("default", "nobody"):
        with pytest.raises(BadRequest):
            call(agent, "verify", ROOT, NOW, account=account, code=code)


def test_a_code_is_accepted_once(agent: Agent) -> None:
    assert is_valid(agent, CODE, NOW)
    for reading in (NOW, at_step(STEP + 1), at_step(STEP - 1)):
        assert not is_valid(agent, CODE, reading)


def test_after_a_code_no_earlier_one_is_accepted(agent: Agent) -> None:
    assert is_valid(agent, reference_code(SEED, STEP + 1), NOW)
    assert not is_valid(agent, CODE, NOW)
    assert not is_valid(agent, reference_code(SEED, STEP - 1), NOW)
    assert is_valid(agent, reference_code(SEED, STEP + 2), at_step(STEP + 1))


def test_each_step_of_the_window_is_accepted_in_turn(agent: Agent) -> None:
    codes = [reference_code(SEED, STEP + offset) for offset in (-1, 0, 1)]
    assert [is_valid(agent, code, NOW) for code in codes] == [True, True, True]
    assert [is_valid(agent, code, NOW) for code in codes] == [False, False, False]


@pytest.mark.parametrize("first", [-1, 0, 1, 2], ids="the shared code is first given at offset {}".format)
def test_a_code_that_two_adjacent_steps_share_is_accepted_once(agent: Agent, first: int) -> None:
    step = shared_step()
    code = oathtool_code(SEED, step * 30)
    assert code == oathtool_code(SEED, (step + 1) * 30)
    assert is_valid(agent, code, at_step(step + first))  # at -1 the second of the two is beyond the window
    for later in range(step + first, step + 4):
        assert not is_valid(agent, code, at_step(later))


def test_with_the_shared_code_both_of_its_steps_are_spent(agent: Agent) -> None:
    step = shared_step()
    assert is_valid(agent, reference_code(SEED, step), at_step(step))
    assert call(agent, "accounts", ROOT, NOW)[0]["last_used"] == (step + 1) * 30
    assert is_valid(agent, reference_code(SEED, step + 2), at_step(step + 1))


def test_an_acceptance_moves_memory_at_once_and_asks_to_be_kept(agent: Agent) -> None:
    request = Request(1, "verify", {"code": CODE})
    first = agent.handle(request, ROOT, NOW)
    assert first.change == Spend("default", STEP, USUAL.period, NOW.wall, drift=b"\0")
    assert not is_valid(agent, CODE, NOW)  # though the first was never kept
    assert call(agent, "accounts", ROOT, NOW)[0]["last_used"] == STEP * USUAL.period


def test_a_rejection_changes_nothing(agent: Agent) -> None:
    answer = agent.handle(Request(1, "verify", {"code": reference_code(SEED, STEP + 2)}), ROOT, NOW)
    assert (answer.result, answer.change) == ({"valid": False}, None)
    assert is_valid(agent, CODE, NOW)


# After a crash of the machine

FLOOR = (STEP + 2) * 30


@pytest.mark.parametrize(
    ("wall", "seconds"), [(FLOOR - 45, 45), (FLOOR - 0.25, 1), (FLOOR - 29.5, 30), (0.0, FLOOR)]
)
def test_below_the_floor_verify_is_unavailable_and_says_for_how_long(wall: float, seconds: int) -> None:
    keyring = make_keyring({"default": SEED})
    keyring.raise_floors({30: FLOOR})
    agent = make_agent(keyring)
    for code in (reference_code(SEED, int(wall) // 30), "000000"):
        with pytest.raises(Unavailable) as caught:
            call(agent, "verify", ROOT, at(wall), code=code)
        assert caught.value.retry_after == seconds
    assert agent.unavailable_until(at(wall)) == FLOOR
    assert call(agent, "status", STRANGER, at(wall))["unavailable_until"] == FLOOR
    assert call(agent, "generate", ROOT, at(wall))["code"] == reference_code(SEED, int(wall) // 30)


def test_below_the_floor_a_bad_request_is_still_one() -> None:
    keyring = make_keyring({"default": SEED})
    keyring.raise_floors({30: FLOOR})
    agent = make_agent(keyring)
    with pytest.raises(BadRequest):
        call(agent, "verify", ROOT, NOW, code="12345")
    with pytest.raises(NoSuchAccount):
        call(agent, "verify", ROOT, NOW, account="nobody", code=CODE)


def test_at_the_floor_verify_serves_and_no_step_that_began_before_it_is_accepted() -> None:
    keyring = make_keyring({"default": SEED})
    keyring.raise_floors({30: FLOOR})
    agent = make_agent(keyring)
    assert agent.unavailable_until(at(FLOOR)) is None
    assert call(agent, "status", ROOT, at(FLOOR))["unavailable_until"] is None
    assert not is_valid(agent, reference_code(SEED, FLOOR // 30 - 1), at(FLOOR))
    assert is_valid(agent, reference_code(SEED, FLOOR // 30), at(FLOOR))
    assert is_valid(agent, reference_code(SEED, FLOOR // 30 + 1), at(FLOOR))


def test_the_floor_of_one_period_does_not_hold_back_another() -> None:
    keyring = make_keyring({"default": SEED})
    keyring.raise_floors({60: FLOOR})
    agent = make_agent(keyring)
    assert is_valid(agent, CODE, NOW)
    assert agent.unavailable_until(NOW) is None  # no account has such codes


AROUND = ("", " ", "\t", "\n", "\r\n", "\0", "\u00a0", "\u2003", "\u200b", "\u200e", "\ufeff", "\u0301")


def test_a_used_code_with_white_space_or_unicode_around_it_is_not_good_again(agent: Agent) -> None:
    assert is_valid(agent, CODE, NOW)
    variants = [f"{before}{CODE}{after}" for before in AROUND for after in AROUND]
    variants += [
        CODE.translate({ord("0") + n: zero + n for n in range(10)}) for zero in (0x660, 0x966, 0xFF10)
    ]
    variants += [f"{CODE[:3]}{inside}{CODE[3:]}" for inside in AROUND[1:]]
    for variant in variants:
        if variant == CODE:
            assert not is_valid(agent, variant, NOW)
        else:
            with pytest.raises(BadRequest):
                is_valid(agent, variant, NOW)

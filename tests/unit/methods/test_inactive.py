"""Tokens that a restore left inactive: what a caller that may not know of accounts sees of them."""

import pytest
from support.agents import OTHER_SEED, SEED, STARTED, make_agent, make_keyring
from support.authenticators import HOTP, token_code
from support.callers import ADMIN, RULES, ask, is_throttled, seen

from pki2fad.methods.agent import Agent
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import UNKNOWN
from pki2fad.rules.throttle import Throttle

INACTIVE = [token_code(counter) for counter in range(8)]


@pytest.fixture(params=[False, True], ids=["alone", "two"])
def agent(request: pytest.FixtureRequest) -> Agent:
    """An agent with the account ann, whose tokens came from a backup."""
    keyring = make_keyring({"other": OTHER_SEED})
    lost = [keyring.seal("ann", bytearray(SEED), HOTP)]
    if request.param:
        lost.append(keyring.seal("ann", bytearray(OTHER_SEED), HOTP, label="second", beside=lost[0]))
    keyring.put(Account.of([one.changed(drift=UNKNOWN) for one in lost]))
    return make_agent(keyring, RULES, throttle=Throttle(b"secret", (), STARTED))


def test_it_is_like_no_account_to_whoever_may_not_know(agent: Agent) -> None:
    there = [seen(ask(agent, "ann", code)) for code in INACTIVE]
    missing = [seen(ask(agent, "nobody", code)) for code in INACTIVE]
    assert there == missing
    assert there[0] == ({"valid": False}, None)
    assert there[-1][1][0] == "throttled"


def test_its_codes_are_wrong_for_administrators_too_and_cost_what_a_wrong_code_does(agent: Agent) -> None:
    answers = [ask(agent, "ann", code, ADMIN) for code in INACTIVE]
    assert [answer.result for answer in answers[:4]] == [{"valid": False}] * 4
    assert all(map(is_throttled, answers[4:]))

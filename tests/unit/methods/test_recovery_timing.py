"""The time of an answer does not tell who has recovery codes, where nobody may know which accounts exist."""

import gc
import statistics
import time

import pytest
from support.agents import OTHER_SEED, ROOT, SEED, STEP, at_step, call, make_agent, make_keyring
from support.recovery import NO_CODE

from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer, Rule
from pki2fad.rules.clock import Reading
from pki2fad.rules.throttle import Throttle
from pki2fad.wire.messages import Request

pytestmark = pytest.mark.slow  # statistics

NOW = at_step(STEP)
VERIFIER = Peer(3, 4713, frozenset({4713}))
WEEK = 7 * 86_400
ROUNDS = 1500

# Of the median of the usual account. To open a key, hash and compare takes half as much as all the rest. A
# failure of a name without an account is counted in two slots, whatever the code: a tenth.
SLACK = 0.08
SLACK_OF_NOBODY = 0.17


def make() -> Agent:
    """An agent with accounts that have recovery codes, or a second authenticator, or both, or neither."""
    names = ("plain", "codes", "used", "two", "both")
    keyring = make_keyring(dict.fromkeys(names, SEED))
    agent = make_agent(keyring, (Rule("verify", (VERIFIER.uid,)),), throttle=Throttle(b"secret", (), NOW))
    for name in ("two", "both"):
        account = keyring.accounts[name]
        phone = keyring.seal(name, bytearray(OTHER_SEED), account.parameters, label="phone")
        keyring.put(account.with_authenticator(phone))
    for name in ("codes", "used", "both"):
        codes = call(agent, "recovery_create", ROOT, NOW, account=name)["codes"]
        if name == "used":
            for code in codes:
                call(agent, "verify", ROOT, NOW, account=name, code=code)
    return agent


def medians(agent: Agent, code: str, names: tuple[str, ...], seconds: float) -> dict[str, float]:
    """The median time of an answer by name, in nanoseconds, when each is asked in turn.

    As many seconds pass between two rounds: what was counted has drained again.
    """
    times: dict[str, list[int]] = {name: [] for name in names}
    gc.disable()
    try:
        for number in range(ROUNDS):
            reading = Reading(NOW.wall + number * seconds, NOW.boot + number * seconds)
            order = names if number % 2 else names[::-1]
            for name in order:
                request = Request(1, "verify", {"account": name, "code": code})
                begun = time.perf_counter_ns()
                answer = agent.handle(request, VERIFIER, reading)
                times[name].append(time.perf_counter_ns() - begun)
                assert answer.result == {"valid": False}
    finally:
        gc.enable()
    return {name: statistics.median(some) for name, some in times.items()}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (NO_CODE, ("plain", "codes", "used", "two", "both", "nobody")),
        ("0000000", ("plain", "codes", "used", "nobody")),
        ("0000000", ("two", "both")),
    ],
    ids=["a recovery code", "a code", "a code of two"],
)
def test_an_answer_takes_as_long_with_recovery_codes_as_without(code: str, names: tuple[str, ...]) -> None:
    agent = make()
    found = medians(agent, code, names, WEEK)
    usual = found[names[0]]
    off = {name: round(time / usual - 1, 3) for name, time in found.items()}
    assert abs(off.pop("nobody", 0.0)) < SLACK_OF_NOBODY, off
    assert max(map(abs, off.values())) < SLACK, off

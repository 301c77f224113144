"""Callers with one role each, an agent that throttles them, and what they see."""

from contextlib import suppress
from typing import Any

import pytest

from pki2fad.errors import Throttled
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer, Rule
from pki2fad.rules.changes import Answer
from pki2fad.rules.clock import Reading
from pki2fad.rules.throttle import Throttle
from pki2fad.wire.messages import Request
from support.agents import OTHER_SEED, SEED, STARTED, at, call, make_agent, make_keyring, reference_code

PERIOD = 30
STEP = int(STARTED.wall) // PERIOD + 10

# Uids that the rules name, and so with budgets of their own.
VERIFIER, OTHER_VERIFIER, GENERATOR, ADMIN, RELAY, LOCAL_ADMIN = range(5001, 5007)
GROUP = 6001  # has the role `verify`
RULES = (
    Rule("verify", (VERIFIER, OTHER_VERIFIER, GENERATOR, ADMIN, RELAY)),
    Rule("generate", (GENERATOR,)),
    Rule("admin", (ADMIN,)),
    Rule("relay", (RELAY,)),
)
WITH_LOCAL_ADMIN = (*RULES, Rule("verify", (LOCAL_ADMIN,)), Rule("admin", (LOCAL_ADMIN,), ("default",)))

WRONG_CODES = ["000000", "0000000", "00000000"]  # of the account's length and of others


def peer(uid: int, *gids: int) -> Peer:
    return Peer(1, uid, frozenset(gids))


def at_step(step: int) -> Reading:
    return at(step * PERIOD + PERIOD / 2)


NOW = at_step(STEP)
CODE = reference_code(SEED, STEP)


def fresh_agent(*, enabled: bool = True, rules: tuple[Rule, ...] = RULES) -> Agent:
    throttle = Throttle(b"secret", (), STARTED)
    throttle.enabled = enabled
    return make_agent(make_keyring({"default": SEED, "other": OTHER_SEED}), rules, throttle=throttle)


def codes_of(*steps: int) -> list[str]:
    """The codes of steps that are so far from now."""
    return [reference_code(SEED, STEP + step) for step in steps]


def ask(agent: Agent, account: str, code: str, uid: int = VERIFIER, reading: Reading = NOW) -> Answer:
    return agent.handle(Request(1, "verify", {"account": account, "code": code}), peer(uid), reading)


def seen(answer: Answer) -> tuple[Any, ...]:
    """What leaves of an answer."""
    refusal = answer.refusal
    return (answer.result, refusal and (refusal.code, str(refusal), refusal.retry_after))


def is_throttled(answer: Answer) -> bool:
    return isinstance(answer.refusal, Throttled)


def tire(agent: Agent, account: str = "default", uid: int = VERIFIER, **more: Any) -> None:
    """Let a uid fail until it is throttled."""
    for _ in range(4):
        assert call(agent, "verify", peer(uid), NOW, account=account, code="000000", **more) == {
            "valid": False
        }
    with pytest.raises(Throttled):
        call(agent, "verify", peer(uid), NOW, account=account, code="000000", **more)


def fill(agent: Agent, reading: Reading = NOW) -> None:
    """Let strangers fail until the account refuses everybody it does not know."""
    for host in range(60):
        with suppress(Throttled):
            call(agent, "verify", peer(RELAY), reading, code="000000", origin=f"host-{host}")

"""What `generate` answered in a second is answered again in it, and never where something changed."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.agents import OTHER_SEED, ROOT, SEED, STARTED, STRANGER, call, reference_code, sealed
from support.callers import ADMIN, GENERATOR, RULES, VERIFIER, fresh_agent, peer

from pki2fad.errors import Refusal
from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Access, Peer, Rule
from pki2fad.rules.clock import Reading
from pki2fad.wire.messages import Request

CALLERS = (ROOT, STRANGER, peer(GENERATOR), peer(VERIFIER), Peer(1, 0, frozenset(), verify_only=True))
OTHER_RULES = (Rule("generate", (VERIFIER,)), Rule("generate", (GENERATOR,), ("other",)))


class Host:
    """An agent, and clocks that are set at will."""

    def __init__(self) -> None:
        self.agent: Agent = fresh_agent(enabled=False)
        self.wall, self.boot = STARTED.wall, STARTED.boot

    @property
    def reading(self) -> Reading:
        return Reading(self.wall, self.boot)

    def generate(self, caller: Peer, **args: Any) -> Any:
        """The result, or what it was refused for."""
        answer = self.agent.handle(Request(1, "generate", args), caller, self.reading)
        return answer.result if answer.refusal is None else type(answer.refusal)

    def call(self, method: str, **args: Any) -> None:
        with contextlib.suppress(Refusal):
            call(self.agent, method, ROOT, self.reading, **args)

    def all(self) -> list[Any]:
        """What everybody gets, one after the other."""
        accounts: list[dict[str, Any]] = [{}, {"account": "default"}, {"account": b"other"}, {"account": "-"}]
        return [self.generate(caller, **args) for caller in CALLERS for args in accounts]

    def code(self, ahead: int, seed: bytes = SEED) -> str:
        return reference_code(seed, int(self.wall) // 30 + ahead)


def change(host: Host, kind: str, value: Any) -> None:
    if kind == "sleep":
        host.wall += value
        host.boot += value
    elif kind == "set":
        host.wall += value
    elif kind == "load":
        host.call("load", sealed=sealed(value), replace=True)
    elif kind == "succeed":
        host.call("load", sealed=sealed(value), successor=True, deadline=int(host.wall) + 2, cutover=True)
    elif kind == "resync":
        host.call("resync", first=host.code(value), second=host.code(value + 1))
    elif kind == "verify":
        host.call("verify", code=host.code(0, value))
    elif kind == "rules":
        host.agent.use(Access(value, 0, Users()))
    else:
        host.call(kind)


CHANGES = st.one_of(
    st.tuples(st.just("sleep"), st.sampled_from([0.1, 0.9, 1.0, 2.5, 29.5, 31.0])),
    st.tuples(st.just("set"), st.sampled_from([-40, -1, 1, 100])),
    st.tuples(st.sampled_from(["load", "succeed", "verify"]), st.sampled_from([SEED, OTHER_SEED])),
    st.tuples(st.just("resync"), st.integers(-4, 4)),
    st.tuples(st.just("rules"), st.sampled_from([RULES, OTHER_RULES])),
    st.tuples(st.sampled_from(["remove", "lock", "unlock", "clock_accept"]), st.none()),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(CHANGES, max_size=8))
def test_it_is_what_would_be_answered_anew(changes: list[tuple[str, Any]]) -> None:
    host = Host()
    for kind, value in [("sleep", 0.1), *changes]:
        change(host, kind, value)
        again = host.all()
        host.agent._steady.clear()
        assert again == host.all()


def test_who_may_not_generate_gets_nothing_of_what_others_got() -> None:
    host = Host()
    assert host.generate(peer(GENERATOR))["code"] == host.code(0)
    for caller in (STRANGER, peer(VERIFIER), Peer(1, 0, frozenset(), verify_only=True)):
        assert issubclass(host.generate(caller), Refusal)


@pytest.mark.parametrize(
    "args", [{"account": 1}, {"account": True}, {"account": None}, {"account": "x", "y": 1}]
)
def test_what_is_refused_is_refused_again(args: dict[str, Any]) -> None:
    host = Host()
    first = host.generate(ROOT, **args)
    assert issubclass(first, Refusal)
    assert host.generate(ROOT, **args) is first


def test_it_is_made_once_in_a_second() -> None:
    host = Host()
    answers = [host.generate(ROOT) for _ in range(2)]
    host.wall += 1
    assert answers[0] is answers[1]
    assert host.generate(ROOT) is not answers[0]


def test_no_code_stays_when_the_daemon_is_locked() -> None:
    host = Host()
    host.all()
    host.call("lock")
    assert host.agent._steady._answers == {}


def test_what_is_sent_is_the_result() -> None:
    host = Host()
    answer = host.agent.handle(Request(1, "generate", {}), peer(GENERATOR), host.reading)
    assert answer.encoded is not None
    assert msgpack.unpackb(answer.encoded) == answer.result
    assert issubclass(host.generate(peer(ADMIN)), Refusal)

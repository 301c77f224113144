"""The short way gives the answers of the long one, whatever happens in between, or none."""

import contextlib
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.agents import (
    OTHER_SEED,
    SEED,
    STARTED,
    STRANGER,
    call,
    make_agent,
    make_keyring,
    no_throttle,
    reference_code,
    sealed,
)
from support.callers import ADMIN, GENERATOR, RULES, VERIFIER, peer

from pki2fad.errors import Refusal
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer, Rights
from pki2fad.rules.changes import NO, Edit, Edits
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.pieces import finish
from pki2fad.wire.plain import Plain

NAMES = ("default", "other", "nobody")
PERIOD = 30
FOREVER = 1e12
WRONG = "0000000"  # of no account: theirs have six digits
ROOT = Peer(1, 0, frozenset())


class Host:
    """An agent that counts no failures, with two accounts, and clocks that are set at will."""

    def __init__(self) -> None:
        self.wall, self.boot = STARTED.wall, STARTED.boot
        watch = Watch(None, (), (), self.reading)
        self.throttle = no_throttle()
        keyring = make_keyring({"default": SEED, "other": OTHER_SEED})
        self.agent: Agent = make_agent(keyring, RULES, throttle=self.throttle, watch=watch)
        self.watch = watch

    @property
    def reading(self) -> Reading:
        return Reading(self.wall, self.boot)

    def rights(self, uid: int) -> Rights:
        return self.agent.access.rights(peer(uid))

    def short(self, uid: int, name: str, code: str | None) -> str | None:
        request: Plain = ("\x07", name, code)
        answers = self.agent.shortcut.answers(self.rights(uid), [request], self.wall, self.boot)
        return answers[0] if answers else None

    def long(self, uid: int, name: str, code: str | None) -> Any:
        """The result, or None for a refusal; what it changes is made, as the server does it."""
        if code is None:
            try:
                return call(self.agent, "generate", peer(uid), self.reading, account=name)
            except Refusal:
                return None
        answer = self.agent.verdict(self.rights(uid), name, code, self.reading)
        if answer is NO:
            self.agent.shortcut.open(self.wall, FOREVER)
        if isinstance(answer.change, Edit):
            self.agent.apply(answer.change)
        return answer.result

    def call(self, method: str, **args: Any) -> None:
        """Root's call. Raises the `Refusal`."""
        call(self.agent, method, ROOT, self.reading, **args)

    def code(self, ahead: int = 0) -> str:
        return reference_code(SEED, int(self.wall) // PERIOD + ahead)

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds

    def open(self, uid: int = 0, name: str = "default") -> None:
        """Let it answer wrong codes."""
        assert self.long(uid, name, WRONG) == {"valid": False}
        assert self.short(uid, name, WRONG) is not None


def result(response: str) -> Any:
    kind, msgid, error, result = msgpack.unpackb(response.encode("latin-1"))
    assert (kind, msgid, error) == (1, 7, None)
    return result


@pytest.mark.parametrize("uid", [0, VERIFIER])
def test_a_wrong_code_is_answered_once_one_was_in_the_long_way(uid: int) -> None:
    host = Host()
    assert host.short(uid, "default", WRONG) is None
    host.open(uid)
    assert result(host.short(uid, "default", WRONG) or "") == {"valid": False}
    host.sleep(100)  # its codes are made anew
    assert result(host.short(uid, "default", WRONG) or "") == {"valid": False}


@pytest.mark.parametrize("ahead", [-1, 0, 1])
def test_a_right_code_is_left_to_who_spends_it(ahead: int) -> None:
    host = Host()
    host.open()
    assert host.short(0, "default", host.code(ahead)) is None
    host.sleep(PERIOD)
    assert host.short(0, "default", host.code(ahead)) is None


@pytest.mark.parametrize("outside", [-2, 2])
def test_a_code_outside_the_window_is_a_wrong_one(outside: int) -> None:
    host = Host()
    host.open()
    assert host.code(outside) not in map(host.code, (-1, 0, 1))
    assert result(host.short(0, "default", host.code(outside)) or "") == {"valid": False}


def test_a_code_is_generated_with_its_step_and_the_seconds_left() -> None:
    host = Host()
    for _ in range(70):
        host.sleep(0.7)
        answer = result(host.short(GENERATOR, "default", None) or "")
        assert answer == {
            "code": host.code(),
            "valid_for": PERIOD - int(host.wall) % PERIOD,
            "step": int(host.wall) // PERIOD,
        }


@pytest.mark.parametrize("code", [None, WRONG])
@pytest.mark.parametrize("uid", [STRANGER.uid, VERIFIER, GENERATOR, ADMIN])
def test_who_has_no_right_is_not_answered(uid: int, code: str | None) -> None:
    host = Host()
    host.open(VERIFIER)
    host.open()
    rights = host.rights(uid)
    allowed = rights.verify if code else rights.generate
    assert (host.short(uid, "default", code) is not None) == allowed


def lock(host: Host) -> None:
    host.call("lock")


def throttle(host: Host) -> None:
    host.throttle.enabled = True
    host.agent.shortcut.close()  # as the service does at a reload


def remove(host: Host) -> None:
    host.call("remove")


def succeed(host: Host) -> None:
    host.call("load", sealed=sealed(OTHER_SEED), successor=True)


def replace(host: Host) -> None:
    host.call("load", sealed=sealed(b"x" * 20), replace=True)


def set_back(host: Host) -> None:
    host.wall -= 100


def restore(host: Host) -> None:
    floor = int(host.wall // PERIOD + 2) * PERIOD
    finish(host.agent.applied(Edits([], {PERIOD: floor}, ())))


def be_spent(host: Host) -> None:
    finish(host.agent.applied(Edits([], {}, ((host.wall - 5, host.wall + 5),))))


def fall_behind(host: Host) -> None:
    host.watch.mark = host.wall + 1000


def be_over(host: Host) -> None:
    """The time for which it was opened is over."""
    host.agent.shortcut.open(host.wall, host.boot)


@pytest.mark.parametrize(
    "event", [lock, throttle, remove, succeed, replace, set_back, restore, be_spent, fall_behind, be_over]
)
@pytest.mark.parametrize("uid", [0, VERIFIER])
def test_what_asks_for_more_is_left_to_the_long_way(event: Callable[[Host], None], uid: int) -> None:
    host = Host()
    host.open(uid)
    event(host)
    if event is replace and uid == 0:  # the new seed's codes are made
        assert result(host.short(uid, "default", WRONG) or "") == {"valid": False}
    else:
        assert host.short(uid, "default", WRONG) is None


@pytest.mark.parametrize(("floors", "spent"), [({60: 60}, ()), ({}, ((5000, 6000),))])
def test_it_stays_closed_while_some_account_may_have_to_wait(
    floors: dict[int, int], spent: tuple[tuple[int, int], ...]
) -> None:
    host = Host()
    now = int(host.wall)
    ahead = {period: now + by for period, by in floors.items()}
    edits = Edits([], ahead, tuple((now + since, now + until) for since, until in spent))
    finish(host.agent.applied(edits))
    assert host.long(0, "default", WRONG) == {"valid": False}
    assert host.short(0, "default", WRONG) is None


@pytest.mark.parametrize(("steps", "left"), [(2, False), (3, True), (1000, True)])
def test_where_all_codes_are_spent_it_is_left_to_who_says_until_when(steps: int, left: bool) -> None:
    host = Host()
    host.open(name="other")
    keyring = host.agent._keyring
    keyring.spend(keyring.accounts["default"], int(host.wall) // PERIOD + steps)
    assert (host.short(0, "default", WRONG) is None) == left


def test_who_may_not_know_of_an_account_is_answered_the_same_whatever_is_spent() -> None:
    host = Host()
    keyring = host.agent._keyring
    keyring.spend(keyring.accounts["default"], int(host.wall) // PERIOD + 1000)
    for name in ("default", "nobody"):
        host.open(VERIFIER, name)


def test_a_code_of_a_seed_that_was_replaced_is_a_wrong_one_and_the_new_ones_is_not() -> None:
    host = Host()
    host.open()
    replace(host)
    assert result(host.short(0, "default", host.code()) or "") == {"valid": False}
    assert host.short(0, "default", reference_code(b"x" * 20, int(host.wall) // PERIOD)) is None


def test_after_the_clock_was_accepted_it_goes_on() -> None:
    host = Host()
    host.open()
    host.sleep(7200)
    host.open()
    host.wall -= 3600
    host.call("clock_accept")
    assert host.short(0, "default", WRONG) is None
    assert result(host.short(GENERATOR, "default", None) or "")["code"] == host.code()


STEPS = st.one_of(
    st.tuples(st.just("sleep"), st.sampled_from([0.4, 10, 31, 65, 4000])),
    st.tuples(st.just("set"), st.sampled_from([-4000, -40, -3, 3, 40, 4000])),
    st.tuples(st.just("look"), st.booleans()),
    st.tuples(st.just("right"), st.sampled_from([-1, 0, 1])),
    st.tuples(
        st.just("event"), st.sampled_from([lock, throttle, remove, succeed, replace, restore, be_spent])
    ),
    st.tuples(st.just("event"), st.sampled_from([remove, succeed, replace])),
    st.tuples(st.just("load"), st.sampled_from(["default", "nobody"])),
    st.tuples(st.just("resync"), st.sampled_from([-5, 3])),
    st.tuples(st.just("calm"), st.none()),
    st.tuples(st.just("accept"), st.none()),
)


def step(host: Host, action: str, value: Any) -> None:
    """One thing that happens to a host; what is refused changes nothing."""
    if action == "sleep":
        host.sleep(value)
    elif action == "set":
        host.wall += value
    elif action == "look":
        host.watch.look(host.reading, value)
    elif action == "event":
        value(host)
    elif action == "right":
        code = host.code(value)
        short, long = host.short(0, "default", code), host.long(0, "default", code)
        assert short is None or result(short) == long
    elif action == "load":
        host.call("load", account=value, sealed=sealed(SEED), replace=True)
    elif action == "resync":
        host.call("resync", account="default", first=host.code(value), second=host.code(value + 1))
    elif action == "calm":
        host.throttle.enabled = False
        host.agent.shortcut.close()
        host.call("unlock")
    else:
        host.call("clock_accept")


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_it_says_what_the_long_way_says(steps: list[tuple[str, Any]]) -> None:
    host = Host()
    for action, value in [("sleep", 1), *steps]:
        with contextlib.suppress(Refusal):
            step(host, action, value)
        for uid in (0, VERIFIER, GENERATOR):
            for name in NAMES:
                codes = [reference_code(SEED, int(host.wall) // PERIOD + 2), WRONG, None]
                for code in codes:
                    short = host.short(uid, name, code)
                    long = host.long(uid, name, code)
                    assert short is None or result(short) == long

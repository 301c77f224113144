"""The window and the watermark, by properties: no (seed, code, step) is ever accepted twice.

What was accepted is recorded here, by an implementation of RFC 4226 of our own, and every verdict is
compared with what that record makes of it.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.agents import (
    BEFORE_SHARED_CODE,
    OTHER_SEED,
    ROOT,
    SEED,
    STARTED,
    USUAL,
    at,
    call,
    is_valid,
    make_agent,
    make_keyring,
    oathtool_code,
    reference_code,
    sealed,
    shared_step,
)

from pki2fad.errors import NoSuchAccount, Unavailable
from pki2fad.methods.agent import Agent
from pki2fad.rules import otp
from pki2fad.rules.clock import Reading
from pki2fad.rules.otp import Parameters
from pki2fad.wire.messages import Request

# Near this step two adjacent ones share a code, so that random walks of the clock meet it.
SHARED = shared_step()
OFFSETS = st.integers(-3, 3)
KINDS = st.sampled_from([(SEED, USUAL), (OTHER_SEED, USUAL), (SEED, Parameters("SHA256", 8, 29))])


def test_the_reference_and_oathtool_agree() -> None:
    for algorithm in ("SHA1", "SHA256", "SHA512"):
        for parameters in (Parameters(algorithm), Parameters(algorithm, 8, 29)):
            for wall in (0, 59, 1_111_111_109, 20_000_000_000):
                code = reference_code(SEED, wall // parameters.period, parameters)
                assert code == oathtool_code(SEED, wall, parameters)


def accepts(agent: Agent, code: str, reading: Reading) -> bool:
    """Whether a code is valid; where every code of the window is spent, none is."""
    try:
        return is_valid(agent, code, reading)
    except Unavailable:
        return False


class Acceptances:
    """Which steps are spent for each seed with its parameters, and by which code."""

    def __init__(self) -> None:
        self._spent: dict[tuple[bytes, Parameters], dict[int, str]] = {}

    def expect(self, kind: tuple[bytes, Parameters], code: str, wall: float) -> bool:
        """Whether this code has to be valid now; if so, it is recorded as accepted."""
        seed, parameters = kind
        spent = self._spent.setdefault(kind, {})
        step = int(wall // parameters.period)
        matching = {each for each in (step - 1, step, step + 1) if reference_code(*_of(kind, each)) == code}
        if not matching or max(matching) <= max(spent, default=-1):
            return False
        assert not matching & spent.keys(), f"step {matching} was accepted already"
        while reference_code(seed, max(matching) + 1, parameters) == code:
            matching.add(max(matching) + 1)
        spent.update(dict.fromkeys(matching, code))
        return True

    def given(self, kind: tuple[bytes, Parameters]) -> list[str]:
        """The codes that were accepted, oldest first."""
        return list(self._spent.get(kind, {}).values())

    def last_used(self, kind: tuple[bytes, Parameters]) -> int | None:
        """The start of the last step that is spent, in Unix time."""
        spent = self._spent.get(kind)
        return max(spent) * kind[1].period if spent else None


def _of(kind: tuple[bytes, Parameters], step: int) -> tuple[bytes, int, Parameters]:
    return kind[0], step, kind[1]


class OneAccount(RuleBasedStateMachine):
    """One account whose seed comes, goes and changes, under a clock that goes where it likes."""

    @initialize(start=st.integers(-2, 3))
    def begin(self, start: int) -> None:
        self.agent = make_agent(make_keyring())
        self.wall = float((SHARED + start) * USUAL.period)
        self.accepted = Acceptances()
        self.kind: tuple[bytes, Parameters] | None = None

    @property
    def reading(self) -> Reading:
        return at(self.wall)

    def verify(self, kind: tuple[bytes, Parameters], code: str) -> None:
        if self.kind is None:
            with pytest.raises(NoSuchAccount):
                call(self.agent, "verify", ROOT, self.reading, code=code)
        else:
            expected = kind == self.kind and self.accepted.expect(kind, code, self.wall)
            assert accepts(self.agent, code, self.reading) is expected

    @rule(seconds=st.floats(-100, 100) | st.sampled_from([-30.0, 0.0, 29.0, 30.0, 60.0]))
    def move_the_clock(self, seconds: float) -> None:
        self.wall += seconds

    @rule(step=st.integers(-3, 3))
    def move_to_where_codes_are_shared(self, step: int) -> None:
        self.wall = float((SHARED + step) * USUAL.period)

    @rule(offset=OFFSETS)
    def present_a_code_of_the_seed(self, offset: int) -> None:
        kind = self.kind or (SEED, USUAL)
        step = max(0, int(self.wall // kind[1].period) + offset)
        self.verify(kind, reference_code(*_of(kind, step)))

    @rule(step=st.integers(-2, 3))
    def present_the_shared_code_around_its_steps(self, step: int) -> None:
        self.move_to_where_codes_are_shared(step)
        self.verify((SEED, USUAL), reference_code(SEED, SHARED))

    @rule(data=st.data())
    def present_an_accepted_code_again(self, data: st.DataObject) -> None:
        if self.kind is not None and (codes := self.accepted.given(self.kind)):
            self.verify(self.kind, data.draw(st.sampled_from(codes)))

    @rule(code=st.from_regex(r"[0-9]{6,8}", fullmatch=True))
    def present_a_guess(self, code: str) -> None:
        self.verify(self.kind or (SEED, USUAL), code)

    @rule(offset=OFFSETS)
    def accept_a_code_and_fail_to_keep_it(self, offset: int) -> None:
        """The answer would be `unavailable`, and the code is spent all the same."""
        if self.kind is not None:
            code = reference_code(*_of(self.kind, max(0, int(self.wall // self.kind[1].period) + offset)))
            answer = self.agent.handle(Request(1, "verify", {"code": code}), ROOT, self.reading)
            assert (answer.change is not None) is self.accepted.expect(self.kind, code, self.wall)

    @rule(kind=KINDS)
    def load(self, kind: tuple[bytes, Parameters]) -> None:
        result = call(self.agent, "load", ROOT, self.reading, replace=True, **_load_arguments(kind))
        assert result["changed"] is (kind != self.kind)
        self.kind = kind

    @rule(kind=KINDS)
    def ask_for_a_load_that_is_never_kept(self, kind: tuple[bytes, Parameters]) -> None:
        args = {"replace": True, **_load_arguments(kind)}
        assert self.agent.handle(Request(1, "load", args), ROOT, self.reading).refusal is None

    @rule()
    def remove(self) -> None:
        if self.kind is not None:
            call(self.agent, "remove", ROOT, self.reading)
            self.kind = None

    @rule()
    def generate(self) -> None:
        if self.kind is not None:
            step = int(self.wall // self.kind[1].period)
            generated = call(self.agent, "generate", ROOT, self.reading)
            assert generated["code"] == reference_code(*_of(self.kind, step))

    @invariant()
    def last_use_is_as_recorded(self) -> None:
        if self.kind is not None:
            (account,) = call(self.agent, "accounts", ROOT, STARTED)
            assert account["last_used"] == self.accepted.last_used(self.kind)


def _load_arguments(kind: tuple[bytes, Parameters]) -> dict[str, Any]:
    seed, of = kind
    return {
        "sealed": sealed(seed),
        "algorithm": of.algorithm,
        "digits": of.digits,
        "period": of.period,
    }


TestNoCodeIsAcceptedTwice = pytest.mark.slow(OneAccount.TestCase)
TestNoCodeIsAcceptedTwice.settings = settings(max_examples=100, stateful_step_count=40)


@given(
    walls=st.lists(st.integers(0, 300), min_size=1, max_size=30),
    offsets=st.lists(OFFSETS, min_size=30, max_size=30),
)
def test_the_steps_that_are_accepted_rise_strictly_whatever_the_clock_does(
    walls: list[int], offsets: list[int]
) -> None:
    agent = make_agent(make_keyring({"default": SEED}))
    steps = []
    for wall, offset in zip(walls, offsets, strict=False):
        now = BEFORE_SHARED_CODE * USUAL.period + wall
        step = now // USUAL.period + offset
        if accepts(agent, reference_code(SEED, step), at(now)):
            assert abs(offset) <= otp.WINDOW
            steps.append(step)
    assert steps == sorted(set(steps))


@given(wall=st.floats(0, 4e9), offset=st.integers(-10, 10), period=st.integers(1, 120))
def test_a_fresh_code_is_valid_exactly_within_the_window(wall: float, offset: int, period: int) -> None:
    parameters = Parameters("SHA512", 8, period)
    step = int(wall // period)
    code = reference_code(SEED, max(0, step + offset), parameters)
    window = {reference_code(SEED, each, parameters) for each in (step - 1, step, step + 1)}
    agent = make_agent(make_keyring({"default": SEED}, parameters))
    assert is_valid(agent, code, at(wall)) is (code in window)

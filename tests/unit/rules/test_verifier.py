"""What a peer with only the role `verify` can tell from a verdict, what it costs, what the log is told."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from support.agents import SEED, at, call, reference_code
from support.callers import (
    ADMIN,
    CODE,
    GENERATOR,
    NOW,
    OTHER_VERIFIER,
    RELAY,
    STEP,
    VERIFIER,
    WRONG_CODES,
    ask,
    at_step,
    fresh_agent,
    is_throttled,
    peer,
    seen,
    tire,
)

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import NoSuchAccount, Throttled
from pki2fad.methods.agent import Agent
from pki2fad.rules import codes, otp
from pki2fad.rules.access import Rule
from pki2fad.rules.changes import WRONG, Failure


class Work:
    """Counts the codes that are made and the seals that are opened."""

    def __init__(self) -> None:
        self.codes = self.opened = 0

    def during(self, action: Callable[[], object]) -> tuple[int, int]:
        codes, opened = self.codes, self.opened
        action()
        return self.codes - codes, self.opened - opened


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work, make_code, open_seal = Work(), otp.make_code, MasterKey.opened

    def counted_code(*arguments: Any) -> str:
        work.codes += 1
        return make_code(*arguments)

    def counted_opened(*arguments: Any) -> contextlib.AbstractContextManager[bytearray]:
        work.opened += 1
        return open_seal(*arguments)

    monkeypatch.setattr(otp, "make_code", counted_code)
    monkeypatch.setattr(MasterKey, "opened", counted_opened)
    return work


# What a peer with only the role `verify` can tell


def test_a_wrong_code_one_of_another_length_and_an_unknown_account_are_answered_alike(agent: Agent) -> None:
    answers = [
        ask(agent, account, code, uid)
        for account in ("default", "missing")
        for uid, code in zip((VERIFIER, OTHER_VERIFIER, RELAY), WRONG_CODES, strict=True)
    ]
    assert {str(seen(answer)) for answer in answers} == {str(({"valid": False}, None))}
    assert {(type(answer.change), answer.reason) for answer in answers} == {(Failure, WRONG)}


def transcript(account: str) -> Iterator[tuple[Any, ...]]:
    """Everything that four uids see who try for two days, four times an hour."""
    agent, codes = fresh_agent(), itertools.cycle(WRONG_CODES)
    for number in range(2 * 24 * 4):
        for uid in (VERIFIER, OTHER_VERIFIER, RELAY, 5999):
            yield seen(ask(agent, account, next(codes), uid, at(NOW.wall + number * 900)))


def test_an_account_that_there_is_not_is_throttled_as_one_is() -> None:
    known, unknown = list(transcript("default")), list(transcript("missing"))
    assert known == unknown
    assert len({str(answer) for answer in known}) > 50  # there were many waits, and they were compared


def lots_of_work(account: str, code: str, work: Work) -> list[tuple[int, int]]:
    """The work of a first request, of one right after it, in the next steps and much later."""
    agent = fresh_agent()
    return [
        work.during(lambda step=step: ask(agent, account, code, reading=at_step(step)))  # type: ignore[misc]
        for step in (STEP, STEP, STEP + 1, STEP + 9)
    ]


@pytest.mark.parametrize("code", WRONG_CODES)
def test_an_account_that_there_is_not_is_as_much_work_as_one_that_is(work: Work, code: str) -> None:
    known, unknown = lots_of_work("default", code, work), lots_of_work("missing", code, work)
    assert known == unknown == lots_of_work("default", WRONG_CODES[0], work)
    assert known[0] == (3, 1)


def test_an_account_that_others_use_is_no_less_work_than_a_name_that_is_none(work: Work) -> None:
    agent = fresh_agent()
    for step in (STEP, STEP + 1):  # the first answer to each would tell
        for user in (GENERATOR, ADMIN):
            call(agent, "verify", peer(user), at_step(step), code="000000")
        known, unknown = (
            work.during(lambda name=name: ask(agent, name, "000000", reading=at_step(step)))  # type: ignore[misc]  # noqa: B023
            for name in ("default", "missing")
        )
        assert known == unknown


def test_after_any_number_of_other_names_an_account_is_as_much_work_as_a_name_that_is_none(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "_VEILED", 64)  # as many are kept
    agent = fresh_agent()
    for name in ("default", "missing"):
        ask(agent, name, "000000")
    for number in range(64):
        ask(agent, f"name{number}", "000000")
    known, unknown = (
        work.during(lambda name=name: ask(agent, name, "000000")) for name in ("default", "missing")
    )  # type: ignore[misc]
    assert known == unknown == (3, 1)


def test_to_look_for_a_stale_code_is_as_much_work_whichever_step_it_is_of(agent: Agent, work: Work) -> None:
    done = {
        distance: work.during(
            lambda d=distance: agent.steps_off("default", reference_code(SEED, STEP + d), NOW)
        )  # type: ignore[misc]
        for distance in (-11, -5, -2, 2, 5, 11, 12)
    }
    assert set(done.values()) == {(20, 20)}


def test_to_look_for_a_stale_code_is_as_much_work_for_an_account_that_there_is_not(
    agent: Agent, work: Work
) -> None:
    known = work.during(lambda: agent.steps_off("default", "000000", NOW))
    assert work.during(lambda: agent.steps_off("missing", "000000", NOW)) == known
    assert known[0] == 20


@pytest.mark.parametrize("account", ["default", "missing"])
def test_a_throttled_request_makes_no_code(agent: Agent, work: Work, account: str) -> None:
    tire(agent, account)
    later = at_step(STEP + 1)  # when codes would have to be made
    for code in (*WRONG_CODES, CODE):
        assert work.during(lambda code=code: ask(agent, account, code, reading=later)) == (0, 0)  # type: ignore[misc]
        assert is_throttled(ask(agent, account, code, reading=later))


def steps_of(action: Callable[[], object]) -> list[tuple[str, int]]:
    """The lines of our own code that are run, in order."""
    lines: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if "pki2fad" not in frame.f_code.co_filename:
            return None
        if event == "line":
            lines.append((frame.f_code.co_name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("known", [0, 1, 16])
@pytest.mark.parametrize("resets", [0, 1])
def test_a_refusal_is_as_much_work_whether_there_is_an_account_and_it_has_known_callers(
    agent: Agent, known: int, resets: int
) -> None:
    account, throttle = agent._keyring.accounts["default"], agent._throttle
    for _ in range(resets):
        account.tally = account.tally.reset()
    for number in range(known):
        key = throttle.key(number, "", b"default")
        account.tally = throttle.succeed(key, account.tally, throttle.now(NOW))
    done = []
    for name in ("default", "missing"):
        tire(agent, name)
        done.append(steps_of(lambda name=name: ask(agent, name, CODE)))  # type: ignore[misc]
    assert done[0] == done[1]
    assert "mark" in {function for function, _ in done[0]}


@pytest.mark.parametrize("later", [0.0, 0.25, 10.5, 59.5])
def test_who_is_throttled_may_try_when_they_were_told_to_and_not_before(agent: Agent, later: float) -> None:
    tire(agent)
    now = NOW.wall + later
    for _ in range(10):  # which is not counted
        with pytest.raises(Throttled) as caught:
            call(agent, "verify", peer(VERIFIER), at(now), code="000000")
    wait = caught.value.retry_after
    assert wait is not None
    with pytest.raises(Throttled):
        call(agent, "verify", peer(VERIFIER), at(now + wait - 1), code="000000")
    assert call(agent, "verify", peer(VERIFIER), at(now + wait), code="000000") == {"valid": False}


@pytest.mark.parametrize("uid", [GENERATOR, ADMIN])
def test_who_may_generate_or_administer_is_told_that_there_is_no_account_for_nothing(
    agent: Agent, work: Work, uid: int
) -> None:
    for _ in range(20):
        with pytest.raises(NoSuchAccount):
            call(agent, "verify", peer(uid), NOW, account="missing", code="000000")
    assert (work.codes, work.opened) == (0, 0)


@pytest.mark.parametrize("role", ["generate", "admin"])
def test_who_may_generate_or_administer_another_account_is_not_told(role: str) -> None:
    agent = fresh_agent(rules=(Rule("verify", (VERIFIER,)), Rule(role, (VERIFIER,), ("other", "elsewhere"))))
    assert call(agent, "verify", peer(VERIFIER), NOW, account="missing", code="000000") == {"valid": False}
    with pytest.raises(NoSuchAccount):
        call(agent, "verify", peer(VERIFIER), NOW, account="elsewhere", code="000000")


# For the log


@pytest.mark.parametrize("distance", range(-12, 13))
def test_a_code_steps_off_up_to_ten_steps_outside_the_window(agent: Agent, distance: int) -> None:
    code = reference_code(SEED, STEP + distance)
    assert (ask(agent, "default", code).result == {"valid": True}) is (abs(distance) <= 1)
    if abs(distance) > 1:
        assert agent.steps_off("default", code, NOW) == (distance if abs(distance) <= 11 else None)
    assert agent.steps_off("missing", code, NOW) is None
    assert agent.steps_off("other", code, NOW) is None

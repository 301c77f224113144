"""Provers whose clocks are off: `resync`, the window that follows, and the drift that is shown."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.agents import (
    OTHER_SEED,
    SEED,
    is_valid,
    make_agent,
    make_keyring,
    reference_code,
    sealed,
    shared_step,
)
from support.host import Host, refused_when_they_come

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadRequest, Forbidden, NoSuchAccount, Unavailable
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import ADMIN, VERIFY, Peer, Rule
from pki2fad.rules.clock import Reading
from pki2fad.rules.otp import Parameters

HOUR = 3600
EIGHT = Parameters(digits=8)  # no two codes here are the same
START = 1_700_000_040.0
ADMIN_OF_ONE, USER = (Peer(7, uid, frozenset({uid})) for uid in (1001, 1002))
RULES = [Rule(ADMIN, (ADMIN_OF_ONE.uid,), ("default",)), Rule(VERIFY, (USER.uid,))]


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    """A host with an account."""
    with Host(tmp_path / "state.db", master, START, RULES) as host:
        host.load(of=EIGHT)
        yield host


def resync(host: Host, *steps: int, of: Parameters = EIGHT, seed: bytes = SEED) -> int:
    """The offset, from the codes of these two steps, counted from now."""
    first, second = (reference_code(seed, host.step(of.period) + step, of) for step in steps)
    result = host.call("resync", first=first, second=second)
    assert result["account"] == "default"
    return int(result["offset"])


def accepted(host: Host, of: Parameters = EIGHT) -> list[int]:
    """Of which steps, counted from now, codes are accepted, the earliest first."""
    now = host.step(of.period)
    return [step for step in range(-15, 16) if host.verify(now + step, of=of)]


# What is taken


@pytest.mark.parametrize("offset", range(-10, 11))
def test_two_codes_in_order_move_the_window_by_up_to_ten_steps(host: Host, offset: int) -> None:
    assert resync(host, offset - 1, offset) == offset
    assert host.call("accounts")[0]["offset"] == offset
    host.wait(60)
    assert accepted(host) == [offset - 1, offset, offset + 1]


@pytest.mark.parametrize("offset", [-12, -11, 11, 12])
def test_a_prover_that_is_further_off_is_refused(host: Host, offset: int) -> None:
    with pytest.raises(BadRequest, match="within 10 steps"):
        resync(host, offset - 1, offset)
    assert accepted(host) == [-1, 0, 1]


@pytest.mark.parametrize(
    "steps",
    [(5, 4), (5, 5), (4, 6), (5, 500), (500, 5)],
    ids=["the wrong order", "the same twice", "one left out", "the second wrong", "the first wrong"],
)
def test_codes_that_do_not_follow_each_other_are_refused(host: Host, steps: tuple[int, int]) -> None:
    with pytest.raises(BadRequest):
        resync(host, *steps)
    assert host.call("accounts")[0]["offset"] == 0


def test_codes_that_were_used_are_refused(host: Host) -> None:
    assert host.verify(host.step(), of=EIGHT)
    for first in (-2, -1, 0):  # the second, or both, would have been good without this
        with pytest.raises(BadRequest):
            resync(host, first, first + 1)
    assert resync(host, 1, 2) == 2


def test_codes_that_resynchronised_once_do_not_do_it_again_and_are_spent(host: Host) -> None:
    assert resync(host, 3, 4) == 4
    with pytest.raises(BadRequest):
        resync(host, 3, 4)
    assert accepted(host) == [5]
    assert [host.verify(host.step() + step, of=EIGHT) for step in (3, 4)] == [False, False]


def test_the_codes_of_another_seed_are_refused(host: Host) -> None:
    with pytest.raises(BadRequest):
        resync(host, 0, 1, seed=OTHER_SEED)


@pytest.mark.parametrize("code", ["12345", "123456789", "12345a", "", "\uff11\uff12\uff13\uff14\uff15\uff16"])
def test_what_is_no_code_is_refused(host: Host, code: str) -> None:
    for args in ({"first": code, "second": "123456"}, {"first": "123456", "second": code}):
        with pytest.raises(BadRequest, match="6 to 8 digits"):
            host.call("resync", **args)


def test_a_code_that_is_also_the_next_steps_gives_the_offset_that_is_nearest_to_now(
    tmp_path: Path, master: MasterKey
) -> None:
    step = shared_step()
    with Host(tmp_path / "state.db", master, step * 30.0) as host:
        host.load()
        code = reference_code(SEED, step)
        assert host.call("resync", first=code, second=code)["offset"] == 1
        assert not host.verify(step)
        assert not host.verify(step + 1)


# Who may, and when


def test_an_administrator_of_the_account_may_and_others_may_not(host: Host) -> None:
    host.load("other", OTHER_SEED)
    codes = {"first": reference_code(SEED, host.step(), EIGHT)}
    codes["second"] = reference_code(SEED, host.step() + 1, EIGHT)
    with pytest.raises(Forbidden):
        host.call("resync", ADMIN_OF_ONE, account="other", **codes)
    with pytest.raises(Forbidden):
        host.call("resync", USER, **codes)
    assert host.call("resync", ADMIN_OF_ONE, **codes) == {"account": "default", "offset": 1}


def test_an_account_that_does_not_exist_is_said(host: Host) -> None:
    with pytest.raises(NoSuchAccount):
        host.call("resync", account="nobody", first="123456", second="123456")


def test_while_the_clock_is_behind_nothing_is_resynchronised(host: Host) -> None:
    host.set(START - HOUR)
    with pytest.raises(Unavailable):
        resync(host, 0, 1)


# What follows


@pytest.mark.parametrize("again", [Host.restart, Host.kill, Host.reboot])
def test_the_offset_and_the_watermark_outlive_the_daemon(host: Host, again: Callable[[Host], None]) -> None:
    assert resync(host, 3, 4) == 4
    again(host)
    host.wall += 90  # for the floors
    assert host.call("accounts")[0]["offset"] == 4
    assert accepted(host) == [3, 4, 5]


def test_loading_the_same_seed_keeps_the_offset_and_another_seed_has_none(host: Host) -> None:
    resync(host, 3, 4)
    host.load(of=EIGHT)
    assert host.call("accounts")[0]["offset"] == 4
    host.load(of=Parameters(digits=7))
    assert host.call("accounts")[0]["offset"] == 4
    host.load(seed=OTHER_SEED, of=EIGHT)
    assert host.call("accounts")[0]["offset"] == 0


def test_generate_makes_the_code_of_now_whatever_the_offset(host: Host) -> None:
    resync(host, 3, 4)
    assert host.call("generate")["code"] == reference_code(SEED, host.step(), EIGHT)


def remove(host: Host) -> None:
    host.call("remove")


def replace(host: Host) -> None:
    host.load(seed=OTHER_SEED)


def promote(host: Host) -> None:
    host.call("load", sealed=sealed(OTHER_SEED), successor=True)
    host.wait(120)
    assert host.verify(host.step(), seed=OTHER_SEED)


def cut_over(host: Host) -> None:
    host.call("load", sealed=sealed(OTHER_SEED), successor=True, deadline=int(host.wall) + 60, cutover=True)
    host.wait(120)
    host.keep(*[edit for edit, _ in host.agent.due(host.reading)])


def succeed_after_a_cutover(host: Host) -> None:
    host.call("load", sealed=sealed(OTHER_SEED), successor=True, deadline=int(host.wall) + 60, cutover=True)
    host.wait(120)
    host.call("load", sealed=sealed(bytes(20)), successor=True)


def succeed_itself_after_a_cutover(host: Host) -> None:
    host.call("load", sealed=sealed(OTHER_SEED), successor=True, deadline=int(host.wall) + 60, cutover=True)
    host.wait(120)
    of = EIGHT
    host.call(
        "load",
        sealed=sealed(SEED),
        successor=True,
        algorithm=of.algorithm,
        digits=of.digits,
        period=of.period,
    )
    before = host.keyring.accounts["default"].seeds[1].offset
    host.restart()
    assert host.keyring.accounts["default"].seeds[1].offset == before  # in memory as on disk


def resynchronise_after_a_cutover(host: Host) -> None:
    host.call("load", sealed=sealed(OTHER_SEED), successor=True, deadline=int(host.wall) + 60, cutover=True)
    host.wait(120)
    now = host.step()
    codes = [reference_code(OTHER_SEED, step) for step in (now, now + 1)]
    host.call("resync", first=codes[0], second=codes[1])


@pytest.mark.parametrize(
    "leave",
    [
        remove,
        replace,
        promote,
        cut_over,
        succeed_after_a_cutover,
        succeed_itself_after_a_cutover,
        resynchronise_after_a_cutover,
    ],
)
def test_what_a_crash_took_back_stays_spent_when_the_seed_is_loaded_again(
    host: Host, tmp_path: Path, leave: Callable[[Host], None]
) -> None:
    resync(host, 4, 5)
    host.wait(60)
    assert host.verify(host.step() + 4, of=EIGHT)  # this raises the lease, which is synced
    files = {end: tmp_path / f"synced{end}" for end in ("", "-wal")}
    for end, copy in files.items():
        shutil.copy(f"{host.path}{end}", copy)
    used = host.step() + 6
    assert host.verify(used, of=EIGHT)  # covered by the lease: not synced
    host.store.close()
    for end, copy in files.items():
        shutil.copy(copy, f"{host.path}{end}")
    host.boot += 1
    host.start()
    leave(host)
    host.load(of=EIGHT)
    assert refused_when_they_come(host, [used], EIGHT) > 10
    assert host.verify(host.step(), of=EIGHT)


@pytest.mark.parametrize(("before", "after"), [(9, 0), (0, -3), (10, -10), (-10, 0)])
def test_another_offset_lets_go_of_nothing_that_was_used_before(host: Host, before: int, after: int) -> None:
    resync(host, before - 1, before)
    host.wait(60)
    used = [host.step() + before + step for step in (-1, 0, 1)]
    assert all(host.verify(step, of=EIGHT) for step in used)
    right = host.wall
    host.set(right + HOUR)  # the administrator believes that the prover is off
    resync(host, after - 1, after)
    host.set(right + 5)
    host.call("clock_accept")
    assert refused_when_they_come(host, used, EIGHT) > 20
    assert host.verify(host.step() + after, of=EIGHT)


def test_codes_that_a_prover_behind_used_ahead_stay_spent_with_another_offset(host: Host) -> None:
    resync(host, -11, -10)
    host.wait(60)
    right = host.wall
    host.set(right + HOUR)
    used = [host.step() + step for step in (-11, -10, -9)]
    assert all(host.verify(step, of=EIGHT) for step in used)
    host.set(right + 5)
    host.call("clock_accept")
    host.wait(60)
    resync(host, -1, 0)
    refused_when_they_come(host, used, EIGHT)
    host.wait(60)
    assert host.verify(host.step(), of=EIGHT)


# Drift


def test_the_drift_of_the_last_eight_acceptances_is_shown(host: Host) -> None:
    assert host.call("accounts")[0]["drift"] == []
    used = [0, 1, 1, -1, 0, 1, 1, 0, 0, -1]
    for number, step in enumerate(used, 1):
        host.wait(90)
        assert host.verify(host.step() + step, of=EIGHT)
        assert not host.verify(host.step() + step, of=EIGHT)
        assert host.call("accounts")[0]["drift"] == used[:number][-8:]
    host.kill()
    assert host.call("accounts")[0]["drift"] == used[-8:]


def test_the_drift_counts_from_now_and_not_from_the_offset(host: Host) -> None:
    resync(host, -8, -7)
    host.wait(60)
    assert host.verify(host.step() - 8, of=EIGHT)
    row = host.call("accounts")[0]
    assert (row["offset"], row["drift"]) == (-7, [-8])
    resync(host, 9, 10)
    assert host.call("accounts")[0]["drift"] == [-8]


@given(st.lists(st.integers(-3, 3), max_size=40))
@settings(max_examples=50)
def test_no_drift_ever_widens_or_moves_the_window(steps: list[int]) -> None:
    agent: Agent = make_agent(make_keyring({"default": SEED}, EIGHT))
    now = int(START // 30)
    for step in steps:
        now += 4
        reading = Reading(now * 30 + 15.0, now * 30.0)
        code = reference_code(SEED, now + step, EIGHT)
        assert is_valid(agent, code, reading) is (abs(step) <= 1)

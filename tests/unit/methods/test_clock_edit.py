"""A wall clock that was set back or had been ahead: what `verify` does, and what `clock_accept` mends."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import OTHER_SEED, SEED, reference_code
from support.host import Host, refused_when_they_come, seconds_until_good

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import Unavailable
from pki2fad.host.users import Users
from pki2fad.rules import clock
from pki2fad.rules.access import Access, Peer, Rule
from pki2fad.rules.authenticator import DRIFTS
from pki2fad.rules.otp import Parameters

HOUR = 3600
START = 1_700_000_040.0  # a whole minute


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    """A host with an account, ten seconds after the daemon's start."""
    with Host(tmp_path / "state.db", master, START) as host:
        host.load()
        host.wait(10)
        yield host


@pytest.fixture
def synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's clock is said to be synchronised."""
    file = tmp_path / "synchronized"
    file.touch()
    monkeypatch.setattr(clock, "_SYNCHRONISED", str(file))


def retry_after(host: Host, step: int, **args: Any) -> int:
    """After how many seconds `verify`, which is unavailable, may be repeated."""
    with pytest.raises(Unavailable) as refusal:
        host.verify(step, **args)
    assert refusal.value.retry_after is not None
    return refusal.value.retry_after


def state(path: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


# A clock that is behind


@pytest.mark.parametrize(("behind", "period"), [(31, 30), (61, 60), (HOUR, 30)])
def test_behind_by_more_than_the_window_verify_is_unavailable(host: Host, behind: int, period: int) -> None:
    of = Parameters(period=period)
    host.load(of=of)
    host.set(START - behind)
    assert retry_after(host, host.step(period), of=of) == behind + 10
    assert host.call("status")["clock_behind"] == behind + 10
    assert host.call("status")["unavailable_until"] == START + 10


@pytest.mark.parametrize(("behind", "period"), [(30, 30), (45, 60), (120, 120)])
def test_behind_by_no_more_than_the_window_verify_goes_on(host: Host, behind: int, period: int) -> None:
    of = Parameters(period=period)
    host.load(of=of)
    host.set(START + 10 - behind)
    assert host.verify(host.step(period), of=of)


def test_a_clock_that_is_behind_is_good_again_when_the_mark_is_passed(host: Host) -> None:
    host.set(START - HOUR)
    for _ in range(3):
        host.wait(retry_after(host, host.step()) - 100)
        assert 0 < retry_after(host, host.step()) <= 100
    host.wait(100)
    assert host.verify(host.step())
    assert host.call("status")["unavailable_until"] is None


@pytest.mark.parametrize("again", [Host.restart, Host.kill, Host.reboot])
def test_a_clock_that_is_set_back_while_nothing_runs_is_seen(
    host: Host, again: Callable[[Host], None]
) -> None:
    host.wait(400)  # so that it is on record
    host.wall -= HOUR
    again(host)
    assert retry_after(host, host.step()) > HOUR - 310


def test_generate_goes_on_while_verify_waits(host: Host) -> None:
    host.set(START - HOUR)
    code = host.call("generate")
    assert code["step"] == host.step()
    with pytest.raises(Unavailable, match="clock accept"):
        host.call("verify", code=code["code"])


def test_a_clock_that_is_accepted_is_good_at_once_and_after_a_restart(host: Host) -> None:
    host.set(START - HOUR)
    accepted = host.call("clock_accept")
    assert accepted == {"time": START - HOUR, "spent_from": None, "spent_until": None}
    assert host.call("status")["clock_behind"] == 0
    assert host.verify(host.step())
    host.kill()
    assert host.call("status")["clock_behind"] == 0
    assert host.verify(host.step() + 1)


def test_codes_from_before_it_was_set_back_stay_spent(host: Host) -> None:
    used = host.step()
    assert host.verify(used)
    host.set(START - HOUR)
    accepted = host.call("clock_accept")
    assert host.wall < accepted["spent_from"] <= START
    assert accepted["spent_until"] == (used + 1) * 30
    assert seconds_until_good(host) <= 60
    assert refused_when_they_come(host, [used])
    assert host.verify(host.step())


def test_set_back_within_the_time_it_has_run_there_is_nothing_to_mend(host: Host) -> None:
    host.wait(500)
    used = host.step()
    assert host.verify(used)
    host.set(host.wall - 300)
    accepted = host.call("clock_accept")
    assert accepted["spent_from"] == int(host.wall)
    wait = retry_after(host, host.step())
    assert wait > 300
    assert host.wall < accepted["spent_until"] <= host.call("status")["unavailable_until"]
    host.wait(wait)
    assert not host.verify(used)
    assert host.verify(host.step())


# A clock that was ahead


def use_ahead(host: Host, ahead: float) -> list[int]:
    """Set the clock ahead, use all codes of a minute and a half, and set it right; returns their steps."""
    host.set(host.wall + ahead)
    used: list[int] = []
    for _ in range(3):
        for step in range(host.step() - 1, host.step() + 2):
            if step not in used:
                assert host.verify(step)
                used.append(step)
        host.wait(30)
    host.set(host.wall - ahead)
    return used


def test_without_accepting_an_account_waits_until_its_codes_are_new(host: Host) -> None:
    use_ahead(host, HOUR)
    assert retry_after(host, host.step()) == pytest.approx(HOUR, abs=90)  # its watermark is there
    until = host.call("status")["unavailable_until"]
    assert until == pytest.approx(host.wall + HOUR, abs=90)
    host.load("other", OTHER_SEED)
    assert host.verify(host.step(), "other", OTHER_SEED)  # nothing is known against the clock
    host.wait(until - host.wall)
    assert host.verify(host.step() + 1)
    assert host.call("status")["unavailable_until"] is None


def test_a_clock_that_was_set_back_tells_who_may_only_verify_nothing_of_an_account(host: Host) -> None:
    use_ahead(host, HOUR)
    peer = Peer(1, 4711, frozenset())
    host.agent.access = Access([Rule("verify", (4711,))], 0, Users())
    answers = [host.call("verify", peer, account=name, code="000000") for name in ("default", "nobody")]
    assert answers == [{"valid": False}] * 2


def test_small_slews_make_nothing_unavailable(host: Host) -> None:
    assert host.verify(host.step() + 1)
    for seconds in (-1.0, -10.0, -15.0):
        host.set(host.wall + seconds)
        assert not host.verify(host.step())
        assert host.call("status")["unavailable_until"] is None


@pytest.mark.usefixtures("synchronised")
def test_a_synchronised_clock_that_was_ahead_is_behind_then(host: Host) -> None:
    use_ahead(host, HOUR)
    assert host.call("status")["clock"] == "synchronised"
    assert host.call("status")["clock_behind"] >= HOUR
    assert retry_after(host, host.step()) >= HOUR
    host.call("clock_accept")
    assert seconds_until_good(host) <= 60


@pytest.mark.parametrize("again", [Host.wait, Host.restart, Host.kill, Host.reboot])
def test_after_accepting_codes_are_good_again_and_those_used_ahead_are_not(
    host: Host, again: Callable[..., None]
) -> None:
    used = use_ahead(host, HOUR)
    accepted = host.call("clock_accept")
    assert accepted["spent_from"] <= min(used) * 30
    assert accepted["spent_until"] == (max(used) + 1) * 30
    if again is Host.wait:
        host.wait(60)
    else:
        host.wall += 60
        again(host)
        host.wait(60)  # for the floors
    assert host.call("status")["unavailable_until"] is None
    assert host.verify(host.step())
    assert not host.verify(host.step())
    host.wait(30)
    assert host.verify(host.step())
    assert refused_when_they_come(host, used) > 50
    host.wait(60)
    assert host.verify(host.step())


def test_within_two_periods_of_accepting_a_code_is_good(host: Host) -> None:
    use_ahead(host, HOUR)
    host.call("clock_accept")
    assert seconds_until_good(host) <= 60
    host.load("other", OTHER_SEED)
    assert seconds_until_good(host, account="other", seed=OTHER_SEED) == 0


@pytest.mark.parametrize("ahead", [70, 100, 180, 230, 500])
def test_codes_that_were_used_a_few_minutes_ahead_stay_spent_too(host: Host, ahead: int) -> None:
    host.set(host.wall + ahead)
    used = [host.step() - 1, host.step(), host.step() + 1]
    assert [host.verify(step) for step in used] == [True] * 3
    host.set(host.wall - ahead + 2)
    host.call("clock_accept")
    assert refused_when_they_come(host, used)
    host.wait(60)
    assert host.verify(host.step())


def test_the_state_comes_down_to_the_end_of_the_window(host: Host) -> None:
    host.load("minutes", OTHER_SEED, Parameters(period=60))
    host.load("gone", OTHER_SEED)
    host.set(host.wall + HOUR)
    assert host.verify(host.step())
    assert host.verify(host.step(60), "minutes", OTHER_SEED, Parameters(period=60))
    assert host.verify(host.step(), "gone", OTHER_SEED)
    host.call("remove", account="gone")
    host.boot += 1
    host.restart()  # the floors rise to the leases
    host.set(host.wall - HOUR + 2)
    host.call("clock_accept")
    ends = {period: (host.step(period) + 2) * period for period in (30, 60)}
    assert dict(state(host.path, "SELECT period, lease FROM periods")) == ends
    assert dict(state(host.path, "SELECT period, floor FROM periods")) == ends
    assert state(host.path, "SELECT (last_step + 1) * period, period FROM accounts ORDER BY period") == [
        (end, period) for period, end in ends.items()
    ]
    assert state(host.path, "SELECT last_step FROM gone") == [(host.step() + 11,)]
    for again in (Host.wait, Host.kill):
        again(*((host, 0) if again is Host.wait else (host,)))
        assert host.keyring.floors == ends
        assert {name: one.last_step for name, one in host.keyring.accounts.items()} == {
            "default": host.step() + 1,
            "minutes": host.step(60) + 1,
        }
        assert [step for step, _ in host.keyring.gone.values()] == [host.step() + 11]


def test_a_machine_that_started_with_its_clock_far_ahead_is_mended(host: Host) -> None:
    assert host.verify(host.step())
    host.wall += 10 * 365 * 86_400
    host.reboot()
    host.wait(5)
    host.set(START + 100)
    assert retry_after(host, host.step()) > 9 * 365 * 86_400  # before the floor
    host.call("clock_accept")
    assert seconds_until_good(host) <= 60


def test_codes_of_a_seed_that_was_removed_ahead_stay_spent(host: Host) -> None:
    used = use_ahead(host, HOUR)
    host.call("remove")
    host.call("clock_accept")
    host.load()
    assert seconds_until_good(host) <= 13 * 30  # a removed prover may have been ten steps ahead
    assert refused_when_they_come(host, used)


def test_accepting_once_more_lets_go_of_nothing(host: Host) -> None:
    used = use_ahead(host, HOUR)
    host.call("clock_accept")
    for moment in (2 * HOUR, HOUR // 2):  # it passes by itself, is accepted, set back and accepted again
        host.wait(max(0, START + moment - host.wall))
        host.set(START + moment)
        host.call("clock_accept")
        host.kill()
    assert refused_when_they_come(host, used)


def test_codes_that_were_used_between_two_looks_at_the_clock_stay_spent(host: Host) -> None:
    right = host.wall
    host.wall += HOUR
    used = host.step()
    assert host.verify(used)
    host.set(right + 1)
    host.call("clock_accept")
    assert refused_when_they_come(host, [used])


def test_codes_since_the_clock_was_last_written_down_stay_spent(host: Host) -> None:
    host.wait(290)
    used = host.step()
    assert host.verify(used)
    host.wall -= 200
    host.kill()
    host.call("clock_accept")
    assert refused_when_they_come(host, [used])


@pytest.mark.parametrize("seen", [False, True], ids=["not looked at", "looked at once"])
def test_codes_that_were_used_before_the_daemon_was_killed_stay_spent(host: Host, seen: bool) -> None:
    right = host.wall
    if seen:
        host.set(right + HOUR)
        host.wall += 200
        host.uptime += 200
    else:
        host.wall += HOUR
    used = host.step()
    assert host.verify(used)
    host.wall = right + 2
    host.kill()
    host.set(right + 2 * HOUR)  # what is known of this is not to hide the other
    assert host.verify(host.step())
    host.set(right + 5)
    host.call("clock_accept")
    assert refused_when_they_come(host, [used])


@pytest.mark.parametrize("returned", [False, True], ids=["the same account", "a seed that came back"])
def test_a_prover_that_was_ahead_before_the_clock_was_keeps_its_codes_spent(
    host: Host, returned: bool
) -> None:
    begun = host.step()
    first, second = (reference_code(SEED, begun + step) for step in (9, 10))
    host.call("resync", first=first, second=second)
    used = begun + 11
    assert host.verify(used)
    right = host.wall
    host.set(right + 10 * HOUR)
    if returned:
        host.call("remove")
        host.load()
    host.call("resync", first=reference_code(SEED, host.step() - 1), second=reference_code(SEED, host.step()))
    for _ in range(DRIFTS + 2):  # its drift of before is forgotten, but for the furthest
        host.wait(30)
        assert host.verify(host.step())
    host.set(right + 120)
    host.call("clock_accept")
    assert refused_when_they_come(host, [used]) > 0


def test_where_the_clock_was_for_a_moment_is_noted_when_a_code_is_accepted_there(host: Host) -> None:
    right = host.wall
    host.wall, host.uptime = right + 100, host.uptime + 0.1  # nobody looks meanwhile
    used = host.step()
    assert host.verify(used)
    host.set(right + 10 * HOUR)
    assert host.verify(host.step())
    host.set(right + 30)
    host.call("clock_accept")
    refused_when_they_come(host, [used])

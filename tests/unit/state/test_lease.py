"""Crashes of the machine: what was not synced is lost, and no code is accepted twice all the same."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from support.agents import (
    NOW,
    ROOT,
    SEED,
    STEP,
    Syncs,
    at,
    at_step,
    booted,
    call,
    fill_disk,
    is_valid,
    reference_code,
    sealed,
    small_disk,
)
from support.stores import keep

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import Unavailable, UnusableState
from pki2fad.methods.agent import Agent
from pki2fad.rules.changes import KeyEdit, RecoverySpend
from pki2fad.rules.clock import Reading
from pki2fad.rules.otp import Parameters
from pki2fad.state.store import Store
from pki2fad.wire.messages import Request


def load(agent: Agent, store: Store, period: int = 30) -> None:
    """An account that is named by its period."""
    call(agent, "load", ROOT, NOW, store=store, account=str(period), sealed=sealed(SEED), period=period)


def accept(agent: Agent, store: Store, reading: Reading, period: int = 30, offset: int = 0) -> bool:
    code = reference_code(SEED, int(reading.wall // period) + offset, Parameters(period=period))
    return is_valid(agent, code, reading, store=store, account=str(period))


def leases(path: Path) -> dict[int, int]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT period, lease FROM periods"))


@pytest.fixture
def used(path: Path, master: MasterKey) -> Path:
    """The state file of an account that has just accepted a code in "this boot"."""
    with booted(path, master, NOW) as (agent, store):
        load(agent, store)
        assert accept(agent, store, NOW)
    return path


def floors(path: Path, boot_id: str | None, reading: Reading) -> dict[int, int]:
    """The floors of a start."""
    with contextlib.closing(Store(str(path))) as store:
        store.begin_boot(boot_id, reading)
        return store.floors()


# Which start raises the floors


def test_the_first_start_raises_no_floor(path: Path) -> None:
    assert floors(path, "this boot", NOW) == {}
    assert floors(path, "this boot", NOW) == {}


def test_a_restart_in_the_same_boot_raises_no_floor(used: Path, master: MasterKey) -> None:
    with booted(used, master, NOW) as (agent, store):
        assert agent.unavailable_until(NOW) is None
        assert not accept(agent, store, NOW)
        assert accept(agent, store, NOW, offset=1)


@pytest.mark.parametrize("boot_id", ["another boot", None])
def test_a_start_in_another_or_an_unknown_boot_raises_the_floor_two_steps_ahead(
    used: Path, master: MasterKey, boot_id: str | None
) -> None:
    with booted(used, master, NOW, boot_id) as (agent, store):
        with pytest.raises(Unavailable) as caught:
            accept(agent, store, NOW)
        assert caught.value.retry_after == 45  # from the middle of a step to the end of the next
        floor = (STEP + 2) * 30
        assert agent.unavailable_until(NOW) == floor
        assert not accept(agent, store, at(floor), offset=-1)
        assert accept(agent, store, at(floor))


def test_an_unreadable_boot_id_raises_the_floor_at_every_start(used: Path) -> None:
    for steps in range(3):
        assert floors(used, None, at_step(STEP + steps)) == {30: (STEP + steps + 2) * 30}
    assert floors(used, "this boot", at_step(STEP + 5)) == {30: (STEP + 7) * 30}


def test_floors_hold_also_after_later_restarts(used: Path) -> None:
    raised = {30: (STEP + 52) * 30}
    assert floors(used, "another boot", at_step(STEP + 50)) == raised
    assert floors(used, "another boot", at_step(STEP + 100)) == raised
    assert floors(used, "a third boot", at_step(STEP - 100)) == raised
    assert floors(used, "a fourth boot", at_step(STEP + 100)) == {30: (STEP + 102) * 30}


def test_the_start_of_another_boot_is_synced_and_one_in_the_same_boot_writes_nothing(used: Path) -> None:
    for boot_id, synced in (("another boot", 1), ("another boot", 0), (None, 1), (None, 1)):
        with contextlib.closing(Store(str(used))) as store:
            syncs = Syncs(store)
            store.begin_boot(boot_id, NOW)
            assert syncs.count() == synced


@pytest.mark.parametrize("wall", [0.0, NOW.wall - 3600, NOW.wall - 30])
def test_with_the_clock_back_the_floor_is_where_acceptances_ended(
    used: Path, master: MasterKey, wall: float
) -> None:
    with booted(used, master, at(wall), "another boot") as (agent, store):
        for reading in (at(wall), at_step(STEP - 1), at_step(STEP), at_step(STEP + 1)):
            with pytest.raises(Unavailable):
                accept(agent, store, reading)
        assert accept(agent, store, at_step(STEP + 2))


def test_a_period_that_was_never_used_waits_no_longer_than_two_steps(path: Path, master: MasterKey) -> None:
    with booted(path, master, NOW) as (agent, store):
        for period in (30, 120):
            load(agent, store, period)
        assert leases(path) == {30: 0, 120: 0}
    assert floors(path, "another boot", NOW) == {
        30: (STEP + 2) * 30,
        120: (STEP // 4 + 2) * 120,
    }


# How a lease is raised


def test_a_lease_covers_every_step_before_its_code_is_accepted(path: Path, master: MasterKey) -> None:
    with booted(path, master, NOW) as (agent, store):
        load(agent, store)
        for step in range(STEP, STEP + 20):
            for offset in (-1, 0, 1):
                if accept(agent, store, at_step(step), offset=offset):
                    assert leases(path)[30] >= (step + offset + 1) * 30


def test_one_sync_raises_the_leases_of_all_periods_for_a_step_of_the_shortest(
    path: Path, master: MasterKey
) -> None:
    with booted(path, master, NOW) as (agent, store):
        for period in (30, 60, 120):
            load(agent, store, period)
        syncs = Syncs(store)
        for step in range(STEP, STEP + 4):
            for period in (120, 30, 60):
                accept(agent, store, at_step(step), period)
            assert syncs.count() <= 1
        assert syncs.count() == 0


def test_a_lease_never_falls_when_the_clock_is_set_back(path: Path, master: MasterKey) -> None:
    with booted(path, master, NOW) as (agent, store):
        for period in (30, 60):
            load(agent, store, period)
        assert accept(agent, store, NOW)
        before = leases(path)
        assert accept(agent, store, at(NOW.wall - 3600), 60)
        assert leases(path) == before
        assert accept(agent, store, at(NOW.wall + 120), 60)
        assert all(lease > before[period] for period, lease in leases(path).items())


def test_without_acceptances_there_is_no_sync(path: Path, master: MasterKey) -> None:
    with booted(path, master, NOW) as (agent, store):
        load(agent, store)
        syncs = Syncs(store)
        for step in range(STEP, STEP + 100):
            call(agent, "generate", ROOT, at_step(step), account="30")
            assert not accept(agent, store, at_step(step), offset=2)
        assert syncs.count() == 0


def test_an_edit_is_synced(path: Path, master: MasterKey) -> None:
    with booted(path, master, NOW) as (agent, store):
        syncs = Syncs(store)
        load(agent, store)
        assert syncs.count() == 1
        call(agent, "remove", ROOT, NOW, store=store, account="30")
        assert syncs.count() == 1


def test_used_recovery_codes_are_synced_once_for_all_of_a_turn(path: Path, master: MasterKey) -> None:
    with booted(path, master, NOW) as (agent, store):
        load(agent, store)
        codes = call(agent, "recovery_create", ROOT, NOW, store=store, account="30")["codes"]
        assert accept(agent, store, NOW)  # which raises the lease
        syncs = Syncs(store)
        assert accept(agent, store, NOW, offset=1)
        assert syncs.count() == 0
        requests = [Request(1, "verify", {"account": "30", "code": code}) for code in codes]
        changes = [agent.handle(request, ROOT, NOW).change for request in requests]
        assert keep(store, [change for change in changes if change is not None]) == [True] * 10
        assert syncs.count() == 1
        assert keep(store, [RecoverySpend("30", 1), RecoverySpend("nobody", 1)]) == [False, False]


def test_a_lease_that_could_not_be_kept_is_raised_by_the_next_acceptance(
    tmp_path: Path, master: MasterKey
) -> None:
    with small_disk(tmp_path), booted(tmp_path / "state.db", master, NOW) as (agent, store):
        load(agent, store)
        fill_disk(tmp_path / "filler")
        with pytest.raises(UnusableState):
            accept(agent, store, NOW)
        (tmp_path / "filler").unlink()
        syncs = Syncs(store)
        assert accept(agent, store, NOW, offset=1)
        assert syncs.count() == 1
        assert leases(tmp_path / "state.db")[30] >= (STEP + 2) * 30


# A new state file for accounts that are not new


def test_a_new_state_file_can_distrust_periods_that_may_have_been_in_use(
    path: Path, master: MasterKey
) -> None:
    floor = (STEP + 2) * 30
    with contextlib.closing(Store(str(path))) as store:
        syncs = Syncs(store)
        keep(store, [KeyEdit({"SHA256:a": b"wrapped"}, {30: floor})])
        assert syncs.count() == 1
    for _ in range(2):
        with booted(path, master, NOW) as (agent, store):
            for period in (30, 60):
                load(agent, store, period)
            with pytest.raises(Unavailable):
                accept(agent, store, NOW)
    with booted(path, master, NOW) as (agent, store):
        assert accept(agent, store, NOW, 60)
        assert not accept(agent, store, at(floor), offset=-1)
        assert accept(agent, store, at(floor))
        assert leases(path)[30] >= floor + 30


def test_a_new_state_file_distrusts_nothing_otherwise(path: Path, master: MasterKey) -> None:
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [KeyEdit({"SHA256:a": b"wrapped"})])
    with booted(path, master, NOW) as (agent, store):
        load(agent, store)
        assert accept(agent, store, NOW)

"""Loading, replacing and removing a successor, and what else it has to do with: clock, keys, state."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.agents import (
    OTHER_SEED,
    ROOT,
    SEED,
    STARTED,
    STEP,
    Syncs,
    at,
    at_step,
    call,
    make_agent,
    make_keyring,
    reference_code,
    sealed,
)
from support.host import Host
from support.successors import HOUR, NEW, in_hours, listed, new_is_good, old_is_good, rows, succeed, use_due

from pki2fad.errors import AccountExists, BadRequest, NoSuchAccount, Throttled, Unavailable, UnusableState
from pki2fad.methods.agent import Agent
from pki2fad.rules import otp
from pki2fad.rules.otp import Parameters
from pki2fad.rules.throttle import Throttle
from pki2fad.state.database import APPLICATION_ID
from pki2fad.state.schema import MIGRATIONS
from pki2fad.transfer.entry import associated

THIRD_SEED = b"third seed, 20 bytes"


# Loading


def test_there_is_no_successor_of_no_account(host: Host) -> None:
    with pytest.raises(NoSuchAccount):
        succeed(host, account="nobody")


@pytest.mark.parametrize("digits", [6, 8])
def test_the_accounts_own_seed_cannot_be_its_successor(host: Host, digits: int) -> None:
    with pytest.raises(BadRequest, match="this seed already"):
        succeed(host, SEED, Parameters(digits=digits))
    assert succeed(host, SEED, Parameters("SHA256"))  # makes other codes


@pytest.mark.parametrize(
    "args",
    [
        {"successor": True, "cutover": True},
        {"successor": True, "deadline": 0},
        {"successor": True, "deadline": int(at_step(STEP).wall)},
        {"successor": True, "deadline": 253_402_300_800},
        {"successor": True, "deadline": 2**63},
        {"successor": True, "deadline": 1e10 + 0.5},
        {"successor": 1},
        {"deadline": 253_402_300_799},
        {"cutover": True},
    ],
    ids=str,
)
def test_arguments_that_make_no_sense_are_a_bad_request(host: Host, args: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        host.call("load", sealed=sealed(OTHER_SEED), replace=True, **args)
    assert listed(host)["successor"] is None
    assert old_is_good(host)


def test_the_same_successor_again_changes_nothing_and_another_needs_replace(host: Host) -> None:
    deadline = in_hours(host, 1)
    assert succeed(host, deadline=deadline)
    assert not succeed(host, deadline=deadline)
    for args in ({}, {"deadline": deadline + 1}, {"deadline": deadline, "cutover": True}):
        with pytest.raises(AccountExists, match="successor already"):
            succeed(host, **args)
    with pytest.raises(AccountExists):
        succeed(host, THIRD_SEED, deadline=deadline)
    assert succeed(host, THIRD_SEED, replace=True)
    assert not new_is_good(host)
    assert host.verify(host.step(60), seed=THIRD_SEED, of=NEW)


def test_a_successor_whose_deadline_has_passed_needs_no_replace(host: Host) -> None:
    succeed(host, deadline=in_hours(host, 1))
    host.wait(HOUR)
    assert succeed(host, THIRD_SEED)
    assert not new_is_good(host)
    assert old_is_good(host)


def test_after_the_cutover_a_successor_is_that_of_the_new_seed(host: Host) -> None:
    succeed(host, deadline=in_hours(host, 1), cutover=True)
    host.wait(HOUR)
    with pytest.raises(BadRequest):
        succeed(host)
    assert succeed(host, THIRD_SEED)
    assert not old_is_good(host)
    assert new_is_good(host)
    assert host.verify(host.step(60), seed=THIRD_SEED, of=NEW)


def test_the_watermark_of_a_successor_is_its_seeds_of_before(host: Host) -> None:
    host.load(seed=OTHER_SEED, of=NEW)
    assert new_is_good(host)
    host.load()
    succeed(host)
    assert not new_is_good(host)
    assert listed(host)["successor"] is not None
    assert new_is_good(host, 1)


# Plain loads and removal


def test_the_same_plain_load_leaves_the_successor(host: Host) -> None:
    succeed(host)
    assert not host.call("load", sealed=sealed(SEED))["changed"]
    host.keep(host.agent.provision("default", sealed(SEED), b"digest", host.reading))
    assert listed(host)["successor"] is not None
    host.kill()
    assert new_is_good(host)


def test_replacing_the_seed_by_itself_drops_the_successor(host: Host) -> None:
    succeed(host)
    assert host.call("load", sealed=sealed(SEED), replace=True)["changed"]
    assert not host.call("load", sealed=sealed(SEED), replace=True)["changed"]
    for _ in range(2):
        assert listed(host)["successor"] is None
        assert not new_is_good(host)
        assert host.verify(host.step())
        host.wait(30)
        host.kill()


@pytest.mark.parametrize("by_file", [False, True])
def test_a_plain_load_of_another_seed_drops_the_successor(host: Host, by_file: bool) -> None:
    succeed(host)
    assert old_is_good(host)
    if by_file:
        host.keep(host.agent.provision("default", sealed(THIRD_SEED), b"digest", host.reading))
    else:
        host.load(seed=THIRD_SEED)
    assert listed(host)["successor"] is None
    assert not new_is_good(host)
    assert not old_is_good(host)
    assert host.verify(STEP, seed=THIRD_SEED)
    host.load()
    assert not old_is_good(host)


def test_a_plain_load_of_the_successor_needs_replace_and_is_the_cutover(host: Host) -> None:
    succeed(host)
    with pytest.raises(AccountExists):
        host.call("load", sealed=sealed(OTHER_SEED), algorithm="SHA256", digits=8, period=60)
    host.load(seed=OTHER_SEED, of=NEW)
    assert not old_is_good(host)
    assert new_is_good(host)


def test_after_the_cutover_a_plain_load_of_the_new_seed_changes_nothing(host: Host) -> None:
    succeed(host, deadline=in_hours(host, 1), cutover=True)
    host.wait(HOUR)
    args = {"algorithm": "SHA256", "digits": 8, "period": 60}
    assert not host.call("load", sealed=sealed(OTHER_SEED), **args)["changed"]
    with pytest.raises(AccountExists):
        host.call("load", sealed=sealed(SEED))


def test_removing_the_account_removes_both_and_both_stay_spent(host: Host) -> None:
    host.load(seed=OTHER_SEED, of=NEW)
    assert new_is_good(host)
    host.load()
    assert old_is_good(host)
    succeed(host)
    host.call("remove")
    assert rows(host.path, "successors") == 0
    host.kill()
    for seed, of in ((SEED, otp.Parameters()), (OTHER_SEED, NEW)):
        host.load(seed=seed, of=of)
        assert listed(host)["successor"] is None
        assert not host.verify(host.step(of.period), seed=seed, of=of)


# Throttling


def test_a_failure_costs_the_steps_of_both_seeds() -> None:
    """Six failures fit, and 3 units drain in a day: one failure with one seed, half of one with two."""
    now = STARTED
    agent = make_agent(make_keyring({"default": SEED}), throttle=Throttle(b"secret", (), now))
    deadline = int(now.wall) + HOUR
    call(agent, "load", ROOT, now, sealed=sealed(OTHER_SEED), successor=True, deadline=deadline)
    for waited in (0, 0, 0, 0, 60, 180):
        assert call(agent, "verify", ROOT, at(now.wall + waited), code="00000000") == {"valid": False}
    assert throttled_for(agent, now.wall + 180) == 2 * 86_400 - 180
    assert throttled_for(agent, deadline) == 2 * 86_400 - HOUR  # its failures stay what they were


def throttled_for(agent: Agent, wall: float) -> int | None:
    """The seconds for which not even a right code is answered."""
    with pytest.raises(Throttled) as caught:
        call(agent, "verify", ROOT, at(wall), code=reference_code(SEED, int(wall) // 30))
    return caught.value.retry_after


# The clock, the keys, the state file


def test_clock_accept_brings_the_watermarks_of_both_down(host: Host) -> None:
    right = host.wall
    host.load(seed=OTHER_SEED, of=NEW)
    host.set(right + 24 * HOUR)
    assert new_is_good(host)
    host.load()
    succeed(host)
    host.set(right)
    with pytest.raises(Unavailable, match="clock accept"):
        new_is_good(host)
    assert host.call("clock_accept")["spent_until"] > right + 24 * HOUR
    for _ in range(2):
        watermark = host.keyring.accounts["default"].seeds[1].last_step
        # It was the account's before: how far ahead its prover was is not known any more.
        assert watermark == otp.step_at(right, 60) + otp.WINDOW + otp.MAX_OFFSET
        host.kill()
    host.wait(180 + otp.MAX_OFFSET * 60)
    assert new_is_good(host)


def test_a_lock_leaves_no_code_of_the_successor_in_memory() -> None:
    keyring = make_keyring({"default": SEED})
    agent = make_agent(keyring)
    call(agent, "load", ROOT, at_step(STEP), sealed=sealed(OTHER_SEED), successor=True)
    assert call(agent, "verify", ROOT, at_step(STEP), code="00000000") == {"valid": False}
    seeds = keyring.accounts["default"].seeds
    assert [len(seed.codes) for seed in seeds] == [3, 3]
    call(agent, "lock", ROOT, at_step(STEP))
    assert [seed.codes for seed in seeds] == [(), ()]


def test_a_promotion_and_what_is_due_are_synced(host: Host) -> None:
    syncs = Syncs(host.store)
    succeed(host)
    assert syncs.count() == 1
    assert new_is_good(host)
    assert syncs.count() == 1
    succeed(host, THIRD_SEED, deadline=in_hours(host, 1))
    host.wait(HOUR)
    syncs.count()
    assert use_due(host) == 1
    assert syncs.count() == 1


def test_the_state_of_before_there_were_successors_is_taken_over(host: Host, tmp_path: Path) -> None:
    assert old_is_good(host)
    host.store.close()
    before = tmp_path / "before.db"
    (account,) = host.keyring.accounts.values()
    sealed = host.keyring.resealed(account, host.keyring.master, associated("default", account.parameters))
    with contextlib.closing(sqlite3.connect(before)) as database:
        for migration in MIGRATIONS[:3]:
            database.executescript(migration)
        database.execute(
            "INSERT INTO accounts VALUES ('default', 'SHA1', 6, 30, ?, ?, ?, 0, 0, x'', 0, x'')",
            (sealed, account.digest, account.last_step),
        )
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute("PRAGMA user_version = 3")
        database.commit()
    host.path = before
    host.start()
    assert not old_is_good(host)
    assert succeed(host)
    host.kill()
    assert new_is_good(host)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("algorithm", "MD5"),
        ("digits", 9),
        ("period", 121),
        ("last_step", 1.5),
        ("sealed", "text"),
        ("fixed", 7),
        ("deadline", "soon"),
        ("cutover", "yes"),
    ],
)
def test_a_row_that_can_be_no_successor_is_damage_of_a_named_account(
    host: Host, column: str, value: object
) -> None:
    succeed(host)
    with contextlib.closing(sqlite3.connect(host.path, isolation_level=None)) as database:
        database.execute(f"UPDATE successors SET {column} = ?", (value,))
    with pytest.raises(UnusableState, match=r"damaged \(successor of account 'default'"):
        list(host.store.accounts())

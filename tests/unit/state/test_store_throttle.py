"""What the state file keeps of failures, and of who gave a right code."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import (
    ROOT,
    SEED,
    STARTED,
    USUAL,
    Syncs,
    at,
    call,
    make_agent,
    make_keyring,
    reference_code,
    sealed,
)
from support.stores import keep

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadRequest, Throttled, UnusableState
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer, Rule
from pki2fad.rules.account import Account
from pki2fad.rules.changes import Edit, Failure, Spend, WatchEdit
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.tally import Level, Tally
from pki2fad.rules.throttle import Throttle
from pki2fad.state.database import APPLICATION_ID
from pki2fad.state.schema import MIGRATIONS
from pki2fad.state.store import Store
from pki2fad.transfer.entry import associated

STEP = int(STARTED.wall) // 30 + 2
NOW = at(STEP * 30 + 15)
RELAY = Peer(1, 5001, frozenset())
RULES = (Rule("verify", (5001,)), Rule("relay", (5001,)))
DAY = 86_400
VECTORS = Path(__file__).parents[2] / "vectors"


@contextlib.contextmanager
def run(path: Path, master: MasterKey) -> Iterator[tuple[Agent, Store]]:
    """One run of an agent that throttles, filled from the state file as the service does it."""
    with contextlib.closing(Store(str(path))) as store:
        throttle = Throttle(store.throttle_secret(), store.throttle_slots(), NOW)
        keyring = Keyring(master)
        for account in store.accounts():
            account.tally = throttle.as_loaded(account.tally)
            keyring.put(account)
        agent = make_agent(keyring, RULES, throttle=throttle)
        if not keyring.accounts:
            call(agent, "load", ROOT, NOW, store=store, sealed=sealed(SEED))
        yield agent, store


def verify(run: tuple[Agent, Store], code: str = "000000", days: float = 0, **arguments: Any) -> bool:
    agent, store = run
    reading = at(NOW.wall + days * DAY)
    return bool(call(agent, "verify", RELAY, reading, store=store, code=code, **arguments)["valid"])


def told_wait(run: tuple[Agent, Store], **arguments: Any) -> int | None:
    with pytest.raises(Throttled) as caught:
        verify(run, **arguments)
    return caught.value.retry_after


# Its time


def begin(
    path: Path, boot_id: str, wall: float, boot: float, *, until: float = 0.0, set_by: float = 0.0
) -> float:
    """A run of the daemon: the throttle's time at its start. It ends `until` seconds later, in good order."""
    with contextlib.closing(Store(str(path))) as store:
        reading = Reading(wall, boot)
        watch = store.watch(reading)
        now = store.begin_boot(boot_id, reading)
        keep(store, [WatchEdit(watch.mark, watch.last, watch.stretches)])
        if until:
            watch.look(Reading(wall + until + set_by, boot + until), None)
            keep(store, [WatchEdit(watch.mark, watch.last, watch.stretches)])
        return now


def test_a_clock_that_is_set_while_the_daemon_runs_ages_no_failure(path: Path) -> None:
    behind = NOW.wall - 60 * DAY  # as a machine without a clock of its own starts
    first = begin(path, "one", behind, 10.0, until=100.0, set_by=60 * DAY)
    assert begin(path, "one", NOW.wall + 150, 160.0) == pytest.approx(first + 150)
    assert begin(path, "one", NOW.wall - 30 * DAY, 170.0) == pytest.approx(first + 160)


def test_while_the_machine_is_off_failures_age_by_the_wall_clock(path: Path) -> None:
    first = begin(path, "one", NOW.wall, 10.0, until=100.0)
    assert begin(path, "two", NOW.wall + 100 + DAY, 5.0, until=50.0) == pytest.approx(first + 100 + DAY)
    assert begin(path, "three", NOW.wall, 5.0) == pytest.approx(first + 150 + DAY)  # behind: none at all


# What is kept


@pytest.mark.parametrize("account", ["default", "missing"])
@pytest.mark.parametrize("known", [False, True])
def test_who_failed_too_often_waits_after_a_restart_too(
    path: Path, master: MasterKey, account: str, known: bool
) -> None:
    with run(path, master) as first:
        if known:
            assert verify(first, reference_code(SEED, STEP))
        for _ in range(4):
            assert not verify(first, account=account)
        assert told_wait(first, account=account) == 60
    with run(path, master) as second:
        assert told_wait(second, account=account) == 60
        assert not verify(second, account=account, origin="another")


@pytest.mark.parametrize("account", ["default", "missing"])
def test_the_ceiling_of_an_account_holds_after_a_restart(path: Path, master: MasterKey, account: str) -> None:
    with run(path, master) as first:
        for host in range(54):
            assert not verify(first, account=account, origin=f"host-{host}")
    with run(path, master) as second:
        assert told_wait(second, account=account, origin="another") == DAY // 9
        assert not verify(second, account="elsewhere", origin="another")


def test_who_gave_a_right_code_is_known_after_a_restart(path: Path, master: MasterKey) -> None:
    with run(path, master) as first:
        assert verify(first, reference_code(SEED, STEP), origin="known")
        for host in range(54):
            assert not verify(first, origin=f"host-{host}")
    with run(path, master) as second:
        assert told_wait(second, origin="unknown") is not None
        assert not verify(second, origin="known")
        assert verify(second, reference_code(SEED, STEP + 1), origin="known")


def test_a_success_clears_also_what_is_on_record(path: Path, master: MasterKey) -> None:
    with run(path, master) as first:
        assert verify(first, reference_code(SEED, STEP))
        for _ in range(3):
            assert not verify(first)
        assert verify(first, reference_code(SEED, STEP + 1))
    with run(path, master) as second:
        for _ in range(4):
            assert not verify(second)
        assert told_wait(second) == 60


def test_another_seed_takes_over_what_was_counted(path: Path, master: MasterKey) -> None:
    with run(path, master) as first:
        for host in range(54):
            assert not verify(first, origin=f"host-{host}")
        agent, store = first
        call(agent, "load", ROOT, NOW, store=store, sealed=sealed(b"another seed altogether"), replace=True)
    with run(path, master) as second:
        assert told_wait(second, origin="another") == DAY // 9


def test_the_secret_of_the_hashes_is_kept_and_is_each_files_own(path: Path) -> None:
    secrets = []
    for file in (path, path, path.with_name("other.db")):
        with contextlib.closing(Store(str(file))) as store:
            secrets.append(store.throttle_secret())
    assert secrets[0] == secrets[1] != secrets[2]
    assert [len(secret) for secret in secrets] == [32, 32, 32]


# How the store keeps it


def test_an_account_comes_back_with_its_tally(path: Path) -> None:
    account = make_keyring().seal("default", bytearray(SEED), USUAL)
    tally = Tally(Level(1.5, 2.25), bytes(range(41)))
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [Edit("default", NOW.wall, account)])
        assert [one.tally for one in store.accounts()] == [Tally()]
        slots = {7: Level(3.0, NOW.wall), 65_535: Level(18.0, 0.1, 12)}
        assert keep(store, [Failure("default", tally, slots), Failure("missing", None, {7: Level(6.0, 1.0)})])
        assert [one.tally for one in store.accounts()] == [tally]
    with contextlib.closing(Store(str(path))) as store:
        assert [one.tally for one in store.accounts()] == [tally]
        assert dict(store.throttle_slots()) == {**slots, 7: Level(6.0, 1.0)}


def test_a_spend_that_is_refused_marks_nobody(path: Path) -> None:
    account = make_keyring().seal("default", bytearray(SEED), USUAL)
    account.last_step = STEP
    marked = Spend("default", STEP, 30, NOW.wall, tally=Tally(Level(), bytes(40) + b"\3"))
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [Edit("default", NOW.wall, account)])
        assert keep(store, [marked]) == [False]
        assert [one.tally for one in store.accounts()] == [Tally()]
        assert keep(store, [marked._replace(step=STEP + 1)]) == [True]
        assert [one.tally for one in store.accounts()] == [marked.tally]


def test_a_failure_waits_for_no_disk(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        syncs = Syncs(store)
        assert keep(store, [Failure("missing", None, {1: Level(3.0, NOW.wall)})] * 10) == [True] * 10
        assert syncs.count() == 0


def test_a_failure_for_an_account_that_went_meanwhile_is_kept_for_who_failed(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        assert keep(store, [Failure("gone", Tally(Level(3.0, 1.0)), {1: Level(3.0, 1.0)})]) == [True]
        assert list(store.accounts()) == []
        assert dict(store.throttle_slots()) == {1: Level(3.0, 1.0)}


# Files of the first version


def make_first_version(path: Path, accounts: list[tuple[Account, bytes]]) -> None:
    """A state file as it was before anything was throttled."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(MIGRATIONS[0])
        database.executemany(
            "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(each.name, "SHA1", 6, 30, sealed, each.digest, each.last_step) for each, sealed in accounts],
        )
        database.execute("INSERT INTO periods VALUES (30, 0, 0)")
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute("PRAGMA user_version=1")


def test_a_file_of_the_first_version_is_upgraded_with_its_accounts(path: Path, master: MasterKey) -> None:
    account = make_keyring(master=master).seal("default", bytearray(SEED), USUAL)
    account.last_step = STEP
    sealed = master.seal(bytearray(SEED), associated("default", USUAL))
    make_first_version(path, [(account, sealed)])
    for _ in range(2):
        with run(path, master) as first:
            assert not verify(first, reference_code(SEED, STEP))  # it was used
            (row,) = call(first[0], "accounts", ROOT, NOW)
            assert row["last_used"] == STEP * 30
    with run(path, master) as second:
        assert verify(second, reference_code(SEED, STEP + 1))
        for _ in range(4):
            assert not verify(second)
        assert told_wait(second) == 60


# Files of the version before accounts could be unthrottled


@pytest.fixture
def fourth_version(path: Path) -> Path:
    """A state file that the version before made: `throttled-state.sql` says what happened."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript((VECTORS / "throttled-state.sql").read_text())
    return path


def test_a_file_of_the_fourth_version_keeps_who_waits_and_who_is_known(fourth_version: Path) -> None:
    with contextlib.closing(MasterKey(bytes(range(32)))) as master:
        for _ in range(2):
            with run(fourth_version, master) as first:
                assert told_wait(first, origin="tired") == 60  # as that version said
                assert told_wait(first, account="missing") == 60
                assert not verify(first, reference_code(SEED, STEP), origin="known")  # it was used
        with run(fourth_version, master) as second:
            for host in range(48):
                assert not verify(second, origin=f"host-{host}")
            assert told_wait(second, origin="another") is not None
            assert [verify(second, origin="known") for _ in range(2)] == [False, False]
            assert told_wait(second, origin="known") == 60  # with the two failures of before


def test_an_account_of_the_fourth_version_can_be_unthrottled_and_stays_so(fourth_version: Path) -> None:
    with contextlib.closing(MasterKey(bytes(range(32)))) as master:
        with run(fourth_version, master) as first:
            result = call(first[0], "unthrottle", ROOT, NOW, store=first[1])
            assert result == {"account": "default", "left": 2}
        with run(fourth_version, master) as second:
            assert verify(second, reference_code(SEED, STEP + 1), origin="tired")
            assert told_wait(second, account="missing") == 60


# What administrators end


def test_an_unthrottled_account_is_so_after_a_restart_with_how_often_it_was(
    path: Path, master: MasterKey
) -> None:
    with run(path, master) as first:
        agent, store = first
        assert verify(first, reference_code(SEED, STEP), origin="known")
        for host in range(54):
            assert not verify(first, origin=f"host-{host % 40}")
        assert told_wait(first, origin="another") is not None
        assert call(agent, "unthrottle", ROOT, NOW, store=store)["left"] == 2
    with run(path, master) as second:
        agent, store = second
        for host in range(54):
            assert not verify(second, origin=f"host-{host}")
        assert not verify(second, origin="known")
        assert call(agent, "unthrottle", ROOT, NOW, store=store)["left"] == 1
        assert call(agent, "unthrottle", ROOT, NOW, store=store)["left"] == 0
    with run(path, master) as third, pytest.raises(BadRequest, match="force"):
        call(third[0], "unthrottle", ROOT, NOW)


def test_an_unthrottling_is_synced(path: Path, master: MasterKey) -> None:
    with run(path, master) as (agent, store):
        syncs = Syncs(store)
        call(agent, "unthrottle", ROOT, NOW, store=store)
        assert syncs.count() == 1


def test_wrong_codes_to_resync_are_counted_over_a_restart(path: Path, master: MasterKey) -> None:
    for _ in range(4):
        with run(path, master) as (agent, store), pytest.raises(BadRequest):
            call(agent, "resync", ROOT, NOW, store=store, first="000000", second="000000")
    with run(path, master) as (agent, store), pytest.raises(Throttled):
        call(agent, "resync", ROOT, NOW, store=store, first="000000", second="000000")


def test_unthrottlings_of_the_future_at_a_start_are_of_now(path: Path, master: MasterKey) -> None:
    with run(path, master) as (agent, store):
        for _ in range(3):
            call(agent, "unthrottle", ROOT, at(NOW.wall + 3_650 * DAY), store=store)
    with run(path, master) as (agent, store):
        with pytest.raises(BadRequest, match="force"):
            call(agent, "unthrottle", ROOT, NOW)
        assert call(agent, "unthrottle", ROOT, at(NOW.wall + 31 * DAY), store=store)["left"] == 2


# Damage


@pytest.mark.parametrize("times", [b"\1", bytes(7), bytes(23)], ids=len)
def test_times_of_unthrottlings_that_cannot_be_are_damage(
    path: Path, master: MasterKey, times: bytes
) -> None:
    with run(path, master):
        pass
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE accounts SET reset_at = ?, resets = 1", (times,))
    with pytest.raises(UnusableState, match="default"), run(path, master):
        pass


@pytest.mark.parametrize("marks", [b"\1", bytes(39), bytes(42), bytes(81)], ids=len)
def test_marks_that_cannot_be_are_damage(path: Path, master: MasterKey, marks: bytes) -> None:
    with run(path, master):
        pass
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE accounts SET marks = ?", (marks,))
    with pytest.raises(UnusableState, match="default"), run(path, master):
        pass

"""Around `clock_accept`: who may, what `status` says, the minute log, and states of older versions."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import ROOT, SEED, USUAL, code_line, make_keyring, stamp
from support.host import Host

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.daemon.minutelog import MinuteLog
from pki2fad.errors import Forbidden, Unavailable
from pki2fad.rules import clock
from pki2fad.rules.access import ADMIN, GENERATE, VERIFY, Peer, Rule
from pki2fad.state import database, schema
from pki2fad.transfer.entry import associated

HOUR = 3600
START = 1_700_000_040.0  # a whole minute
ADMIN_OF_ALL, ADMIN_OF_ONE, USER = (Peer(7, uid, frozenset({uid})) for uid in (1000, 1001, 1002))
RULES = [
    Rule(ADMIN, (ADMIN_OF_ALL.uid,)),
    Rule(ADMIN, (ADMIN_OF_ONE.uid,), ("default",)),
    Rule(VERIFY, (USER.uid,)),
    Rule(GENERATE, (USER.uid,)),
]


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    """A host with an account, ten seconds after the daemon's start."""
    with Host(tmp_path / "state.db", master, START, RULES) as host:
        host.load()
        host.wait(10)
        yield host


@pytest.fixture
def ahead(host: Host) -> Host:
    """The same, with its clock an hour ahead and a code used there."""
    host.set(host.wall + HOUR)
    assert host.verify(host.step())
    return host


def go_back(host: Host) -> None:
    host.set(host.wall - HOUR)


# Who may


@pytest.mark.parametrize("peer", [ADMIN_OF_ALL, ROOT], ids=["an administrator", "root"])
def test_an_administrator_of_all_accounts_may_accept_the_clock(ahead: Host, peer: Peer) -> None:
    go_back(ahead)
    assert ahead.call("clock_accept", peer)["time"] == int(ahead.wall)
    assert ahead.watch.accepted == 1


@pytest.mark.parametrize("peer", [ADMIN_OF_ONE, USER], ids=["of one account", "not an administrator"])
def test_nobody_else_may_and_nothing_changes(ahead: Host, peer: Peer) -> None:
    go_back(ahead)
    before = ahead.keyring.accounts["default"].last_step
    with pytest.raises(Forbidden, match="'admin'"):
        ahead.call("clock_accept", peer)
    assert ahead.keyring.accounts["default"].last_step == before
    assert ahead.watch.accepted == 0


# Status


def test_status_says_whether_the_clock_is_synchronised_and_how_far_behind(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = host.call("status", USER)
    assert (status["clock"], status["clock_behind"], status["unavailable_until"]) == ("unknown", 0, None)
    file = tmp_path / "synchronized"
    file.touch()
    monkeypatch.setattr(clock, "_SYNCHRONISED", str(file))
    host.wait(1)
    assert host.call("status", USER)["clock"] == "synchronised"
    go_back(host)
    status = host.call("status", USER)
    assert (status["clock_behind"], status["unavailable_until"]) == (HOUR, START + 11)


def test_status_says_until_when_spent_codes_keep_verify_waiting(ahead: Host) -> None:
    go_back(ahead)
    until = ahead.call("clock_accept")["spent_until"]
    assert ahead.call("status")["unavailable_until"] is None
    ahead.wait(until - 60 - ahead.wall)
    said = ahead.call("status")["unavailable_until"]
    assert said >= until
    ahead.wait(said - ahead.wall)
    assert ahead.call("status")["unavailable_until"] is None
    assert ahead.verify(ahead.step())


# The minute log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "codes.log"


def minute_log(host: Host, path: Path) -> MinuteLog:
    return MinuteLog(host.agent, ROOT, {"default": str(path)})


def test_the_minute_log_goes_on_when_the_clock_is_accepted(ahead: Host, path: Path) -> None:
    log = minute_log(ahead, path)
    log.write_due(ahead.reading)
    written = [code_line(ahead.wall)]
    go_back(ahead)
    log.write_due(ahead.reading)
    (*codes, said) = path.read_text().splitlines()
    assert codes == written
    assert "stepped back" in said
    ahead.call("clock_accept")
    for _ in range(3):
        log.write_due(ahead.reading)
    accepted, first = path.read_text().splitlines()[2:]
    assert accepted.startswith(f"{stamp(ahead.wall)} - the clock was accepted")
    assert first == code_line(ahead.wall)
    ahead.wait(60)
    log.write_due(ahead.reading)
    assert path.read_text().splitlines()[4:] == [code_line(ahead.wall)]


def test_the_minute_log_goes_on_after_a_restart_too(ahead: Host, path: Path) -> None:
    log = minute_log(ahead, path)
    log.write_due(ahead.reading)
    go_back(ahead)
    ahead.call("clock_accept")
    log.write_due(ahead.reading)
    before = path.read_text()
    ahead.restart()
    log = minute_log(ahead, path)
    log.write_due(ahead.reading)
    assert path.read_text() == before  # this minute has its line
    ahead.wait(60)
    log.write_due(ahead.reading)
    assert path.read_text() == f"{before}{code_line(ahead.wall)}\n"


def test_a_minute_log_that_was_not_ahead_says_nothing(host: Host, path: Path) -> None:
    log = minute_log(host, path)
    log.write_due(host.reading)
    host.call("clock_accept")
    log.write_due(host.reading)
    assert path.read_text() == f"{code_line(host.wall)}\n"


# States of older versions


@pytest.fixture
def old_state(tmp_path: Path, master: MasterKey) -> Path:
    """The state file of a version that knew nothing of the clock, with an account and a seed that is gone."""
    path = tmp_path / "old.db"
    account = make_keyring({"default": SEED}, master=master).accounts["default"]
    with contextlib.closing(sqlite3.connect(path)) as state:
        for migration in schema.MIGRATIONS[:2]:
            state.executescript(migration)
        state.execute(f"PRAGMA application_id={database.APPLICATION_ID}")
        state.execute("PRAGMA user_version=2")
        state.execute("INSERT INTO meta VALUES ('boot_id', 'boot 0')")
        step = int(START // 30) + 120  # its clock was an hour ahead
        sealed = master.seal(bytearray(SEED), associated("default", USUAL))
        row = ("default", "SHA1", 6, 30, sealed, account.digest, step, 3.0, 4.0, b"")
        state.execute("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        state.execute("INSERT INTO gone VALUES (?, 30, ?)", (bytes(32), step))
        state.execute("INSERT INTO periods VALUES (30, ?, 0)", ((step + 2) * 30,))
        state.commit()
    return path


def test_an_older_state_is_brought_up_to_date_and_loses_nothing(old_state: Path, master: MasterKey) -> None:
    with Host(old_state, master, START) as host:
        (account,) = host.keyring.accounts.values()
        assert (account.parameters, account.last_step) == (USUAL, int(START // 30) + 120)
        assert (account.tally.level.units, account.tally.level.at) == (3.0, 4.0)
        assert (account.offset, account.drifts) == (0, [])
        assert host.keyring.gone == {bytes(32): (int(START // 30) + 120, 30)}
        assert host.watch.mark == START
        with pytest.raises(Unavailable):
            host.verify(host.step())
    with contextlib.closing(sqlite3.connect(old_state)) as state:
        assert state.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)


def test_codes_that_an_older_version_accepted_ahead_stay_spent(old_state: Path, master: MasterKey) -> None:
    with Host(old_state, master, START) as host:
        accepted = host.call("clock_accept")
        # Nobody knows since when the clock was ahead.
        assert accepted["spent_from"] == int(START)
        assert accepted["spent_until"] == START // 30 * 30 + 121 * 30
        host.wait(accepted["spent_until"] + 60 - host.wall)
        assert host.verify(host.step())

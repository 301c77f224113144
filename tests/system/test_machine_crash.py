"""A crash of the machine takes back what was not synced: no code is good twice all the same.

The daemon runs under a shim that copies a file whenever it is synced. A crash is SIGKILL, the state
directory replaced by these copies, another boot id, and a clock that may be wrong.
"""

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import datetime

import pytest
from support.daemon import Daemon, code_of
from support.preload import Clock, SyncedCopy, environment
from support.raw import Seal

from pki2fad.client import Client
from pki2fad.errors import Unavailable

pytestmark = pytest.mark.slow  # series of crashes

HOUR = 3600
PERIODS = (1, 30, 120)
ROUNDS = 12

Use = tuple[int, int]  # of the code of a period's account, by its step

WRONG_CLOCKS: dict[str, Callable[[float], float]] = {
    "right": lambda now: now,
    "an hour back": lambda now: now - HOUR,
    "at 1970": lambda _: 100.0,
}
clocks = pytest.mark.parametrize("wrong", WRONG_CLOCKS)


class Machine:
    """A daemon with an account for each period, on a machine that crashes."""

    def __init__(self, daemon: Daemon, clock: Clock, synced: SyncedCopy) -> None:
        self.daemon = daemon
        self.clock = clock
        self.boots = 0
        self.accepted: set[Use] = set()  # as the clients record it
        self._synced = synced
        self._seeds = {period: os.urandom(32) for period in PERIODS}

    def start(self) -> None:
        boot = f"boot-{self.boots}"
        self.daemon.start(**environment(self.clock, self._synced), PKI2FAD_BOOT_ID=boot)

    def load(self, seal: Seal) -> None:
        with self.daemon.client() as client:
            for period, seed in self._seeds.items():
                client.load(seal(seed), f"period-{period}", period=period)

    def crash(self, now: float) -> None:
        """The machine goes down, and comes up with this time on its clock."""
        self.daemon.kill()
        log = self.daemon.state_dir / "state.db-wal"
        self.taken_back = (self._synced.copy / log.name).read_bytes() != log.read_bytes()
        self._synced.restore()
        self.boots += 1
        self.clock.set(now)
        self.start()

    def step(self, period: int) -> int:
        return int(self.clock.now()) // period

    def verify(self, client: Client, use: Use) -> bool:
        """Use a code, which must not be good if it was before."""
        period, step = use
        valid = client.verify(code_of(self._seeds[period], step), f"period-{period}")
        assert not (valid and use in self.accepted), f"{use} was accepted twice, boot {self.boots}"
        if valid:
            self.accepted.add(use)
        return valid

    def use_all(self) -> None:
        """Use every code of the window now, once and again, where codes are taken already."""
        with self.daemon.client() as client:
            for period in PERIODS:
                now = self.step(period)
                with contextlib.suppress(Unavailable):
                    for step in (now - 1, now, now + 1, now):
                        self.verify(client, (period, step))

    def use_again(self) -> None:
        """Try every code that was accepted."""
        with self.daemon.client() as client:
            for use in sorted(self.accepted):
                assert not self.verify(client, use)


@pytest.fixture
def machine(daemon: Daemon, clock: Clock, synced: SyncedCopy, seal: Seal) -> Machine:
    machine = Machine(daemon, clock, synced)
    machine.start()
    machine.load(seal)
    return machine


def unavailable_until(daemon: Daemon) -> int | None:
    with daemon.client() as client:
        until: int | None = client.status()["unavailable_until"]
    return until


@clocks
def test_verify_waits_until_no_code_from_before_can_be_good(machine: Machine, wrong: str) -> None:
    assert unavailable_until(machine.daemon) is None
    machine.use_all()
    crashed = machine.clock.now()
    machine.crash(WRONG_CLOCKS[wrong](crashed))
    assert machine.taken_back  # else there was nothing to be careful about
    with machine.daemon.client() as client:
        for period in PERIODS:
            with pytest.raises(Unavailable) as refusal:
                machine.verify(client, (period, machine.step(period)))
            wait = refusal.value.retry_after
            assert wait is not None
            # Two periods from now, or from when the last codes were accepted.
            assert 0 < wait <= max(crashed - machine.clock.now(), 0) + 2 * period + 1
            until = machine.clock.now() + wait
            machine.clock.set(until - 2)
            if period > 1:
                with pytest.raises(Unavailable):
                    machine.verify(client, (period, machine.step(period)))
            machine.clock.set(until + 0.01)
            for use in [use for use in machine.accepted if use[0] == period]:
                assert not machine.verify(client, use)
            assert machine.verify(client, (period, machine.step(period)))
    assert unavailable_until(machine.daemon) is None
    machine.use_again()


def test_status_says_until_when(machine: Machine) -> None:
    machine.use_all()
    machine.crash(machine.clock.now())
    until = unavailable_until(machine.daemon)
    assert until is not None
    assert machine.clock.now() < until <= machine.clock.now() + 2 * max(PERIODS)
    text = datetime.fromtimestamp(until).astimezone().isoformat()
    assert text in machine.daemon.ctl("status").stdout
    assert machine.daemon.ctl("verify", "123456", "--account=period-120").returncode == 5
    machine.clock.set(until)
    assert unavailable_until(machine.daemon) is None
    assert text not in machine.daemon.ctl("status").stdout


def test_a_restart_in_the_same_boot_serves_at_once(machine: Machine) -> None:
    machine.use_all()
    machine.daemon.kill()
    machine.start()
    assert unavailable_until(machine.daemon) is None
    machine.use_again()


def test_the_wait_goes_on_after_a_restart(machine: Machine) -> None:
    machine.use_all()
    machine.crash(machine.clock.now())
    until = unavailable_until(machine.daemon)
    machine.daemon.stop()
    machine.start()
    assert unavailable_until(machine.daemon) == until


def test_no_code_is_accepted_twice_over_many_crashes(machine: Machine) -> None:
    randomly = random.Random(20260131)
    for _ in range(ROUNDS):
        before = machine.clock.now()
        for _ in range(randomly.randrange(1, 4)):
            machine.clock.set(machine.clock.now() + randomly.choice([0, 1, 29, 31, 119, 240]))
            machine.use_all()
        latest = machine.clock.now()
        wrong = WRONG_CLOCKS[randomly.choice(sorted(WRONG_CLOCKS))]
        machine.crash(wrong(randomly.choice([before, latest])))
        # Through all the time in which a code from before is in the window again.
        with machine.daemon.client() as client:
            for period, step in sorted(machine.accepted, key=lambda use: use[0] * use[1]):
                for at in (step - 0.99, step, step + 1.99):
                    machine.clock.set(at * period)
                    with contextlib.suppress(Unavailable):
                        machine.verify(client, (period, step))
        machine.clock.set(latest + HOUR)
        machine.use_all()
    assert len(machine.accepted) > 2 * len(PERIODS) * ROUNDS


@pytest.mark.parametrize("crash", [False, True], ids=["the process died", "the machine died"])
def test_a_first_start_that_ended_at_any_sync_is_made_good_by_the_next(
    daemon: Daemon, clock: Clock, synced: SyncedCopy, seal: Seal, crash: bool
) -> None:
    file = daemon.deliver("default", seal(os.urandom(32)))
    os.utime(file, (time.time() - HOUR, time.time() - HOUR))
    daemon.start(**environment(clock))
    with daemon.client() as client:
        moment = unavailable_until(daemon)
        assert moment is not None
        clock.set(moment)
        code = client.generate().code
        assert client.verify(code)  # under a state file that is lost now
    daemon.kill()
    for number in itertools.count(1):
        synced.clear()
        clock.set(moment)
        daemon.spawn(**environment(clock, synced), DIE_AT_SYNC=str(number))
        try:
            daemon.wait_for("READY=1")
        except AssertionError:
            assert daemon.wait() == -signal.SIGKILL, daemon.log()
        else:
            break  # it has no more to sync
        if crash:
            synced.restore()
        daemon.start(**environment(clock))
        with daemon.client() as client, contextlib.suppress(Unavailable):
            assert client.generate().code == code
            assert not client.verify(code), f"after it died at sync {number}"
        daemon.kill()
    assert number > 3


@pytest.mark.parametrize(("age", "waits"), [(3600, True), (121, True), (0, False)])
def test_a_new_state_file_distrusts_accounts_from_old_files(
    daemon: Daemon, seal: Seal, age: int, waits: bool
) -> None:
    file = daemon.deliver("default", seal(b"a seed that may be in use......."))
    os.utime(file, (time.time() - age, time.time() - age))
    daemon.start()
    code = daemon.ctl("generate").stdout.strip()
    verdict = daemon.ctl("verify", code)
    until = unavailable_until(daemon)
    if waits:
        assert verdict.returncode == 5, verdict.stdout
        assert "restart" not in verdict.stderr + daemon.log()  # nobody knows of one
        assert until is not None
        assert time.time() < until <= time.time() + 60
    else:
        assert (verdict.stdout, verdict.returncode) == ("valid\n", 0)
        assert until is None


@pytest.mark.parametrize("failed_first", [False, True], ids=["", "after a start that failed"])
def test_a_state_file_that_was_deleted_makes_no_code_good_twice(
    daemon: Daemon, clock: Clock, seal: Seal, failed_first: bool
) -> None:
    file = daemon.deliver("default", seal(b"a seed that is in use..........."))
    daemon.start(**environment(clock))
    code = daemon.ctl("generate").stdout.strip()
    assert daemon.ctl("verify", code).stdout == "valid\n"
    daemon.stop()
    for path in daemon.state_dir.iterdir():
        path.unlink()
    os.utime(file, (time.time() - HOUR, time.time() - HOUR))
    if failed_first:
        daemon.log_dir.rename(daemon.root / "aside")
        daemon.log_dir.touch()
        daemon.fail_to_start(**environment(clock))
        daemon.log_dir.unlink()
    daemon.start(**environment(clock))
    refused = daemon.ctl("verify", code)
    assert refused.returncode == 5, refused.stdout
    until = unavailable_until(daemon)
    assert until is not None
    clock.set(until)
    assert daemon.ctl("verify", code).stdout == "invalid\n"
    fresh = daemon.ctl("generate").stdout.strip()
    assert daemon.ctl("verify", fresh).stdout == "valid\n"

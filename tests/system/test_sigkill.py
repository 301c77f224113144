"""SIGKILL at random moments, against a record that the clients keep themselves."""

import contextlib
import os
import random
import threading
import time

import pytest
from support.daemon import PATIENCE, Daemon, code_of
from support.raw import Seal

from pki2fad.client import Client
from pki2fad.errors import ConnectionLost, NotReachable

KILLS = int(os.environ.get("PKI2FAD_KILLS", "200"))
STARTS_KILLED = 20

CLIENTS = 3
ANSWERS = 40  # at most so many until a kill
PERIOD = 120  # so long that codes of all lives are still in the window
DIGITS = 8  # so many that two codes are hardly ever the same

Use = tuple[str, str]  # of an account's code, or recovery code


class Record:
    """What the clients were told."""

    def __init__(self) -> None:
        self.seeds: dict[str, bytes] = {}  # of accounts whose load was answered
        self.counters: list[Use] = []  # the codes of tokens whose load was answered
        self.recovery: list[Use] = []  # the codes of sets that were answered
        self.in_flight: dict[str, bytes] = {}  # of accounts whose load was not
        self.accepted: set[Use] = set()
        self.in_order: list[Use] = []
        self.undecided: set[Use] = set()  # no answer came
        self.twice: list[Use] = []
        self.answers = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._names = 0

    def new_account(self) -> tuple[str, bytes]:
        with self._lock:
            self._names += 1
            name = f"account-{self._names}"
            self.in_flight[name] = seed = os.urandom(32)
            return name, seed

    def code(self, name: str, step: int) -> Use:
        """The use of the code of a step."""
        return name, code_of(self.seeds[name], step, DIGITS)

    def loaded(self, name: str) -> None:
        with self._lock:
            self.seeds[name] = self.in_flight.pop(name)
        self.answers.release()

    def verify(self, client: Client, use: Use) -> None:
        name, code = use
        with self._lock:
            if use not in self.accepted:
                self.undecided.add(use)
        valid = client.verify(code, name)
        with self._lock:
            self.undecided.discard(use)
            if valid and use in self.accepted:
                self.twice.append(use)
            elif valid:
                self.accepted.add(use)
                self.in_order.append(use)
        self.answers.release()

    def some(self, count: int) -> list[Use]:
        """Accepted uses, the last ones among them."""
        with self._lock:
            return [*self.in_order[-count:], *random.choices(self.in_order, k=count if self.in_order else 0)]


def live(daemon: Daemon, seal: Seal, record: Record) -> None:
    """Load accounts and use their codes, each twice, until the daemon is gone."""
    with daemon.client() as client, contextlib.suppress(ConnectionLost, NotReachable):
        while True:
            name, seed = record.new_account()
            client.load(seal(seed), name, period=PERIOD, digits=DIGITS)
            record.loaded(name)
            now = int(time.time()) // PERIOD
            token = os.urandom(32)
            client.load(seal(token), name, label="token", kind="hotp", digits=DIGITS)
            counters = [(name, code_of(token, counter, DIGITS)) for counter in (0, 2, 2, 3, 1)]
            record.counters += counters
            recovery = [(name, code) for code in client.recovery_create(name)[:3]]
            record.recovery += recovery
            codes = [record.code(name, step) for step in (now - 1, now, now + 1, now)]
            uses = [*codes, *counters, *recovery, recovery[0]]
            random.shuffle(uses)
            for use in [*uses, *record.some(1)]:
                record.verify(client, use)


def check(daemon: Daemon, record: Record, uses: list[Use]) -> None:
    """No account is lost, and none of these codes is good again."""
    with daemon.client() as client:
        there = {account.account for account in client.accounts()}
        assert not record.seeds.keys() - there
        for name in record.in_flight.keys() & there:  # loaded, though no answer came
            record.seeds[name] = record.in_flight[name]
        record.in_flight.clear()
        for name in random.sample(sorted(there), min(3, len(there))):
            code = client.generate(name)
            assert code.code == code_of(record.seeds[name], code.step, DIGITS)
        for use in [*uses, *record.undecided, *record.undecided]:
            record.verify(client, use)
    assert record.twice == []


@pytest.mark.slow
@pytest.mark.timeout(60 + 2 * KILLS)
def test_no_account_is_lost_and_no_code_accepted_twice(daemon: Daemon, seal: Seal) -> None:
    record = Record()
    daemon.configure("[throttle]\nenabled = false\n")  # many codes are asked for again
    for _ in range(KILLS):
        daemon.start()
        check(daemon, record, record.some(5))
        record.answers = threading.Semaphore(0)
        clients = [threading.Thread(target=live, args=(daemon, seal, record)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(random.randrange(ANSWERS)):
            assert record.answers.acquire(timeout=PATIENCE)
        time.sleep(random.uniform(0, 0.005))  # anywhere between two answers
        daemon.kill()
        for client in clients:
            client.join(PATIENCE)
            assert not client.is_alive()
    daemon.start()
    check(daemon, record, record.in_order)
    assert len(record.accepted) > KILLS  # the record would notice something
    assert len(record.accepted.intersection(record.counters)) > KILLS // 4
    assert len(record.accepted.intersection(record.recovery)) > KILLS // 4
    assert "Traceback" not in daemon.log()


@pytest.mark.slow
def test_a_daemon_that_was_killed_while_it_started_starts_again(daemon: Daemon, seal: Seal) -> None:
    seed = os.urandom(32)
    daemon.deliver("default", seal(seed))
    begun = time.monotonic()
    daemon.start()
    took = time.monotonic() - begun
    daemon.kill()
    daemon.state_file.unlink()
    for _ in range(STARTS_KILLED):
        daemon.spawn()
        time.sleep(random.uniform(0, took))  # anywhere in the start
        daemon.kill()
    daemon.start()
    with daemon.client() as client:
        code = client.generate()
        assert code.code == code_of(seed, code.step)
        assert client.verify(code.code)

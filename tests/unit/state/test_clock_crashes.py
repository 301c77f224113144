"""A clock that anybody sets, machines that crash, provers that are off: no code is accepted twice.

Each life is that of one state file: whatever can happen to it happens in a random order, and an adversary
presents all codes that were accepted, also after taking the clock to where they are new again. Against the
daemon stands a record of its own answers.
"""

import contextlib
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from support.agents import OTHER_SEED, SEED, Syncs, reference_code
from support.disk import CRASHES, Disk
from support.host import Host

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadRequest, Unavailable
from pki2fad.rules import clock
from pki2fad.rules.otp import Parameters

EVENTS = 80  # of one life
START = 1_700_000_000.0
HOUR, DAY = 3600.0, 86_400.0

# Accounts by name. With 8 digits no two steps that meet here share a code.
ACCOUNTS = {
    name: Parameters("SHA256", 8, period)
    for name, period in {"usual": 30, "other": 30, "short": 7, "long": 120}.items()
}


@cache
def code(seed: bytes, step: int, account: str) -> str:
    return reference_code(seed, step, ACCOUNTS[account])


class Life:
    """One machine from its first boot on, and the record of what was accepted."""

    def __init__(self, directory: Path, master: MasterKey, synchronised: Path, number: int) -> None:
        self.seen: Counter[str] = Counter()
        self._chance = random.Random(number)
        self._synchronised = synchronised
        self._is_synchronised = self._chance.choice((0.0, 0.0, 0.5, 1.0))
        self._reach = self._chance.choice((HOUR, 4 * HOUR, 4 * DAY))  # how far the clock is set
        self._disk = Disk(directory)
        self._host = Host(self._disk.path, master, START)
        self._names = self._chance.sample(list(ACCOUNTS), self._chance.choice((1, 2, 3)))
        self._seeds: dict[str, bytes] = {}  # of the accounts that are loaded
        self._accepted: dict[tuple[str, bytes], set[int]] = {}

    def live(self) -> None:
        weights: dict[Callable[[], None], int] = {
            self._log_in: 8,
            self._wait: 3,
            self._set: 3,
            self._accept: 2,
            self._resync: 2,
            self._edit: 2,
            self._end: 1,
            self._hunt: 3,
        }
        self._start()
        try:
            for event in self._chance.choices(list(weights), list(weights.values()), k=EVENTS):
                if self._chance.random() < self._is_synchronised:
                    self._synchronised.touch()
                else:
                    self._synchronised.unlink(missing_ok=True)
                event()
                self._written()
                self._attack()
        finally:
            self._host.store.close()

    def _start(self) -> None:
        self._host.start()
        self._syncs = Syncs(self._host.store)
        self._disk.sync()  # all that a start writes is synced

    def _written(self) -> None:
        if self._syncs.count():
            self._disk.sync()

    # What happens

    def _log_in(self) -> None:
        for name in self._chance.choices(list(self._seeds), k=3) if self._seeds else ():
            self._verify(name, self._middle(name) + self._chance.randint(-1, 1))

    def _wait(self) -> None:
        self._go_on(self._chance.choice((0.3, 0.9, 5.0, 40.0, 400.0)))

    def _go_on(self, seconds: float) -> None:
        if seconds >= 1:
            self._host.wait(seconds)
        else:  # the daemon has not looked yet
            self._host.wall += seconds
            self._host.uptime += seconds

    def _set(self) -> None:
        self._set_to(self._anywhere())

    def _set_to(self, wall: float) -> None:
        if self._chance.random() < 0.6:
            self._host.set(wall)
        else:
            self._host.wall = wall
            self._host.uptime += 0.1

    def _anywhere(self) -> float:
        reach = self._chance.choice((1.0, 50.0, 200.0, 700.0, self._reach))
        return self._host.wall + self._chance.uniform(-reach, reach)

    def _accept(self) -> None:
        self.seen["spent"] += self._host.call("clock_accept")["spent_until"] is not None

    def _resync(self) -> None:
        if not self._seeds:
            return
        name = self._chance.choice(list(self._seeds))
        last = self._host.step(ACCOUNTS[name].period) + self._chance.choice((-10, -9, -3, 0, 0, 0, 2, 9, 10))
        first, second = (code(self._seeds[name], step, name) for step in (last - 1, last))
        with contextlib.suppress(BadRequest, Unavailable):
            self._host.call("resync", account=name, first=first, second=second)
            self.seen["resynchronised"] += 1

    def _edit(self) -> None:
        """An account comes, changes its seed or goes; a seed that went comes back later."""
        name = self._chance.choice(self._names)
        if name in self._seeds and self._chance.random() < 0.4:
            self._host.call("remove", account=name)
            del self._seeds[name]
        else:
            self._seeds[name] = self._chance.choice((SEED, SEED, OTHER_SEED))
            self._host.load(name, self._seeds[name], ACCOUNTS[name])

    def _end(self) -> None:
        """The daemon stops, or dies, or the machine crashes; the clock may be set before it starts again."""
        how = self._chance.choice(("stops", "dies", "crashes", "crashes"))
        if how == "stops":
            self._host.timekeeper.stop()
        crashed, left = self._disk.after_a_crash(self._chance), self._disk.after_a_death()
        self._host.store.close()
        if how == "crashes":
            self.seen["crashes"] += 1
            self.seen["taken back"] += crashed != left
            self._host.boot += 1
            self._host.uptime = 3.0
        self._disk.go_on_with(crashed if how == "crashes" else left)
        self._host.path = self._disk.path
        self._host.wall = self._chance.choice((self._anywhere(), self._host.wall + 1, self._host.wall + 10))
        self._start()

    # The adversary

    def _hunt(self) -> None:
        """Take the clock to where a code that was accepted is in the window again."""
        accepted = [(name, step) for name in self._seeds for step in self._spent(name)]
        if not accepted:
            return
        name, step = self._chance.choice(accepted)
        step -= self._chance.choice((self._host.keyring.accounts[name].offset, 0))
        wall = (step + self._chance.uniform(-1, 2)) * ACCOUNTS[name].period
        how = self._chance.choice(("wait", "set", "set and accept"))
        if how == "wait":
            if 0 < wall - self._host.wall < 6 * HOUR:
                self._go_on(wall - self._host.wall)
            return
        before = self._chance.choice((0.0, 30.0, 100.0, 600.0)) if how == "set and accept" else 0.0
        self._set_to(wall - before)
        self._attack()
        if how == "set and accept":
            self._accept()
            self._go_on(before)

    def _attack(self) -> None:
        """Present every code that was accepted and that the window reaches."""
        for name in self._seeds:
            middle = self._middle(name)
            for step in range(middle - 1, middle + 2):
                if step in self._spent(name):
                    self.seen["presented again"] += 1
                    self._verify(name, step)

    def _verify(self, name: str, step: int) -> None:
        try:
            valid = self._host.call("verify", account=name, code=code(self._seeds[name], step, name))["valid"]
        except Unavailable:
            self.seen["unavailable"] += 1
            return
        self._written()
        if valid:
            assert step not in self._spent(name), f"step {step} of {name} was accepted twice"
            self._spent(name).add(step)
            self.seen["accepted"] += 1

    def _middle(self, name: str) -> int:
        """The step in the middle of the window."""
        return self._host.step(ACCOUNTS[name].period) + self._host.keyring.accounts[name].offset

    def _spent(self, name: str) -> set[int]:
        return self._accepted.setdefault((name, self._seeds[name]), set())


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: what is synced is seen from the statements."""
    fast = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=fast if os.access(fast, os.W_OK) else tmp_path) as path:
        yield Path(path)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_no_code_is_accepted_twice_whatever_happens_to_the_clock(
    memory: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    synchronised = memory / "synchronized"
    monkeypatch.setattr(clock, "_SYNCHRONISED", str(synchronised))
    seen: Counter[str] = Counter()
    lives = 0
    with contextlib.closing(MasterKey()) as master:
        while seen["crashes"] < CRASHES:
            life = Life(memory / str(lives), master, synchronised, part * 1_000_000 + lives)
            life.live()
            seen += life.seen
            lives += 1
    # It was worth something only if codes were accepted, forgotten in a crash, and presented again.
    assert seen["accepted"] > 3 * lives
    assert seen["presented again"] > 20 * lives
    assert seen["unavailable"] > 10 * lives
    assert seen["taken back"] > 0
    assert seen["resynchronised"] > lives / 2
    assert seen["spent"] > lives

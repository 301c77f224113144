"""Hundreds of crashes of a machine, on real state files, against a record of what was accepted."""

import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from support.agents import OTHER_SEED, ROOT, SEED, Syncs, at, boot, call, reference_code, sealed
from support.disk import CRASHES, Disk
from support.stores import keep

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import Unavailable
from pki2fad.methods.agent import Agent
from pki2fad.rules.otp import Parameters
from pki2fad.state.store import Store
from pki2fad.wire.messages import Request

CRASHES_IN_A_LIFE = 5  # of one state file: a clock far ahead ends the use of it
LONGEST_WAIT = 2 * 3600  # seconds for which the story waits until `verify` is available
START = 1_700_000_000.0

# Accounts by name. With 8 digits no two steps that meet here share a code.
ACCOUNTS = {str(period): Parameters("SHA256", 8, period) for period in (1, 7, 30, 60, 120)}

# What a machine believes the time is after a crash.
CLOCKS: dict[str, Callable[[float], float]] = {
    "right": lambda true: true,
    "an hour back": lambda true: true - 3600,
    "in 1970": lambda true: true - START,
    "a minute ahead": lambda true: true + 60,
    "far ahead": lambda true: true + 10 * 365 * 86_400,
}


class Life:
    """One machine from its first boot on: its true time, its clock, and the record of acceptances."""

    def __init__(
        self, directory: Path, master: MasterKey, clock_after_crash: str | None, number: int
    ) -> None:
        self.seen: Counter[str] = Counter()
        self._chance = random.Random(number)
        self._disk = Disk(directory)
        self._master = master
        self._clock_after_crash = clock_after_crash
        self._names = self._chance.sample(list(ACCOUNTS), 3)  # with more, something is synced all the time
        self._true = START
        self._clock = CLOCKS["right"]
        self._seeds: dict[str, bytes] = {}  # of the accounts that are loaded
        self._accepted: dict[tuple[str, bytes], set[int]] = {}

    @property
    def _wall(self) -> float:
        return self._clock(self._true)

    def live(self) -> None:
        crashes = 0
        while crashes < CRASHES_IN_A_LIFE:
            with self._running(f"boot {crashes}"):
                for _ in range(self._chance.choice((0, 10, 30))):
                    self._happen()
                dies = self._chance.random() < 0.3
                files = self._disk.after_a_death() if dies else self._disk.after_a_crash(self._chance)
            self._disk.go_on_with(files)
            if not dies:
                crashes += 1
                self._true += self._chance.choice((0.1, 1, 10, 45))
                self._clock = CLOCKS[self._clock_after_crash or self._chance.choice(list(CLOCKS))]

    @contextlib.contextmanager
    def _running(self, boot_id: str) -> Iterator[None]:
        """The daemon runs; what it has answered before must hold."""
        with contextlib.closing(Store(str(self._disk.path))) as self._store:
            self._syncs = Syncs(self._store)
            self._agent: Agent = boot(self._store, self._master, at(self._wall), boot_id)
            self._written()
            listed = call(self._agent, "accounts", ROOT, at(self._wall))
            assert [account["account"] for account in listed] == sorted(self._seeds)
            for account in listed:
                last_used = max(self._spent(account["account"]), default=-1) * account["period"]
                self.seen["taken back"] += last_used > (account["last_used"] or 0)
            self._attack()
            yield

    def _written(self) -> None:
        if self._syncs.count():
            self._disk.sync()

    def _happen(self) -> None:
        """Something happens, and what was accepted before is tried again."""
        events = (self._log_in, self._wait, self._set, self._edit)
        self._chance.choices(events, weights=(6, 2, 1, 1))[0]()
        self._attack()

    def _log_in(self) -> None:
        """Some users present codes of their own clocks, all in one turn of the loop."""
        names = self._chance.choices(list(self._seeds), k=2) if self._seeds else []
        self._verify((name, self._step(name) + self._chance.randint(-1, 1)) for name in names)

    def _wait(self) -> None:
        self._true += self._chance.choice((0.1, 0.5, 1, 10, 60))

    def _set(self) -> None:
        """The clock is set right, as NTP does it some time after a boot."""
        self._clock = CLOCKS["right"]

    def _edit(self) -> None:
        """An account comes, changes its seed or goes; a seed that went comes back later."""
        name = self._chance.choice(self._names)
        if self._seeds.get(name) == SEED and self._chance.random() < 0.2:
            call(self._agent, "remove", ROOT, at(self._wall), store=self._store, account=name)
            del self._seeds[name]
        else:
            seed = self._chance.choice((SEED, SEED, OTHER_SEED))
            of = ACCOUNTS[name]
            args = {"algorithm": of.algorithm, "digits": of.digits, "period": of.period, "replace": True}
            args |= {"account": name, "sealed": sealed(seed)}
            call(self._agent, "load", ROOT, at(self._wall), store=self._store, **args)
            self._seeds[name] = seed
        self._written()

    def _attack(self) -> None:
        """Present again every code that was accepted and that the window reaches."""
        while True:
            codes = [
                (name, step)
                for name in self._seeds
                for step in range(self._step(name) - 1, self._step(name) + 2)
                if step in self._spent(name)
            ]
            seconds = self._verify(codes)
            if not 0 < seconds <= LONGEST_WAIT or self._chance.random() < 0.5:
                return
            self._true += seconds

    def _verify(self, codes: Iterable[tuple[str, int]]) -> int:
        """Present codes in one turn of the loop; returns after how many seconds it may be repeated."""
        retry_after = 0
        spends, presented = [], []
        for name, step in codes:
            code = reference_code(self._seeds[name], max(0, step), ACCOUNTS[name])
            request = Request(1, "verify", {"account": name, "code": code})
            answer = self._agent.handle(request, ROOT, at(self._wall))
            self.seen["presented again"] += step in self._spent(name)
            if answer.refusal is not None:
                assert isinstance(answer.refusal, Unavailable)
                assert answer.refusal.retry_after is not None
                retry_after = max(retry_after, answer.refusal.retry_after)
                self.seen["unavailable"] += 1
            elif answer.change is not None:
                spends.append(answer.change)
                presented.append((name, step))
        if spends:
            assert keep(self._store, spends) == [True] * len(spends)
            self._written()
        for name, step in presented:
            assert step not in self._spent(name), f"step {step} of {name} was accepted twice"
            self._spent(name).add(step)
            self.seen["accepted"] += 1
        return retry_after

    def _step(self, name: str) -> int:
        return int(self._wall // ACCOUNTS[name].period)

    def _spent(self, name: str) -> set[int]:
        return self._accepted.setdefault((name, self._seeds[name]), set())


@pytest.mark.slow
@pytest.mark.parametrize("clock", [None, *CLOCKS], ids=lambda clock: f"clock {clock or 'anywhere'}")
def test_no_code_is_accepted_twice_whatever_a_crash_took_back(tmp_path: Path, clock: str | None) -> None:
    seen: Counter[str] = Counter()
    lives = math.ceil(CRASHES / CRASHES_IN_A_LIFE / (1 + len(CLOCKS)))
    with contextlib.closing(MasterKey()) as master:
        for number in range(lives):
            life = Life(tmp_path / str(number), master, clock, number)
            life.live()
            seen += life.seen
    # It was worth something only if codes were accepted, forgotten in a crash, and presented again.
    assert seen["accepted"] > 5 * lives
    assert seen["presented again"] > 10 * lives
    assert seen["unavailable"] > lives
    assert seen["taken back"] > lives

"""What is asked next: plans that go round, plans that are good for one step, and codes that are good once."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks import accounts, plans
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Load, Programs, Result
from benchmarks.plans import Asked, Exchange

from pki2fad.client import Client
from pki2fad.errors import Throttled
from pki2fad.rules.throttle import FREE_FAILURES

_LONG_WAIT = 3600  # seconds: longer than a run, and than one caller alone waits at first

_MARKING = 10.0  # seconds for which codes of one step are used, well before they are too old


class Supply(Protocol):
    """Gives the next measurement its plan and options of `c/load.c`, and hears where it ended."""

    def take(self, load: Load) -> tuple[Path, list[str]]: ...

    def used(self, result: Result) -> None: ...


class Cycle:
    """A plan that can be repeated for ever."""

    def __init__(self, path: Path, exchanges: Sequence[Exchange], *, wild: bool = False) -> None:
        self._path = plans.write(path, exchanges, wild=wild)
        self._count = len(exchanges)
        self._next = 0

    def take(self, _load: Load) -> tuple[Path, list[str]]:
        return self._path, ["--cycle", f"--from={self._next}"]

    def used(self, result: Result) -> None:
        self._next = result.next % self._count


def used(count: int, path: Path) -> Cycle:
    """Codes for all accounts, whichever the step."""
    return Cycle(path, plans.any_code(count), wild=True)


class Generated:
    """Codes of the step in which they are asked for, and of the next, should that come meanwhile."""

    def __init__(self, path: Path, count: int, *, other: bool = False) -> None:
        self._path = path
        self._count = count
        self._other = other  # encoding
        self._step = -1

    def take(self, _load: Load) -> tuple[Path, list[str]]:
        step = accounts.step_now()
        if step != self._step:
            exchanges = plans.generate(self._count, step, other=self._other)
            plans.write(self._path, exchanges, turn=(step + 1) * accounts.PERIOD, wild=True)
            self._step = step
        return self._path, ["--cycle"]

    def used(self, _result: Result) -> None:
        """It goes round."""


class Fresh:
    """The code of each account in each step, once; where all are spent, the next step is waited for."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._count = count
        self._step = -1
        self._next = 0

    def has_more(self, load: Load) -> bool:
        """True if nothing has to be waited for."""
        least = load.connections * (load.depth + 1)
        return accounts.step_now() != self._step or self._next + least <= self._count

    def take(self, load: Load) -> tuple[Path, list[str]]:
        step = accounts.step_now()
        if not self.has_more(load):
            step += 1
            wait_for_step(step)
        if step != self._step:
            plans.write(self._path, plans.verify(plans.right(self._count, step)))
            self._step, self._next = step, 0
        return self._path, [f"--from={self._next}"]

    def used(self, result: Result) -> None:
        self._next = result.next


def mark_all(programs: Programs, server: Pki2fad, path: Path, marked_in: int = -1) -> int:
    """Have a right code of every account accepted, so that this caller is known to each.

    That may take longer than a code is good. Returns the last step of which codes were used; `marked_in` is
    that of the time before.
    """
    path, many, done = path.with_suffix(".right"), Load(32, 4), 0
    wait_for_step(marked_in + 1)
    while done < server.count:
        marked_in = accounts.step_now()
        plans.write(path, plans.verify(plans.right(server.count, marked_in)))
        options = ["--cold", f"--from={done}"]
        done = programs.load(server.address, path, many, *options, seconds=_MARKING).next
    return marked_in


def wait_for_step(step: int) -> None:
    """Wait until this step has begun, if it has not."""
    if accounts.step_now() < step:
        time.sleep(max(0.0, step * accounts.PERIOD - time.time()))


class Forgiven:
    """Wrong codes that are counted and not refused yet: a few for each account after a right one."""

    def __init__(self, path: Path, programs: Programs, server: Pki2fad) -> None:
        self._path = path
        self._programs = programs
        self._server = server
        wrong = plans.wrong(server.count)
        self._count = FREE_FAILURES * len(wrong)
        self._next = self._count
        self._marked_in = -1  # the last step of which codes were used
        plans.write(path, plans.verify(wrong * FREE_FAILURES))

    def take(self, load: Load) -> tuple[Path, list[str]]:
        least = load.connections * (load.depth + 1)
        if self._next + least > self._count:
            self._marked_in = mark_all(self._programs, self._server, self._path, self._marked_in)
            self._next = 0
        return self._path, [f"--from={self._next}"]

    def used(self, result: Result) -> None:
        self._next = result.next


def refused(path: Path, server: Pki2fad) -> Cycle:
    """Wrong codes that are all refused, since there were too many of each account before."""
    wrong = plans.wrong(server.count)
    with server.daemon.client() as client:
        wait = min(_fail(client, one) for one in wrong)
    return Cycle(path, plans.refused(wrong, wait), wild=True)


def _fail(client: Client, one: Asked) -> int:
    """Fail from one origin after the other, until all that are not known wait; returns the seconds."""
    origin = wait = 0
    while wait < _LONG_WAIT:
        try:
            client.verify(one.code, one.name, origin=str(origin))
        except Throttled as refusal:
            origin, wait = origin + 1, refusal.retry_after or 0
    return wait

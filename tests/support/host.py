"""The parts of a daemon over a state file, on a host whose clocks a test sets."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.daemon.timekeeper import Timekeeper
from pki2fad.errors import Unavailable
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer, Rule
from pki2fad.rules.changes import REJECTED, Change, Edit
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.state.store import Store
from pki2fad.wire.messages import Request
from support.agents import ROOT, SEED, STARTED, USUAL, answer_to, filled, make_agent, reference_code, sealed
from support.stores import keep, one_by_one


class Host:
    """An agent, its store and its timekeeper, put together as the service does it.

    Time goes on only when the test says so. Nobody sets `uptime`; `wall` is set at will.
    """

    agent: Agent
    keyring: Keyring
    store: Store
    timekeeper: Timekeeper
    watch: Watch

    def __init__(
        self, path: Path, master: MasterKey, wall: float = STARTED.wall, rules: Iterable[Rule] = ()
    ) -> None:
        self.path = path
        self.wall = wall
        self.uptime = 1_000.0
        self.boot = 0
        self._master = master
        self._rules = rules

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    @property
    def reading(self) -> Reading:
        return Reading(self.wall, self.uptime)

    def start(self) -> None:
        """Start the daemon."""
        self.store = Store(str(self.path))
        self.watch = self.store.watch(self.reading)
        self.timekeeper = Timekeeper(self.watch, one_by_one(self.store), lambda: self.reading)
        self.keyring = filled(self.store, self._master, self.reading, f"boot {self.boot}")
        self.agent = make_agent(self.keyring, self._rules, watch=self.watch)
        self.timekeeper.look()

    def restart(self) -> None:
        """Stop the daemon, and start it again."""
        self.timekeeper.stop()
        self.store.close()
        self.start()

    def kill(self) -> None:
        """SIGKILL, and start it again."""
        self.store.close()
        self.start()

    def reboot(self) -> None:
        """Stop the machine in good order, and start it again."""
        self.boot += 1
        self.uptime = 10.0
        self.restart()

    def wait(self, seconds: float) -> None:
        """Let time go on; the daemon looks at the clock at the end."""
        self.wall += seconds
        self.uptime += seconds
        self.timekeeper.look()

    def set(self, wall: float) -> None:
        """Set the wall clock; the daemon looks at it within a second."""
        self.uptime += 1.0
        self.wall = wall
        self.timekeeper.look()

    def call(self, method: str, peer: Peer = ROOT, **args: Any) -> Any:
        """The result that a client gets. Raises the `Refusal`, and `UnusableState`."""
        request = Request(1, method, args)
        answer = answer_to(self.agent, request, peer, self.reading, lambda one: keep(self.store, [one]))
        kept = self.keep(answer.change)
        if answer.refusal is not None:
            raise answer.refusal
        return answer.result if kept else REJECTED

    def keep(self, *changes: Change | None) -> bool:
        """Keep the changes of one turn as the server does; false if one was refused."""
        there = [change for change in changes if change is not None]
        kept = not there or all(keep(self.store, there))
        for change in there:
            if isinstance(change, Edit):
                self.agent.memory.apply(change)
        return kept

    def load(self, account: str = "default", seed: bytes = SEED, of: Parameters = USUAL) -> None:
        self.call(
            "load",
            account=account,
            sealed=sealed(seed),
            algorithm=of.algorithm,
            digits=of.digits,
            period=of.period,
            replace=True,
        )

    def step(self, period: int = 30) -> int:
        return int(self.wall // period)

    def verify(self, step: int, account: str = "default", seed: bytes = SEED, of: Parameters = USUAL) -> bool:
        """Whether the code of this step is accepted."""
        code = reference_code(seed, step, of)
        return bool(self.call("verify", account=account, code=code)["valid"])


def refused_when_they_come(host: Host, steps: Iterable[int], of: Parameters = USUAL) -> int:
    """Present codes as the clock goes on over their time; returns how many were not valid.

    Until ten steps after, since their prover may have been so far behind.
    """
    steps, refused = list(steps), 0
    while host.step(of.period) <= max(steps) + 12:
        for step in steps:
            with contextlib.suppress(Unavailable):
                assert not host.verify(step, of=of), f"step {step} was accepted twice"
                refused += 1
        host.wait(of.period / 3)
        if host.wall < (min(steps) - 14) * of.period:
            host.wait((min(steps) - 14) * of.period - host.wall)
    return refused


def seconds_until_good(host: Host, **args: Any) -> int:
    """How long it takes until a current code is accepted."""
    for waited in range(3600):
        with contextlib.suppress(Unavailable):
            if host.verify(host.step(), **args):
                return waited
        host.wait(1)
    raise AssertionError("no code is good any more")

"""A successor by properties: whatever the clock, loads and restarts do, no code is good twice.

What was accepted is recorded here, with codes of an implementation of RFC 4226 of our own.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.agents import OTHER_SEED, SEED, STARTED, reference_code, sealed
from support.host import Host
from support.successors import use_due

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadRequest
from pki2fad.rules.otp import Parameters

# With 8 digits no two codes that meet here are the same.
Kind = tuple[bytes, Parameters]
KINDS: list[Kind] = [
    (SEED, Parameters(digits=8)),
    (OTHER_SEED, Parameters(digits=8)),
    (OTHER_SEED, Parameters("SHA256", 8, 60)),
]
ANY = st.sampled_from(KINDS)
LONG = 600.0  # seconds from a load to a deadline


class TwoSeeds(RuleBasedStateMachine):
    """One account on one host, a successor or none, and a record of what it has to accept."""

    @initialize(kind=ANY)
    def begin(self, kind: Kind) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.host = Host(Path(self.directory.name) / "state.db", MasterKey(), STARTED.wall)
        self.host.start()
        self.host.load(seed=kind[0], of=kind[1])
        self.own, self.new = kind, None
        self.deadline: float | None = None
        self.cutover = False
        self.spent: dict[Kind, int] = {}

    own: Kind
    new: Kind | None

    def settle(self) -> None:
        """What the deadline has done, by the record."""
        if self.new is not None and self.deadline is not None and self.host.wall >= self.deadline:
            self.own, self.new = (self.new if self.cutover else self.own), None

    def teardown(self) -> None:
        if hasattr(self, "host"):
            self.host.store.close()
            self.directory.cleanup()

    @rule(seconds=st.floats(0, 100) | st.sampled_from([30.0, 60.0, LONG]))
    def wait(self, seconds: float) -> None:
        self.host.wait(seconds)

    @rule(kind=ANY)
    def load(self, kind: Kind) -> None:
        self.settle()
        self.host.load(seed=kind[0], of=kind[1])
        self.own, self.new = kind, None

    @rule(kind=ANY, ends=st.booleans(), cutover=st.booleans())
    def load_a_successor(self, kind: Kind, ends: bool, cutover: bool) -> None:
        self.settle()
        deadline = int(self.host.wall + LONG)
        args = {"deadline": deadline, "cutover": cutover} if ends else {}
        seed, of = kind
        parameters = {"algorithm": of.algorithm, "digits": of.digits, "period": of.period}
        try:
            self.host.call("load", sealed=sealed(seed), successor=True, replace=True, **parameters, **args)
        except BadRequest:
            assert kind == self.own
        else:
            assert kind != self.own
            self.new, self.deadline, self.cutover = kind, deadline if ends else None, cutover

    @rule()
    def make_permanent(self) -> None:
        use_due(self.host)

    @rule()
    def be_killed(self) -> None:
        self.host.kill()

    @rule(kind=ANY, ahead=st.integers(-3, 3))
    def present(self, kind: Kind, ahead: int) -> None:
        self.settle()
        seed, of = kind
        step = self.host.step(of.period) + ahead
        expected = kind in (self.own, self.new) and abs(ahead) <= 1 and step > self.spent.get(kind, -1)
        assert self.host.verify(step, seed=seed, of=of) is expected
        if expected:
            self.spent[kind] = step
            if kind == self.new:
                self.own, self.new = kind, None

    @rule()
    def generate(self) -> None:
        self.settle()
        seed, of = self.own
        code = self.host.call("generate")["code"]
        assert code == reference_code(seed, self.host.step(of.period), of)

    @invariant()
    def the_list_is_as_recorded(self) -> None:
        self.settle()
        (row,) = self.host.call("accounts")
        assert (row["period"], row["successor"] is None) == (self.own[1].period, self.new is None)
        last = self.spent.get(self.own)
        assert row["last_used"] == (None if last is None else last * self.own[1].period)


TestNoCodeOfEitherIsAcceptedTwice = pytest.mark.slow(TwoSeeds.TestCase)
TestNoCodeOfEitherIsAcceptedTwice.settings = settings(max_examples=40, stateful_step_count=40)

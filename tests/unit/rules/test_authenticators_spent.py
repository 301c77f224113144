"""Several authenticators and recovery codes against a model: which are good, and that none is good twice.

Whatever is loaded, removed, moved to another label or account, promoted or restarted meanwhile.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.agents import STEP, at_step, reference_code
from support.authenticators import EIGHT, load, seed_of
from support.host import Host

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import AccountExists, BadRequest, NoSuchAccount
from pki2fad.rules.otp import Parameters

TOKEN = Parameters(digits=8, period=0, kind="hotp")  # two codes are hardly ever the same
KINDS = (EIGHT, EIGHT, TOKEN)  # of the seeds, by number

seeds = st.sampled_from(range(len(KINDS)))
accounts = st.sampled_from(["ann", "bob"])
labels = st.sampled_from(["main", "tablet"])
actions = st.one_of(
    st.tuples(st.just("load"), accounts, labels, seeds, st.booleans()),
    st.tuples(st.just("succeed"), accounts, labels, seeds),
    st.tuples(st.just("remove"), accounts, st.one_of(st.none(), labels)),
    st.tuples(st.just("move"), seeds, accounts, labels),
    st.tuples(st.just("verify"), accounts, seeds, st.integers(-2, 5)),
    st.tuples(st.just("use"), seeds, st.integers(0, 1)),
    st.tuples(st.just("use"), seeds, st.integers(0, 1)),
    st.tuples(st.just("again"), seeds),
    st.tuples(st.just("again"), seeds),
    st.tuples(st.just("resync"), accounts, labels, st.integers(0, 120)),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 60])),
    st.tuples(st.just("recovery"), accounts),
    st.tuples(st.just("recover"), accounts, st.integers(0, 9)),
    st.tuples(st.just("end"), st.sampled_from(["restart", "kill"])),
    st.tuples(st.just("reboot")),
)


@dataclass
class Model:
    """What is active and what waits, by account and label, and how far each seed is spent.

    `sets` has the recovery codes of each account, and whether each was used.
    """

    active: dict[tuple[str, str], int] = field(default_factory=dict)
    waiting: dict[tuple[str, str], int] = field(default_factory=dict)
    spent: list[int] = field(default_factory=lambda: [-1] * len(KINDS))
    sets: dict[str, dict[str, bool]] = field(default_factory=dict)

    def account_of(self, seed: int) -> str | None:
        live = [*self.active.items(), *self.waiting.items()]
        return next((account for (account, _), its in live if its == seed), None)

    def of(self, account: str) -> list[int]:
        live = [*self.active.items(), *self.waiting.items()]
        return [seed for (name, _), seed in live if name == account]

    def drop(self, account: str, label: str | None) -> None:
        for there in (self.active, self.waiting):
            for place in [place for place in there if place[0] == account and label in (None, place[1])]:
                del there[place]
        if not self.of(account):
            self.sets.pop(account, None)


class Run:
    """Does each action to a daemon and to the model, and holds one against the other."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.model = Model()

    def load(self, account: str, label: str, seed: int, replace: bool) -> None:
        model, place = self.model, (account, label)
        if seed in model.of("bob" if account == "ann" else "ann"):
            return  # in two accounts at once it would have two watermarks
        elsewhere = [
            at
            for there in (model.active, model.waiting)
            for at, its in there.items()
            if its == seed and at != place
        ]
        try:
            load(self.host, label, seed_of(seed), KINDS[seed], account, replace=replace)
        except AccountExists:
            assert not replace
            assert model.active[place] != seed
        except BadRequest:
            assert elsewhere
        else:
            assert not elsewhere
            if replace or model.active.get(place) != seed:
                model.waiting.pop(place, None)
            model.active[place] = seed

    def succeed(self, account: str, label: str, seed: int) -> None:
        model, place = self.model, (account, label)
        if seed in model.of("bob" if account == "ann" else "ann"):
            return
        try:
            load(self.host, label, seed_of(seed), KINDS[seed], account, successor=True, replace=True)
        except NoSuchAccount:
            assert place not in model.active
        except BadRequest:
            assert seed in model.of(account)
        else:
            model.waiting[place] = seed

    def remove(self, account: str, label: str | None) -> None:
        model = self.model
        try:
            self.host.call("remove", account=account, **({} if label is None else {"label": label}))
        except NoSuchAccount:
            assert not [place for place in model.active if place[0] == account and label in (None, place[1])]
        except BadRequest:
            assert [place for place in model.active if place[0] == account] == [(account, label)]
        else:
            model.drop(account, label)

    def verify(self, account: str, seed: int, ahead: int) -> None:
        model, of, now = self.model, KINDS[seed], self.host.step()
        if of.kind == "hotp":
            at = model.spent[seed] + 1 + ahead
            in_reach = 0 <= ahead < 4
        else:
            at = now + ahead
            in_reach = abs(ahead) <= 1 and at > model.spent[seed]
        if at < 0:
            return
        try:
            code = reference_code(seed_of(seed), at, of)
            valid = self.host.call("verify", account=account, code=code)["valid"]
        except NoSuchAccount:
            assert not model.of(account)
            return
        assert valid == (in_reach and seed in model.of(account))
        if valid:
            model.spent[seed] = at
            for place, its in list(model.waiting.items()):
                if its == seed:
                    model.active[place] = model.waiting.pop(place)

    def use(self, seed: int, ahead: int) -> None:
        """Verify a code where its seed is."""
        account = self.model.account_of(seed)
        if account is not None:
            self.verify(account, seed, ahead)

    def again(self, seed: int) -> None:
        """Verify the last code that was accepted of a seed, where it is now."""
        account, spent, of = self.model.account_of(seed), self.model.spent[seed], KINDS[seed]
        if account is not None and spent >= 0:
            code = reference_code(seed_of(seed), spent, of)
            assert self.host.call("verify", account=account, code=code) == {"valid": False}

    def move(self, seed: int, account: str, label: str) -> None:
        """Remove an authenticator or its account, and load its seed somewhere else."""
        place = next((place for place, its in self.model.active.items() if its == seed), None)
        if place is not None:
            last = len([name for name, _ in self.model.active if name == place[0]]) == 1
            self.remove(place[0], None if last else place[1])
        self.load(account, label, seed, replace=True)

    def resync(self, account: str, label: str, ahead: int) -> None:
        model, place = self.model, (account, label)
        seed = model.active.get(place)
        if seed is None or KINDS[seed].kind != "hotp":
            return
        first = model.spent[seed] + 1 + ahead
        codes = [reference_code(seed_of(seed), at, TOKEN) for at in (first, first + 1)]
        try:
            found = self.host.call("resync", account=account, label=label, first=codes[0], second=codes[1])
        except BadRequest:
            assert ahead > 98
        else:
            assert found["counter"] == first + 2
            assert ahead <= 98
            model.spent[seed] = first + 1

    def recovery(self, account: str) -> None:
        """Make recovery codes, which replace those of before."""
        try:
            codes = self.host.call("recovery_create", account=account)["codes"]
        except NoSuchAccount:
            assert not self.model.of(account)
        else:
            self.model.sets[account] = dict.fromkeys(codes, False)

    def recover(self, account: str, number: int) -> None:
        """Use a recovery code, perhaps again."""
        codes = self.model.sets.get(account, {})
        if codes:
            code = [*codes][number]
            valid = self.host.call("verify", account=account, code=code)["valid"]
            assert valid == (not codes[code])
            codes[code] = True

    def wait(self, seconds: int) -> None:
        self.host.wait(seconds)

    def reboot(self) -> None:
        """Start the machine again: codes of just before may not be on record, and count as spent."""
        step = self.host.step()
        self.host.reboot()
        self.host.wait(90)  # `verify` is unavailable until then
        for seed, of in enumerate(KINDS):
            if of.kind != "hotp":
                self.model.spent[seed] = max(self.model.spent[seed], step + 1)

    def end(self, how: str) -> None:
        getattr(self.host, how)()
        listed = {
            (row["account"], one["label"]): one.get("counter")
            for row in self.host.call("accounts")
            for one in row["authenticators"]
        }
        assert listed == {
            place: self.model.spent[seed] + 1 if KINDS[seed].kind == "hotp" else None
            for place, seed in self.model.active.items()
        }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(done=st.lists(actions, min_size=30, max_size=60))
def test_a_code_is_good_where_the_model_says_so_and_never_twice(done: list[tuple[object, ...]]) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        Host(Path(directory) / "state.db", MasterKey(), at_step(STEP).wall) as host,
    ):
        run = Run(host)
        for action, *args in done:
            getattr(run, str(action))(*args)
        run.end("kill")

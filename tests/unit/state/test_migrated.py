"""What an agent makes of a state of version 0.1.0: used codes stay used, and callers that failed wait."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import ROOT, call, sealed
from support.oldstate import CALLER, LOCKED, VECTORS, OldState, Run, Seed, code
from support.stores import keep

from pki2fad.crypto import rsakeys
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import Throttled
from pki2fad.rules.changes import Rotation
from pki2fad.rules.clock import Reading
from pki2fad.rules.pieces import finish

HOUR = 3600.0
BOTH = pytest.mark.parametrize("old", [VECTORS, LOCKED], ids=["open", "locked"], indirect=True)


@pytest.fixture
def old(tmp_path: Path, request: pytest.FixtureRequest) -> OldState:
    """The state that a daemon of version 0.1.0 left."""
    return OldState(tmp_path, getattr(request, "param", VECTORS))


@pytest.fixture
def run(old: OldState) -> Iterator[Run]:
    """Its first run under this version."""
    with old.running() as run:
        yield run


def verify(run: Run, account: str, shown: str, at: Reading, origin: str = "test") -> bool:
    args = {"account": account, "code": shown, "origin": origin}
    return bool(call(run.agent, "verify", CALLER, at, store=run.store, **args)["valid"])


def step_of(of: Seed, at: Reading) -> int:
    """The middle of the window of a seed."""
    return int(at.wall // of["period"]) + int(of.get("offset", 0))


def moment_of(use: Seed, offset: int, old: OldState) -> Reading:
    """When the step of a code that was used is the middle of its window, or the end if that is over."""
    wall = (use["step"] - offset) * use["period"] + 0.5
    return old.reading(max(0.0, wall - old.reading().wall))


@BOTH
def test_accounts_are_listed_as_version_0_1_0_listed_them(old: OldState, run: Run) -> None:
    listed = call(run.agent, "accounts", ROOT, old.reading())
    assert [account["account"] for account in listed] == sorted(old.accounts)
    for account, before in zip(listed, old.listed, strict=bool(old.listed)):
        assert {name: account[name] for name in before} == before


def caller(account: str, number: int) -> str:
    """An origin that may try a code. Only a known one may for the account that was guessed at."""
    return "known" if account == "guessed" else f"caller-{number}"


def assert_only_new_codes_are_good(old: OldState, run: Run) -> None:
    """Whatever time it is within reach of a used code; an hour later there are no floors."""
    of_accounts = [use for use in old.used if use["account"] in old.accounts]
    assert len(of_accounts) >= len(old.accounts) - 5 > 0 or old.vector == LOCKED
    for number, use in enumerate(of_accounts):
        account = old.accounts[use["account"]]
        at = moment_of(use, account.get("offset", 0), old)
        assert not verify(run, use["account"], code(use, use["step"]), at, caller(use["account"], number)), (
            use
        )
    for number, (name, of) in enumerate(old.accounts.items()):
        at = old.reading(HOUR)
        assert verify(run, name, code(of, step_of(of, at)), at, caller(name, number)), name
        assert not verify(run, name, code(of, step_of(of, at)), at, caller(name, number))


@BOTH
def test_no_code_that_was_used_is_good_again_and_the_next_one_is(old: OldState, run: Run) -> None:
    assert_only_new_codes_are_good(old, run)


def test_a_used_seed_that_was_replaced_ends_no_account_and_one_that_waits_takes_over_once(
    old: OldState, run: Run
) -> None:
    at = old.reading(HOUR)
    for name in ("waiting", "following", "ending"):
        before, after = old.accounts[name], old.accounts[name]["successor"]
        assert verify(run, name, code(after, step_of(after, at)), at)
        assert not verify(run, name, code(after, step_of(after, at)), at)
        later = old.reading(HOUR + 2 * after["period"])
        assert not verify(run, name, code(before, step_of(before, later)), later)


@BOTH
def test_a_seed_that_went_under_version_0_1_0_comes_back_with_what_it_spent(old: OldState, run: Run) -> None:
    at = old.reading()
    for number, seed in enumerate(old.gone):
        used = [one for one in old.used if one["seed"] == seed["seed"]]
        args = {name: seed[name] for name in ("algorithm", "digits", "period")}
        args |= {"account": f"back-{number}", "sealed": sealed(bytes.fromhex(seed["seed"]))}
        call(run.agent, "load", ROOT, at, store=run.store, **args)
        for use in used:
            assert not verify(run, f"back-{number}", code(use, use["step"]), moment_of(use, 0, old)), use
        later = old.reading(HOUR)
        assert verify(run, f"back-{number}", code(seed, step_of(seed, later)), later)
    assert any(one["seed"] == seed["seed"] for one in old.used for seed in old.gone)


def test_callers_that_had_to_wait_wait_as_long_as_before(old: OldState, run: Run) -> None:
    assert len(old.waits) >= 6
    for wait in old.waits:
        with pytest.raises(Throttled) as caught:
            verify(run, wait["account"], "000000", old.reading(), wait["origin"])
        assert caught.value.retry_after == pytest.approx(wait["seconds"], abs=1), wait


def test_callers_that_were_known_are_known_and_their_failures_are_theirs(old: OldState, run: Run) -> None:
    """`guessed` is closed to callers that are not known; `known` has failed twice there."""
    at = old.reading()
    assert not verify(run, "guessed", "000000", at, "known")
    assert not verify(run, "guessed", "000000", at, "known")
    with pytest.raises(Throttled):
        verify(run, "guessed", "000000", at, "known")
    later = old.reading(HOUR)
    of = old.accounts["guessed"]
    with pytest.raises(Throttled):
        verify(run, "guessed", code(of, step_of(of, later)), later, "another")
    assert verify(run, "guessed", code(of, step_of(of, later)), later, "known")


def test_an_account_that_was_unthrottled_can_be_so_twice_more(old: OldState, run: Run) -> None:
    for left in (1, 0):
        result = call(run.agent, "unthrottle", ROOT, old.reading(), store=run.store, account="unthrottled")
        assert result == {"account": "unthrottled", "left": left}


def test_failures_for_a_name_stay_when_an_account_of_version_0_1_0_is_replaced_or_made_again(
    old: OldState,
) -> None:
    with old.running() as run:
        call(run.agent, "remove", ROOT, old.reading(), store=run.store, account="spare")
    with old.running() as run:
        args: dict[str, Any] = {"account": "spare", "sealed": sealed(b"another seed of the test")}
        call(run.agent, "load", ROOT, old.reading(), store=run.store, **args)
        with pytest.raises(Throttled):
            verify(run, "spare", "000000", old.reading(), "")
        call(
            run.agent,
            "load",
            ROOT,
            old.reading(),
            store=run.store,
            account="default",
            sealed=sealed(b"a third seed of the test"),
            replace=True,
        )
        with pytest.raises(Throttled):
            verify(run, "default", "000000", old.reading(), "tired")


@BOTH
def test_a_rotation_after_the_migration_seals_all_seeds_anew_and_loses_none(old: OldState) -> None:
    public = old.private().public_key()
    with old.running() as run, MasterKey() as master:
        master.adopt_digests(run.keyring.master)
        before = {one.fixed: one.sealed for one in run.keyring.seeds()}
        resealed = finish(run.keyring.all_resealed(master))
        slots = {rsakeys.fingerprint(public): master.wrap(public)}
        keep(run.store, [Rotation(master, slots, resealed, master.sealed_digest_key())])
    with old.running() as run:
        after = {one.fixed: one.sealed for one in run.keyring.seeds()}
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values())
        assert_only_new_codes_are_good(old, run)

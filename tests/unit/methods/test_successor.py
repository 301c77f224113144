"""A successor: which codes count, what is spent, and what a deadline does."""

import pytest
from support.agents import OTHER_SEED, ROOT, SEED, STEP, USUAL, reference_code
from support.authenticators import main_of
from support.host import Host
from support.successors import HOUR, NEW, in_hours, listed, new_is_good, old_is_good, rows, succeed, use_due

from pki2fad.errors import Unavailable
from pki2fad.rules.changes import Edit
from pki2fad.wire.messages import Request

BEFORE_SAME_CODE = 367_000  # where the search for a seed begins


def test_both_seeds_are_good_until_the_first_code_of_the_new_one(host: Host) -> None:
    assert succeed(host)
    assert old_is_good(host)
    host.wait(30)
    assert old_is_good(host)
    assert new_is_good(host)
    host.wait(30)
    assert not old_is_good(host)
    assert not old_is_good(host, 1)
    host.wait(60)
    assert new_is_good(host)


def test_the_old_seeds_codes_are_generated_until_then(host: Host) -> None:
    succeed(host)
    assert host.call("generate")["code"] == reference_code(SEED, host.step())
    assert new_is_good(host)
    assert host.call("generate")["code"] == reference_code(OTHER_SEED, host.step(60), NEW)


def test_it_is_listed_and_takes_the_accounts_place(host: Host) -> None:
    assert listed(host)["successor"] is None
    deadline = in_hours(host, 24)
    succeed(host, deadline=deadline, cutover=True)
    of = {"algorithm": "SHA256", "digits": 8, "period": 60}
    row = listed(host)
    assert row["successor"] == {**of, "deadline": deadline, "cutover": True}
    assert (row["algorithm"], row["digits"], row["period"]) == ("SHA1", 6, 30)
    assert new_is_good(host, -1)
    last_used = (host.step(60) - 1) * 60
    assert main_of(listed(host)) == {
        "account": "default",
        **of,
        "last_used": last_used,
        "offset": 0,
        "drift": [-1],
        "successor": None,
    }


@pytest.mark.parametrize("restart", ["restart", "kill", "reboot"])
def test_no_code_of_either_seed_is_good_twice_across_restarts(host: Host, restart: str) -> None:
    succeed(host)
    assert old_is_good(host)
    step, new_step = host.step(), host.step(60)
    getattr(host, restart)()
    if restart == "reboot":
        with pytest.raises(Unavailable):
            new_is_good(host)
        host.wait(150)
    assert not host.verify(step)
    assert old_is_good(host, 1)
    assert new_is_good(host)
    new_step = host.step(60)
    getattr(host, restart)()
    if restart == "reboot":
        host.wait(150)
    assert not host.verify(new_step, seed=OTHER_SEED, of=NEW)
    assert new_is_good(host, 1)
    host.load()
    assert not host.verify(step)
    assert listed(host)["last_used"] >= (step + 1) * 30


def test_what_the_old_seed_accepted_stays_spent_when_it_comes_back(host: Host) -> None:
    succeed(host)
    assert old_is_good(host)
    assert new_is_good(host)
    host.load()
    assert not old_is_good(host)
    assert old_is_good(host, 1)
    host.load(seed=OTHER_SEED, of=NEW)
    assert not new_is_good(host)


def test_a_promotion_moves_nothing_until_it_is_kept(host: Host) -> None:
    succeed(host)
    code = reference_code(OTHER_SEED, host.step(60), NEW)
    change = host.agent.handle(Request(1, "verify", {"code": code}), ROOT, host.reading).change
    assert isinstance(change, Edit)
    assert listed(host)["successor"] is not None
    assert old_is_good(host)
    assert host.keep(change)
    assert listed(host)["successor"] is None
    assert not host.call("verify", code=code)["valid"]


# A code of both


def seed_with_the_same_code() -> bytes:
    """A seed whose code of STEP is that of SEED, by search."""
    number = BEFORE_SAME_CODE
    while reference_code(number.to_bytes(20), STEP) != reference_code(SEED, STEP):
        number += 1
    return number.to_bytes(20)


def test_a_code_that_matches_both_is_accepted_once_and_spends_both(host: Host) -> None:
    seed = seed_with_the_same_code()
    succeed(host, seed, USUAL)
    assert host.verify(STEP)
    assert listed(host)["successor"] is None  # it was a code of the successor
    assert listed(host)["last_used"] == STEP * 30
    assert not host.verify(STEP, seed=seed)
    host.kill()
    assert not host.verify(STEP, seed=seed)
    host.load()
    assert listed(host)["last_used"] == STEP * 30
    assert not host.verify(STEP)


def test_a_code_of_both_that_is_spent_for_one_is_not_good_for_the_other(host: Host) -> None:
    seed = seed_with_the_same_code()
    assert host.verify(STEP)
    succeed(host, seed, USUAL)
    assert not host.verify(STEP, seed=seed)
    assert host.verify(STEP + 1, seed=seed)


# Deadlines


@pytest.mark.parametrize("permanent", [False, True], ids=["by the reading", "kept"])
def test_at_the_deadline_the_successor_is_dropped(host: Host, permanent: bool) -> None:
    succeed(host, deadline=in_hours(host, 1))
    host.wait(HOUR - 1)
    assert use_due(host) == 0
    assert listed(host)["successor"] is not None
    host.wait(1)
    assert use_due(host) == 1 if permanent else True
    assert rows(host.path, "successors") == (0 if permanent else 1)
    assert listed(host)["successor"] is None
    assert not new_is_good(host)
    assert old_is_good(host)
    host.kill()
    assert not new_is_good(host)
    assert old_is_good(host, 1)


@pytest.mark.parametrize("permanent", [False, True], ids=["by the reading", "kept"])
def test_at_the_deadline_with_cutover_the_old_seed_is_dropped(host: Host, permanent: bool) -> None:
    succeed(host, deadline=in_hours(host, 1), cutover=True)
    host.wait(HOUR - 30)
    assert old_is_good(host)
    spent = host.step()
    host.wait(30)
    assert use_due(host) == 1 if permanent else True
    assert listed(host)["algorithm"] == "SHA256"
    assert host.call("generate")["code"] == reference_code(OTHER_SEED, host.step(60), NEW)
    assert not old_is_good(host)
    host.kill()
    assert not old_is_good(host)
    assert new_is_good(host)
    assert use_due(host) == 0
    host.load()
    assert not host.verify(spent)
    assert old_is_good(host)


def test_a_deadline_by_a_clock_that_is_not_believed_is_not_made_permanent(host: Host) -> None:
    succeed(host, deadline=in_hours(host, 24), cutover=True)
    right = host.wall
    host.set(right + 48 * HOUR)
    assert not old_is_good(host)
    assert use_due(host) == 0
    host.set(right)
    assert old_is_good(host)
    assert new_is_good(host)


def test_a_resync_after_the_cutover_is_of_the_new_seed(host: Host) -> None:
    succeed(host, deadline=in_hours(host, 1), cutover=True)
    host.wait(HOUR)
    first, second = (reference_code(OTHER_SEED, host.step(60) + ahead, NEW) for ahead in (4, 5))
    assert host.call("resync", first=first, second=second)["offset"] == 5
    assert (listed(host)["offset"], rows(host.path, "successors")) == (5, 0)
    assert new_is_good(host, 6)
    assert not old_is_good(host)


def test_a_resync_before_leaves_the_successor(host: Host) -> None:
    succeed(host)
    first, second = (reference_code(SEED, host.step() + ahead) for ahead in (4, 5))
    host.call("resync", first=first, second=second)
    host.kill()
    assert listed(host)["offset"] == 5
    assert new_is_good(host)

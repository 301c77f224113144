"""How long a failure has to be waited for, whose it is, and what an account lets by in all."""

import math

import pytest
from support.throttles import DAY, HOUR, NOW, STARTED, SUCCESSOR, WINDOW, Account, is_known, make_throttle

from pki2fad.rules.clock import Reading
from pki2fad.rules.throttle import Throttle

costs = pytest.mark.parametrize("cost", [WINDOW, SUCCESSOR])


# Waiting


@costs
def test_the_first_three_failures_wait_nothing(account: Account, cost: int) -> None:
    for _ in range(3):
        assert account.wait(NOW, cost=cost) == 0
        account.fail(NOW, cost=cost)


@costs
def test_the_first_three_failures_of_one_who_is_known_wait_nothing(account: Account, cost: int) -> None:
    account.succeed(NOW)
    account.fill(NOW)
    for _ in range(3):
        assert account.wait(NOW, cost=cost) == 0
        account.fail(NOW, cost=cost)


def test_the_wait_doubles_after_the_fourth_failure_until_a_day_is_to_be_waited_for_each(
    account: Account,
) -> None:
    now, waits = NOW, []
    for _ in range(9):
        wait = account.wait(now)
        now += wait
        waits.append(wait)
        account.fail(now)
    assert waits == pytest.approx([0, 0, 0, 0, 60, 120, DAY - 180, DAY, DAY], rel=0.001)


@pytest.mark.parametrize("cost", [WINDOW, SUCCESSOR, 12, 16])
def test_with_more_candidates_a_failure_takes_as_much_longer_to_be_forgotten(
    account: Account, cost: int
) -> None:
    account.tire(NOW, cost=cost)
    assert account.wait(NOW, cost=cost) == cost * DAY / 3


@costs
@pytest.mark.parametrize("failures", [4, 5, 6, 7, 20])
def test_after_the_wait_that_was_told_one_may_try_and_a_second_before_not(
    account: Account, failures: int, cost: int
) -> None:
    now = NOW + 0.3
    for _ in range(failures):
        now += math.ceil(account.wait(now, cost=cost))
        assert account.wait(now, cost=cost) == 0
        account.fail(now, cost=cost)
    wait = math.ceil(account.wait(now, cost=cost))
    assert account.wait(now + wait - 1, cost=cost) > 0
    assert account.wait(now + wait, cost=cost) == 0


@pytest.mark.parametrize(("cost", "days"), [(WINDOW, 6), (SUCCESSOR, 12), (12, 24), (32, 64)])
def test_who_waited_until_the_bucket_is_empty_begins_anew(account: Account, cost: int, days: int) -> None:
    account.tire(NOW, cost=cost)
    now = NOW + days * DAY
    for _ in range(3):
        assert account.wait(now, cost=cost) == 0
        account.fail(now, cost=cost)
    assert account.wait(now, cost=cost) == 0


# Whose failures are whose


@pytest.mark.parametrize(
    ("name", "uid", "origin"),
    [("default", 2, ""), ("default", 1, "192.0.2.1"), ("other", 1, ""), ("default", 11, "")],
    ids=["uid", "origin", "account", "longer uid"],
)
def test_another_uid_or_origin_or_account_waits_for_nothing(
    account: Account, name: str, uid: int, origin: str
) -> None:
    account.tire(NOW)
    assert account.wait(NOW) > 0
    other = account if name == account.name else Account(account.throttle, name)
    assert other.wait(NOW, uid, origin) == 0


def test_no_two_keys_are_written_alike(throttle: Throttle) -> None:
    of = [(1, "", "ab"), (1, "b", "a"), (1, "ab", "a"), (1, "a\0b", "a"), (11, "", "ab"), (1, "\0", "ab")]
    of += [(1, "\udcff", "a"), (1, "\ufffd", "a"), (1, "?", "a"), (1, "1", "1"), (1, "", "1"), (11, "", "1")]
    assert len({throttle.key(uid, origin, name.encode()).digest for uid, origin, name in of}) == len(of)


def test_nobody_can_tell_who_will_share_a_slot(throttle: Throttle) -> None:
    other = make_throttle(secret=b"another secret")
    same = sum(throttle.key(uid, "", b"a").slot == other.key(uid, "", b"a").slot for uid in range(1000))
    assert same < 5


@pytest.mark.parametrize(
    ("name", "uid", "origin"),
    [("default", 2, ""), ("default", 1, "192.0.2.1"), ("other", 1, "")],
    ids=["uid", "origin", "account"],
)
@pytest.mark.parametrize("known", [False, True])
def test_a_success_clears_nothing_but_its_own(
    account: Account, name: str, uid: int, origin: str, known: bool
) -> None:
    other = account if name == account.name else Account(account.throttle, name)
    if known:
        other.succeed(NOW, uid, origin)
    account.tire(NOW)
    other.tire(NOW, uid, origin)
    waits, level = other.wait(NOW, uid, origin), account.tally.level
    account.succeed(NOW)
    assert other.wait(NOW, uid, origin) == waits > 0
    assert account.tally.level == level


def test_a_success_clears_its_own(account: Account) -> None:
    account.tire(NOW)
    for _ in range(2):  # when it is not yet known, and when it is
        account.succeed(NOW)
        for _ in range(3):
            assert account.wait(NOW) == 0
            account.fail(NOW)
        account.tire(NOW)
        assert account.wait(NOW) > 0


# The account's ceiling


@costs
def test_the_ceiling_of_an_account_binds_who_never_tried(account: Account, cost: int) -> None:
    for uid in range(162 // cost):
        assert account.wait(NOW, uid, cost=cost) == 0
        account.fail(NOW, uid, cost=cost)
    assert account.wait(NOW, 4711, cost=cost) == cost * DAY / 27
    assert account.wait(NOW, 4711, "an origin", cost=cost) == cost * DAY / 27
    assert Account(account.throttle, "other").wait(NOW, 4711, cost=cost) == 0


@pytest.mark.parametrize(("cost", "callers"), [(WINDOW, 9), (12, 3), (32, 1)])
def test_so_many_callers_use_up_the_budget_of_an_account(account: Account, cost: int, callers: int) -> None:
    for uid in range(callers):
        assert account.wait(NOW, 4711, cost=cost) == 0
        account.tire(NOW, uid, cost=cost)
    assert account.wait(NOW, 4711, cost=cost) > 0


def test_the_ceiling_does_not_bind_who_is_known(account: Account) -> None:
    account.succeed(NOW, 1, "an origin")
    account.fill(NOW)
    assert account.wait(NOW, 1, "an origin") == 0
    assert account.wait(NOW, 1, "another") > 0
    assert account.wait(NOW, 2, "an origin") > 0


def test_who_is_known_is_bound_by_their_own_bucket(account: Account) -> None:
    account.succeed(NOW)
    account.tire(NOW)
    assert account.wait(NOW) == DAY


def test_what_those_who_are_known_do_wrong_counts_for_the_account(account: Account) -> None:
    account.succeed(NOW)
    account.fill(NOW, range(1000, 1053))
    assert account.wait(NOW, 2) == 0
    account.fail(NOW)
    assert account.wait(NOW, 2) > 0


def test_a_flood_does_not_fill_the_account_beyond_its_ceiling(account: Account) -> None:
    account.fill(NOW, range(1000, 3000))
    assert account.wait(NOW) == WINDOW * DAY / 27


# The clock


@pytest.mark.parametrize("step", [-1e9, -60.0, 60.0, 1e9])
def test_a_step_of_the_wall_clock_moves_nothing(throttle: Throttle, account: Account, step: float) -> None:
    account.succeed(NOW, 2)
    account.tire(NOW)
    stepped = throttle.now(Reading(STARTED.wall + HOUR + step, STARTED.boot + HOUR))
    assert stepped == throttle.now(Reading(STARTED.wall + HOUR, STARTED.boot + HOUR)) == NOW + HOUR
    assert account.wait(stepped) == DAY - HOUR
    assert is_known(account, stepped, 2)


def test_a_reading_that_is_older_than_the_last_one_is_taken_for_it(account: Account) -> None:
    account.tire(NOW)
    account.fill(NOW)
    assert account.wait(NOW - 10) == DAY
    assert account.wait(NOW - 10, 2) == WINDOW * DAY / 27


def test_time_goes_on_over_a_restart_by_the_wall_clock(account: Account) -> None:
    account.tire(NOW)
    restarted = make_throttle(account.slots, Reading(NOW + HOUR, boot=1.0))
    after = Account(restarted)
    assert after.wait(restarted.now(Reading(NOW + HOUR, boot=1.0 + HOUR))) == DAY - 2 * HOUR


# Without


def test_switched_off_nobody_waits_and_nothing_is_marked(throttle: Throttle, account: Account) -> None:
    account.tire(NOW)
    account.fill(NOW)
    throttle.enabled = False
    before = account.tally
    assert account.wait(NOW) == account.wait(NOW, 2) == 0
    account.succeed(NOW)
    assert account.tally is before
    throttle.enabled = True
    assert account.wait(NOW) > 0

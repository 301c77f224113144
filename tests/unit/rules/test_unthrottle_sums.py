"""The sums of SECURITY.md: what unthrottling an account is worth to an attacker."""

import heapq
import math
from collections.abc import Sequence

import pytest
from support.throttles import DAY, NOW, WINDOW, make_throttle

from pki2fad.rules.tally import MARKS, NO_TALLY, RESETS, RESETS_WITHIN

CHANCE = 1e-6  # of one comparison
FOUR = 12  # the cost of a failure with four TOTP authenticators
A_YEAR = 162 + 365 * 27  # comparisons that an account lets by without any unthrottling


def compared(
    strangers: int, known: int, days: float, unthrottled: Sequence[float] = (), cost: int = WINDOW
) -> tuple[int, int]:
    """The comparisons that strangers and known callers get in `days` days, as fast as they may.

    `unthrottled` are the days on which an administrator unthrottles the account.
    """
    throttle, tally = make_throttle(), NO_TALLY
    for uid in range(known):
        tally = throttle.succeed(throttle.key(uid, "", b"default"), tally, NOW)
    count = {True: 0, False: 0}
    times = [NOW + day * DAY for day in unthrottled]
    waiting = [(NOW, uid) for uid in range(known + strangers)]
    while waiting and waiting[0][0] < NOW + days * DAY:
        now, uid = heapq.heappop(waiting)
        if times and now >= times[0]:
            tally = tally.reset(times.pop(0))
        key = throttle.key(uid, "", b"default", tally.resets)
        wait = math.ceil(throttle.wait(key, tally, cost, now))
        if wait == 0:
            tally, _ = throttle.fail(key, tally, cost, now)
            count[uid < known] += cost
        next_time = now + wait
        if times and now < times[0] < next_time:
            next_time = times[0]
        heapq.heappush(waiting, (next_time, uid))
    return count[False], count[True]


def test_an_unthrottling_is_worth_162_comparisons_to_strangers() -> None:
    without, _ = compared(40, 0, 20)
    once, _ = compared(40, 0, 20, [10])
    thrice, _ = compared(40, 0, 20, [10, 10.5, 11])
    assert 162 - WINDOW <= once - without <= 162
    assert 3 * (162 - WINDOW) <= thrice - without <= 3 * 162


@pytest.mark.parametrize(("cost", "failures"), [(WINDOW, 18), (FOUR, 72)])
@pytest.mark.parametrize("known", [1, 16])
def test_an_unthrottling_is_worth_six_failures_to_each_known_caller(
    known: int, cost: int, failures: int
) -> None:
    _, without = compared(0, known, 20, cost=cost)
    _, once = compared(0, known, 20, [10], cost=cost)
    assert (failures - cost) * known <= once - without <= failures * known


@pytest.mark.parametrize(("cost", "in_a_month"), [(WINDOW, 108), (FOUR, 162)])
@pytest.mark.parametrize("known", [1, 16])
def test_a_known_caller_gets_six_failures_and_three_comparisons_a_day_for_thirty_days(
    known: int, cost: int, in_a_month: int
) -> None:
    _, found = compared(0, known, 40, cost=cost)
    _, later = compared(0, known, 30, cost=cost)
    assert (in_a_month - cost) * known <= later <= in_a_month * known
    assert found > later  # after that as an unknown one


def test_all_together_get_no_more_than_both_sums() -> None:
    without, once = compared(40, MARKS, 20), compared(40, MARKS, 20, [10])
    assert MARKS == 16
    assert sum(once) - sum(without) <= 162 + 16 * 18 == 450


@pytest.mark.slow
def test_in_a_year_in_which_nobody_forces_it_strangers_find_a_code_with_less_than_two_percent() -> None:
    days = [day + 0.01 * time for day in range(0, 365, 30) for time in range(RESETS)]
    assert (RESETS, RESETS_WITHIN, len(days)) == (3, 30 * DAY, 39)
    found, _ = compared(20, 0, 365, days)
    assert 0.98 * (A_YEAR + 39 * 162) < found <= A_YEAR + 39 * 162 == 16_335
    assert pytest.approx(0.0162, abs=0.00005) == 1 - (1 - CHANCE) ** 16_335

"""Failures of different costs in one bucket, and what callers are hashed with."""

import hashlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import make_keyring
from support.throttles import DAY, NOW, STARTED, WINDOW, Account, is_known, make_throttle

from pki2fad.rules.clock import Reading
from pki2fad.rules.otp import Parameters
from pki2fad.rules.tally import Level, Tally, caller_of_id, caller_of_name, with_costs
from pki2fad.rules.throttle import Throttle, cost_of_failure

FOUR = 12  # the cost of a failure with four TOTP authenticators
MOST = 32  # with four of HOTP, and a waiting one for each

costs = st.sampled_from([WINDOW, 4, 6, 7, FOUR, 16, MOST])
known_or_not = pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])


def test_a_failure_costs_three_for_totp_and_four_for_hotp() -> None:
    keyring = make_keyring()
    totp, hotp = (
        keyring.seal("default", bytearray(20), of) for of in (Parameters(), Parameters(period=0, kind="hotp"))
    )
    for seeds, cost in (([totp], 3), ([hotp], 4), ([totp] * 4, 12), ([totp, hotp], 7), ([hotp] * 8, 32)):
        assert cost_of_failure(seeds) == cost


@pytest.mark.parametrize("cost", [WINDOW, 4, 6, FOUR, 16, MOST])
def test_six_failures_fit_at_every_cost_with_the_same_waits_between(account: Account, cost: int) -> None:
    now, waits = NOW, []
    for _ in range(8):
        wait = account.wait(now, cost=cost)
        now += wait
        waits.append(wait)
        account.fail(now, cost=cost)
        account.tally = account.tally.with_level(Level())  # it is about the caller alone
    a_failure = cost / WINDOW * DAY
    assert waits == pytest.approx([0, 0, 0, 0, 60, 120, a_failure - 180, a_failure], rel=0.001)


# In one bucket


def fail_as_told(
    account: Account, costs: Iterator[int], days: float, uids: tuple[int, ...] = (1,)
) -> list[tuple[float, int]]:
    """The times and costs of a caller's failures in so many days, each as soon as it is let."""
    failures, now = [], NOW
    for number, cost in enumerate(costs):
        account.tally = account.tally.with_level(Level())  # it is about the caller's bucket alone
        now += account.wait(now, uids[number % len(uids)], cost=cost)
        if now >= NOW + days * DAY:
            return failures
        account.fail(now, uids[number % len(uids)], cost=cost)
        failures.append((now, cost))
    return failures


def sharing(throttle: Throttle) -> tuple[Account, Account]:
    """Two accounts for which the caller 1 has one slot."""
    first = Account(throttle, "a")
    slot = throttle.key(1, "", first.caller).slot
    names = (f"n{number}" for number in itertools.count())
    name = next(name for name in names if throttle.key(1, "", name.encode()).slot == slot)
    return first, Account(throttle, name)


@known_or_not
@given(mix=st.lists(costs, min_size=1, max_size=12), days=st.integers(1, 120))
def test_no_mix_of_costs_gives_more_than_six_failures_and_three_units_a_day_at_the_highest(
    known: bool, mix: list[int], days: int
) -> None:
    account = Account(make_throttle())
    if known:
        account.succeed(NOW)
    failures = fail_as_told(account, itertools.cycle(mix), min(days, 30))
    for first in range(len(failures)):
        units = 0
        for at, cost in failures[first:]:
            units += cost
            assert units <= 6 * max(mix) + 3 * (at - failures[first][0]) / DAY + 1e-6


@known_or_not
@given(mix=st.lists(costs, min_size=1, max_size=12))
def test_no_mix_of_costs_gives_more_failures_than_the_lowest_alone(known: bool, mix: list[int]) -> None:
    counts = []
    for of in (mix, [min(mix)]):
        account = Account(make_throttle())
        if known:
            account.succeed(NOW)
        counts.append(len(fail_as_told(account, itertools.cycle(of), 30)))
    assert counts[0] <= counts[1]


@given(attempts=st.lists(st.tuples(st.floats(0, 3 * DAY), costs, st.booleans()), min_size=1, max_size=60))
def test_whenever_they_try_two_accounts_in_one_slot_give_no_more_than_one(
    attempts: list[tuple[float, int, bool]],
) -> None:
    accounts, now, units, start = TWO_IN_A_SLOT, NOW, 0, NOW
    throttle = make_throttle()
    highest = max(cost for _, cost, _ in attempts)
    for pause, cost, which in attempts:
        now += pause
        key = throttle.key(1, "", accounts[which])
        if throttle.wait(key, Tally(), cost, now) == 0:
            throttle.fail(key, Tally(), cost, now)
            units += cost
    assert units <= 6 * highest + 3 * (now - start) / DAY + 1e-6


TWO_IN_A_SLOT = tuple(account.caller for account in sharing(make_throttle()))


@pytest.mark.parametrize(("first", "second"), [(WINDOW, FOUR), (FOUR, WINDOW)])
def test_in_a_shared_slot_all_failures_count_at_the_highest_cost(first: int, second: int) -> None:
    one, other = sharing(make_throttle())
    for _ in range(3):
        one.fail(NOW, cost=first)
        other.fail(NOW, cost=second)
    assert one.wait(NOW, cost=first) == other.wait(NOW, cost=second) == FOUR / WINDOW * DAY


def test_a_shared_slot_forgets_the_highest_cost_once_it_is_empty() -> None:
    one, other = sharing(make_throttle())
    one.fail(NOW, cost=FOUR)
    other.tire(NOW + 3.9 * DAY)
    assert other.wait(NOW + 3.9 * DAY) > 3.9 * DAY
    one, other = sharing(make_throttle())
    one.fail(NOW, cost=FOUR)
    other.tire(NOW + 4 * DAY)
    assert other.wait(NOW + 4 * DAY) == DAY


# An account whose authenticators change


@known_or_not
@pytest.mark.parametrize(("before", "after"), [(WINDOW, FOUR), (FOUR, WINDOW), (6, 7)])
@pytest.mark.parametrize("failures", [4, 6])
def test_another_cost_of_an_account_neither_frees_nor_holds_its_callers(
    account: Account, known: bool, before: int, after: int, failures: int
) -> None:
    if known:
        account.succeed(NOW)
    for _ in range(failures):
        account.fail(NOW, cost=before)
    account.tally = account.tally.with_level(Level())
    assert account.wait(NOW, cost=after) == account.wait(NOW, cost=before) > 0


def test_another_cost_of_an_account_clears_nothing_of_its_own_bucket(account: Account) -> None:
    account.fill(NOW)
    for cost in (FOUR, WINDOW, MOST):
        assert account.wait(NOW, uid=4711, cost=cost) == pytest.approx(cost * DAY / 27)


def test_while_a_known_caller_waits_at_an_earlier_cost_its_account_is_looked_at(account: Account) -> None:
    account.succeed(NOW)
    account.tire(NOW, cost=FOUR)
    for day, waits in ((3.9, True), (4.1, False)):
        now = NOW + day * DAY
        assert (account.wait(now) > 0) is waits
        assert account.throttle.may_refuse(account.tally, WINDOW, now) is waits


def test_the_cost_of_failures_is_known_after_a_restart(account: Account) -> None:
    account.succeed(NOW, 2)
    for uid in (1, 2):
        account.tire(NOW, uid, cost=FOUR)
    after = Account(make_throttle(account.slots, Reading(NOW + DAY, boot=7.0)))
    after.tally = after.throttle.as_loaded(account.tally)
    assert after.wait(NOW + DAY, 1) == after.wait(NOW + DAY, 2) == 3 * DAY


def test_the_marks_of_version_0_1_0_come_with_the_cost_that_all_had_then() -> None:
    account = Account(make_throttle())
    for uid in range(16):
        account.succeed(NOW, uid)
        account.fail(NOW, uid)
        size = len(account.tally.marks) // (uid + 1)
        marks = [account.tally.marks[at : at + size] for at in range(0, len(account.tally.marks), size)]
        assert with_costs(b"".join(mark[:-1] for mark in marks)) == account.tally.marks
        assert with_costs(account.tally.marks) == account.tally.marks
    assert with_costs(b"") == b""


# What callers are hashed with


@pytest.mark.parametrize("text", ["sixteen-letters_", "1", "0" * 16])
def test_an_id_is_no_name(throttle: Throttle, text: str) -> None:
    callers = [caller_of_name(text), caller_of_id(text.encode().ljust(16, b"\0"))]
    keys = {throttle.key(1, "", caller).digest for caller in callers}
    keys |= {throttle.key_to_resync(1, caller, 0).digest for caller in callers}
    assert len(keys) == 4


def test_no_id_runs_into_an_origin(throttle: Throttle) -> None:
    ids = [bytes(16), b"1" + bytes(15), bytes(15) + b"1", b"\0" * 14 + b"1\0"]
    origins = ["", "\0", "1", "\0001", "1\0"]
    keys = {
        throttle.key(uid, origin, caller_of_id(each)) for uid in (1, 11) for each in ids for origin in origins
    }
    assert len(keys) == 2 * len(ids) * len(origins)


def test_names_are_hashed_as_version_0_1_0_did() -> None:
    """Else who waits would be free, and who is known refused, after an upgrade."""
    throttle = Throttle(b"secret", (), STARTED)

    def digest(data: bytes, resets: int, person: bytes = b"") -> bytes:
        salt = resets.to_bytes(16, "big")
        return hashlib.blake2b(data, digest_size=16, key=b"secret", salt=salt, person=person).digest()

    key = throttle.key(7, "192.0.2.1", caller_of_name("alice"), 2)
    assert key.digest == digest(b"7\0alice\x00192.0.2.1", 0)
    assert key.slot == int.from_bytes(digest(b"7\0alice\x00192.0.2.1", 2)[:4], "big") % 49_152
    assert throttle.key_to_resync(7, caller_of_name("alice"), 2).digest == digest(b"7\0alice", 2, b"resync")


def test_a_caller_is_known_to_an_id_by_itself(account: Account) -> None:
    account.caller = caller_of_id(bytes(range(16)))
    account.succeed(NOW)
    assert is_known(account, NOW, 1)
    account.caller = caller_of_name("default")
    assert account.wait(NOW, 1) > 0

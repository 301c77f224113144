"""Who is known to an account, what the table holds, and what a flood can do."""

import random

import pytest
from support.throttles import DAY, HOUR, NOW, WINDOW, Account, is_known, make_throttle

from pki2fad.rules.clock import Reading
from pki2fad.rules.tally import EMPTY, Level, Tally
from pki2fad.rules.throttle import KEY_SLOTS, NAME_SLOTS, Throttle

# Marks


def test_a_mark_is_written_by_a_success_alone(account: Account) -> None:
    rng = random.Random(1)
    for _ in range(10_000):
        now, uid, origin = NOW + rng.random() * DAY, rng.randrange(100), str(rng.randrange(100))
        account.wait(now, uid, origin)
        account.fail(now, uid, origin)
    assert account.tally.marks == b""
    account.succeed(NOW)
    assert len(account.tally.marks) > 0


@pytest.mark.parametrize(("days", "known"), [(0.0, True), (29.9, True), (30.0, True), (30.001, False)])
def test_a_mark_lasts_for_thirty_days(account: Account, days: float, known: bool) -> None:
    account.succeed(NOW)
    assert is_known(account, NOW + days * DAY, 1) is known


def test_another_success_renews_a_mark_and_a_failure_does_not(account: Account) -> None:
    for uid in (1, 2):
        account.succeed(NOW, uid)
    account.succeed(NOW + 29 * DAY, 1)
    account.fail(NOW + 29 * DAY, 2)
    assert is_known(account, NOW + 31 * DAY, 1)
    assert not is_known(account, NOW + 31 * DAY, 2)


def test_who_was_known_once_can_be_so_again(account: Account) -> None:
    account.succeed(NOW)
    account.succeed(NOW + 40 * DAY)
    assert is_known(account, NOW + 69 * DAY, 1)


def test_a_success_that_changes_nothing_need_not_be_kept(account: Account) -> None:
    account.succeed(NOW)
    before = account.tally
    account.succeed(NOW + HOUR / 2)
    assert account.tally is before
    account.fail(NOW + HOUR / 2)
    account.succeed(NOW + HOUR / 2)
    assert account.tally is not before


def test_of_seventeen_marks_the_one_of_the_least_recent_success_goes(account: Account) -> None:
    for uid in range(16):
        account.succeed(NOW + uid * HOUR, uid)
    account.succeed(NOW + 17 * HOUR, 0)
    account.fail(NOW + 17 * HOUR, 1)  # which is no success
    account.succeed(NOW + 18 * HOUR, 16)
    known = [uid for uid in range(17) if is_known(account, NOW + 18 * HOUR, uid)]
    assert known == [0, *range(2, 17)]


def test_marks_are_exact_and_slots_are_shared(account: Account) -> None:
    key = account.throttle.key(1, "", account.caller)
    keys = (account.throttle.key(uid, "", account.caller) for uid in range(2, 1_000_000))
    uid, other = next((uid, other) for uid, other in enumerate(keys, 2) if other.slot == key.slot)
    assert other.digest != key.digest
    account.tire(NOW)
    assert account.wait(NOW, uid) == account.wait(NOW) > 0
    account.succeed(NOW)
    assert account.wait(NOW, uid) > 0
    assert account.wait(NOW) == 0


# The table


def test_a_table_that_was_kept_holds_after_a_restart(account: Account) -> None:
    account.tire(NOW)
    after = Account(make_throttle(account.slots, Reading(NOW + HOUR, boot=7.0)))
    after.tally = after.throttle.as_loaded(account.tally)
    assert after.wait(NOW + HOUR) == account.wait(NOW + HOUR) > 0
    assert after.tally == account.tally


def test_a_name_that_is_no_account_waits_as_an_account_does(throttle: Throttle) -> None:
    rng = random.Random(2)
    account, now, refused = Account(throttle, "default"), NOW, 0
    for _ in range(3_000):
        now += rng.random() * 600
        uid = rng.randrange(30)
        key = throttle.key(uid, "", b"nobody")
        tally = throttle.tally_of_unknown("nobody")
        wait = throttle.wait(key, tally, WINDOW, now)
        assert wait == account.wait(now, uid)
        refused += wait > 0
        if wait == 0:
            account.fail(now, uid)
            throttle.fail_unknown(key, "nobody", WINDOW, now)
    assert 500 < refused < 2_900


def flood(throttle: Throttle, now: float, count: int = 200_000) -> None:
    """Failures of random uids and origins, for an account and for names that are none."""
    rng = random.Random(3)
    account = Account(throttle, "flooded")
    for number in range(count):
        uid, origin, name = rng.getrandbits(32), rng.randbytes(8).hex(), f"n{rng.getrandbits(64):x}"
        if number % 4 == 0:
            account.fail(now, uid, origin)
        else:
            throttle.fail_unknown(throttle.key(uid, origin, name.encode()), name, WINDOW, now)


@pytest.mark.slow
def test_a_flood_of_names_origins_and_uids_takes_no_more_room_and_evicts_nobody(
    throttle: Throttle, account: Account
) -> None:
    for uid in range(200):
        account.tire(NOW, uid)
    known = Account(throttle, "known")
    known.succeed(NOW)
    later = NOW + DAY / 2
    before = [account.wait(later, uid) for uid in range(200)]
    flood(throttle, later)
    assert len(throttle._slots) <= KEY_SLOTS + NAME_SLOTS
    after = [account.wait(later, uid) for uid in range(200)]
    assert all(new >= old > 0 for new, old in zip(after, before, strict=True))
    assert known.wait(later) == 0


@pytest.mark.slow
def test_a_thousand_who_have_to_wait_keep_hardly_anybody_else_out(throttle: Throttle) -> None:
    for uid in range(1000):
        for _ in range(6):
            throttle.fail_unknown(throttle.key(uid, "", b"n%d" % uid), f"n{uid}", WINDOW, NOW)
    account = Account(throttle)
    keys_out = sum(account.wait(NOW, uid) > 0 for uid in range(1000))
    names_out = sum(throttle.tally_of_unknown(f"m{number}").level.units > 0 for number in range(1000))
    assert 0 < keys_out < 50
    assert 0 < names_out < 100


@pytest.mark.slow
def test_no_flood_keeps_anybody_out_for_longer_than_their_own_failures_could(throttle: Throttle) -> None:
    for uid in range(12):
        for number in range(10_000):
            name = f"name-{number}"
            throttle.fail_unknown(throttle.key(uid, "", name.encode()), name, WINDOW, NOW)
    account = Account(throttle)
    waits = [account.wait(NOW, uid) for uid in range(1_000)]
    assert max(waits) == DAY  # it does come to that: the table is full
    assert all(account.wait(NOW + 6 * DAY, uid) == 0 for uid in range(1_000))


@pytest.mark.parametrize("what", ["the success", "the bucket of the mark", "the bucket of the account"])
def test_each_of_the_future_at_a_start_is_of_now(account: Account, what: str) -> None:
    account.succeed(NOW + DAY if what == "the success" else NOW, 2)
    if what == "the bucket of the mark":
        account.fail(NOW + DAY, 2)
        account.tally = Tally(EMPTY, account.tally.marks)
    if what == "the bucket of the account":
        account.fail(NOW + DAY)
    throttle = make_throttle(account.slots)
    loaded = throttle.as_loaded(account.tally)
    assert loaded != account.tally
    assert loaded == make_throttle(account.slots, Reading(NOW, boot=7.0)).as_loaded(loaded)
    assert throttle.as_loaded(loaded) is loaded  # nothing is left that is of later than now


def test_what_is_of_the_future_at_a_start_is_of_now(account: Account) -> None:
    ahead = NOW + 3_650 * DAY
    account.succeed(ahead, 2)
    account.tire(ahead, 2)
    account.tire(ahead)
    account.fill(ahead)
    after = Account(make_throttle(account.slots))
    after.tally = after.throttle.as_loaded(account.tally)
    assert after.tally.level == Level(account.tally.level.units, NOW)
    assert after.wait(NOW) == after.wait(NOW, 2) == DAY
    assert after.wait(NOW, 3) == WINDOW * DAY / 27
    assert is_known(after, NOW + 30 * DAY, 2)
    assert not is_known(after, NOW + 30.1 * DAY, 2)

"""What a restore changes: no watermark comes down, the window is burnt, and it is all or nothing."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.agents import OTHER_SEED, SEED, Syncs, packed, reference_code, unpacked
from support.authenticators import main_of
from support.sites import Site

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import AccountExists, BadRequest, BadSeal, Unavailable, UnusableState
from pki2fad.rules.otp import Parameters
from pki2fad.transfer import backup
from pki2fad.transfer.content import Content
from pki2fad.wire import messages


@pytest.fixture
def other(tmp_path: Path, other_key: PrivateKey) -> Iterator[Site]:
    """Where they are restored, with another key and a new state."""
    with Site(tmp_path / "other.db", other_key) as other:
        yield other


def wait_for_codes(site: Site) -> None:
    """Until `verify` answers again; it takes two periods at most."""
    until = site.call("status")["unavailable_until"]
    assert until is not None
    assert until - site.wall <= 60
    site.wait(until - site.wall)


def test_an_account_comes_back_with_all_that_is_known_of_it(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    parameters = Parameters("SHA256", 8, 60)
    site.load("default", SEED)
    site.load("deploy", OTHER_SEED, parameters)
    assert site.verify(site.step() + 1)
    codes = [reference_code(OTHER_SEED, site.step(60) + 5 + i, parameters) for i in range(2)]
    assert site.call("resync", account="deploy", first=codes[0], second=codes[1])["offset"] == 6
    result = other.restore(site.backup(other_key))
    assert result == {"accounts": 2, "changed": ["default", "deploy"]}
    restored, known = ([main_of(row) for row in of.call("accounts")] for of in (other, site))
    assert restored[1].pop("last_used") == (site.step(60) + 1 + 6) * 60  # what may have been used since
    assert known[1].pop("last_used") == (site.step(60) + 6) * 60
    assert restored == known
    assert other.call("generate") == site.call("generate")


def test_what_a_prover_ahead_used_after_the_backup_is_not_good_again(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    site.load("default", SEED)
    other.load("default", SEED)
    codes = [reference_code(SEED, site.step() + 4 + i) for i in range(2)]
    assert site.call("resync", first=codes[0], second=codes[1])["offset"] == 5
    site.wait(60)
    data = site.backup(other_key)
    used = site.step() + 6
    assert site.verify(used)
    other.wait(60)
    other.restore(data)
    other.wait(120)
    for _ in range(12):
        other.wait(30)
        assert not other.verify(used)


def test_what_was_accepted_before_or_after_the_backup_is_not_good_again(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    site.load()
    assert site.verify(site.step() - 1)
    data = site.backup(other_key)
    assert site.verify(site.step())
    assert site.verify(site.step() + 1)
    other.restore(data)
    spent = site.step() + 1
    for step in (spent - 2, spent - 1, spent):
        with pytest.raises(Unavailable):
            other.verify(step)
    wait_for_codes(other)
    assert other.step() == spent + 1
    assert not other.verify(spent)
    assert other.verify(spent + 1)


@pytest.mark.parametrize("again", [Site.restart, Site.kill, Site.reboot])
def test_the_burnt_window_outlives_the_daemon(
    site: Site, other: Site, other_key: PrivateKey, again: object
) -> None:
    site.load()
    data = site.backup(other_key)
    assert site.verify(site.step() + 1)
    other.restore(data)
    spent = other.step() + 1
    again(other)
    with pytest.raises(Unavailable):
        other.verify(spent)
    wait_for_codes(other)
    assert not other.verify(spent)
    assert other.verify(spent + 1)


def test_a_period_that_comes_with_a_restore_is_leased(site: Site, other: Site, other_key: PrivateKey) -> None:
    sixty = Parameters(period=60)
    site.load("default", SEED, sixty)
    other.restore(site.backup(other_key))
    other.wait(120)
    syncs = Syncs(other.store)
    assert other.verify(other.step(60), of=sixty)
    assert syncs.count() == 1
    other.reboot()
    with pytest.raises(Unavailable):
        other.verify(other.step(60), of=sixty)


def test_a_restore_of_what_is_there_changes_nothing_but_burns_the_window(site: Site) -> None:
    site.load()
    data = site.backup()
    assert site.verify(site.step())
    watermark = site.step()
    assert site.restore(data) == {"accounts": 1, "changed": []}
    assert site.keyring.accounts["default"].last_step == watermark
    with pytest.raises(Unavailable):
        site.verify(site.step() + 1)


def test_the_watermark_of_the_same_seed_rises_and_the_rest_of_the_account_stays(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    site.load()
    other.load()
    assert other.verify(other.step() - 1)
    assert site.verify(site.step() + 1)
    drift = other.keyring.accounts["default"].drift
    assert other.restore(site.backup(other_key)) == {"accounts": 1, "changed": ["default"]}
    account = other.keyring.accounts["default"]
    assert (account.last_step, account.drift) == (site.step() + 1, drift)
    other.restart()
    assert other.keyring.accounts["default"].last_step == site.step() + 1


def test_accounts_that_are_not_in_the_backup_stay(site: Site, other: Site, other_key: PrivateKey) -> None:
    site.load()
    other.load("deploy", OTHER_SEED)
    other.restore(site.backup(other_key))
    assert [one["account"] for one in other.call("accounts")] == ["default", "deploy"]


@pytest.mark.parametrize(
    ("seed", "of"), [(OTHER_SEED, Parameters()), (SEED, Parameters(digits=8)), (SEED, Parameters(period=60))]
)
def test_another_seed_or_other_parameters_refuse_the_whole(
    site: Site, other: Site, other_key: PrivateKey, seed: bytes, of: Parameters
) -> None:
    site.load("alpha", OTHER_SEED)
    site.load("default", SEED)
    other.load("default", seed, of)
    before = other.rows()
    with pytest.raises(AccountExists, match="default"):
        other.restore(site.backup(other_key))
    assert other.rows() == before
    assert other.keyring.floors == {}
    assert [*other.keyring.accounts] == ["default"]
    assert other.restore(site.backup(other_key), replace=True)["changed"] == ["alpha", "default"]
    assert other.call("generate") == site.call("generate")


def test_a_seed_that_was_removed_or_replaced_takes_its_watermark_up(site: Site) -> None:
    site.load()
    data = site.backup()
    assert site.verify(site.step() + 1)
    spent = site.step() + 1
    site.call("remove")
    site.restore(data)
    assert site.keyring.accounts["default"].last_step == spent
    site.load("default", OTHER_SEED)
    assert site.restore(data, replace=True)["changed"] == ["default"]
    assert site.keyring.accounts["default"].last_step == spent
    site.restart()
    assert site.keyring.accounts["default"].last_step == spent


def test_seeds_that_change_their_names_keep_their_watermarks(site: Site) -> None:
    site.load("a", SEED)
    site.load("b", OTHER_SEED)
    data = site.backup()
    site.load("b", bytes(20))
    site.load("a", OTHER_SEED)  # takes up what b had
    assert site.verify(site.step() + 1, "a", OTHER_SEED)
    spent = site.step() + 1
    site.restore(data, replace=True)
    assert site.keyring.accounts["b"].last_step == spent
    assert site.keyring.accounts["a"].last_step == -1


def test_a_clock_a_little_behind_the_backups_burns_up_to_it_whatever_is_accepted(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    site.load()
    site.wait(500)
    other.restore(site.backup(other_key))
    with pytest.raises(Unavailable) as refused:
        other.verify(other.step())
    assert 500 < refused.value.retry_after <= 560
    other.call("clock_accept")  # nothing says that the backup's clock was ahead
    other.wait(60)
    with pytest.raises(Unavailable):
        other.verify(other.step())
    other.wait(700)
    assert other.verify(other.step())


@pytest.mark.parametrize("what", ["the backup", "its floors"])
def test_a_backup_of_a_clock_that_was_far_ahead_is_refused_and_changes_nothing(
    site: Site, other: Site, other_key: PrivateKey, what: str
) -> None:
    site.load()
    site.set(site.wall + 365 * 86_400)
    assert site.verify(site.step())
    if what == "its floors":
        site.reboot()
        site.set(site.wall - 365 * 86_400)
    other.load("mine")
    before = other.rows()
    with pytest.raises(BadRequest, match="later than now"):
        other.restore(site.backup(other_key))
    assert other.rows() == before
    assert other.verify(other.step(), "mine")


def test_a_backup_after_a_cutover_has_the_seed_that_took_over(
    site: Site, other: Site, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    site.load()
    deadline = int(site.wall) + 100
    sealed = sealing.seal_seed(host_key.public_key(), bytearray(OTHER_SEED))
    site.call("load", sealed=sealed, successor=True, deadline=deadline, cutover=True)
    site.wall += 200  # the time is not believed yet: nothing was made permanent
    code = site.call("generate")["code"]
    assert code == reference_code(OTHER_SEED, site.step())
    other.set(site.wall)
    other.restore(site.backup(other_key))
    assert other.call("generate")["code"] == code


def test_what_the_clock_made_doubtful_is_doubtful_where_it_is_restored(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    right = site.wall
    site.load()
    site.set(right + 3600)
    assert site.verify(site.step())
    ahead = site.step()
    site.set(right)
    site.call("clock_accept")
    data = site.backup(other_key)
    for _ in range(2):
        other.restore(data)
    assert other.watch.spent == site.watch.spent != []
    other.wait(3600)
    with pytest.raises(Unavailable):
        other.verify(ahead)
    other.restart()
    with pytest.raises(Unavailable):
        other.verify(ahead)


def with_spent(site: Site, key: PrivateKey, count: int) -> bytes:
    """A backup that says that the clock was ahead so often, each time twice."""
    public = key.public_key()
    spent = [(site.wall + 2 * index, site.wall + 2 * index + 1) for index in range(1, count + 1)]
    with MasterKey() as master:
        slots = {rsakeys.fingerprint(public): master.wrap(public)}
        return packed(Content(int(site.wall), [], {}, spent * 2), slots, master)


def test_restores_never_make_verify_look_at_more_than_a_thousand_intervals(
    other: Site, other_key: PrivateKey
) -> None:
    for _ in range(2):
        other.restore(with_spent(other, other_key, 700))
        assert len(other.watch.spent) == 700
    for more in (1001, 1100):
        with pytest.raises(BadRequest, match="more than 1000 times"):
            other.restore(with_spent(other, other_key, more))
    assert len(other.watch.spent) == 700
    other.restore(with_spent(other, other_key, 1000))
    other.restart()
    assert len(other.watch.spent) == 1000


def test_floors_in_the_backup_hold(site: Site, other: Site, other_key: PrivateKey) -> None:
    site.load()
    site.set(site.wall + 300)
    assert site.verify(site.step())
    ahead = site.step()
    site.reboot()
    site.set(site.wall - 300)
    other.restore(site.backup(other_key))
    assert other.keyring.floors[30] >= (ahead + 1) * 30
    assert other.store.floors() == other.keyring.floors


def test_all_of_it_is_one_synced_transaction(site: Site, other: Site, other_key: PrivateKey) -> None:
    for number in range(500):  # more than one part
        site.load(f"user{number}", os.urandom(32))
    data = site.backup(other_key)
    assert len(data) > messages.PART_LIMIT
    syncs = Syncs(other.store)
    assert other.restore(data)["accounts"] == 500
    assert syncs.count() == 1
    other.kill()
    assert len(other.keyring.accounts) == 500


def test_what_cannot_be_kept_changes_nothing(site: Site, other: Site, other_key: PrivateKey) -> None:
    site.load()
    data = site.backup(other_key)
    other.store.file.database.execute(
        "CREATE TRIGGER full BEFORE INSERT ON spent BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    site.watch.spent.append((site.wall, site.wall + 10.0))
    before = other.rows()
    with pytest.raises(UnusableState):
        other.restore(site.backup(other_key))
    assert other.rows() == before
    assert (other.keyring.accounts, other.keyring.floors, other.watch.spent) == ({}, {}, [])
    other.store.file.database.execute("DROP TRIGGER full")
    assert other.restore(data)["changed"] == ["default"]


def test_a_byte_that_changed_refuses_the_whole(site: Site) -> None:
    site.load()
    data = site.backup()
    site.load("default", OTHER_SEED)
    before = site.rows()
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(BadSeal):
            site.restore(bytes(damaged), replace=True)
    for length in (*range(0, len(data), 101), len(data) - 1):
        with pytest.raises(BadSeal):
            site.restore(data[:length], replace=True)
    assert site.rows() == before


def test_a_seed_that_was_moved_to_another_account_refuses_the_whole(site: Site, host_key: PrivateKey) -> None:
    site.load("a", SEED)
    site.load("b", OTHER_SEED)
    master = site.agent._admin._keys.open_backup(data := site.backup())
    content = unpacked(data, master)
    one, two = content.records
    swapped = [replace(a, sealed=b.sealed) for a, b in ((one, two), (two, one))]
    fingerprint = rsakeys.fingerprint(host_key.public_key())
    wrapped = {fingerprint: backup.slot(data, fingerprint)}
    forged = packed(Content(content.created, swapped, {}, []), wrapped, master)
    before = site.rows()
    with pytest.raises(BadSeal):
        site.restore(forged, replace=True)
    assert site.rows() == before


def test_keys_that_cannot_be_used_are_refused(site: Site, host_key: PrivateKey) -> None:
    for pem in (b"", b"nothing", rsakeys.private_pem(host_key)):
        with pytest.raises(BadRequest):
            site.call("backup", to=pem)


def public_keys(key: PrivateKey, count: int) -> bytes:
    """Public keys, of which nobody has the private halves."""
    modulus = key.public_key().public_numbers().n
    numbers = [rsa.RSAPublicNumbers(65537, modulus - 2 * number) for number in range(1, count + 1)]
    return b"".join(rsakeys.public_pem(one.public_key()) for one in numbers)


def test_a_backup_is_for_16_keys_at_most(site: Site, host_key: PrivateKey) -> None:
    assert site.call("backup", to=public_keys(host_key, 16))["accounts"] == len(site.keyring.accounts)
    with pytest.raises(BadRequest, match="at most 16 keys, not 17"):
        site.call("backup", to=public_keys(host_key, 17))

"""What a batch changes: what as many loads would, all of it or nothing."""

import json
from typing import Any

import pytest
from support.agents import OTHER_SEED, SEED, USUAL, Syncs, reference_code
from support.sites import Site

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import AccountExists, BadSeal, Locked, UnusableState
from pki2fad.rules.authenticator import UNKNOWN
from pki2fad.rules.otp import Parameters
from pki2fad.rules.tally import Level, Tally
from pki2fad.transfer import batch, entry
from pki2fad.transfer.batch import Unsealed
from pki2fad.transfer.entry import Entry

LONG = Parameters("SHA256", 8, 60)


def sealed(key: PrivateKey, of: Parameters = USUAL, **seeds: bytes) -> bytes:
    """A batch for the host of this key."""
    accounts = [Unsealed(name, of, bytearray(seed)) for name, seed in seeds.items()]
    with MasterKey() as master:
        return batch.pack(accounts, master.wrap(key.public_key()), master)


def load(site: Site, data: bytes, **more: Any) -> list[str]:
    """Load it; the accounts that it changed."""
    result = site.call("load_batch", batch=data, **more)
    assert result.keys() == {"accounts", "changed"}
    changed: list[str] = result["changed"]
    return changed


def test_its_accounts_are_there_with_their_seeds_and_parameters(site: Site, host_key: PrivateKey) -> None:
    assert load(site, sealed(host_key, LONG, a=SEED, b=OTHER_SEED)) == ["a", "b"]
    for again in (Site.restart, Site.kill):
        for name, seed in (("a", SEED), ("b", OTHER_SEED)):
            code = reference_code(seed, site.step(60), LONG)
            assert site.call("generate", account=name)["code"] == code
        again(site)
    assert site.verify(site.step(60), "a", SEED, LONG)
    assert site.call("status")["unavailable_until"] is None


def test_what_is_there_already_is_no_change(site: Site, host_key: PrivateKey) -> None:
    data = sealed(host_key, a=SEED, b=OTHER_SEED)
    site.load("a", SEED)
    assert load(site, data) == ["b"]
    assert site.verify(site.step(), "a")
    syncs = Syncs(site.store)
    before = site.rows()
    assert load(site, data) == load(site, data, replace=True) == []
    assert syncs.count() == 0
    assert site.rows() == before


@pytest.mark.parametrize(
    ("seed", "of"), [(OTHER_SEED, USUAL), (SEED, Parameters(digits=8))], ids=["seed", "digits"]
)
def test_another_seed_or_other_parameters_refuse_the_whole(
    site: Site, host_key: PrivateKey, seed: bytes, of: Parameters
) -> None:
    site.load("b", seed, of)
    before = site.rows()
    data = sealed(host_key, a=SEED, b=SEED)
    with pytest.raises(AccountExists, match=r": b$"):
        load(site, data)
    assert site.rows() == before
    assert [*site.keyring.accounts] == ["b"]
    assert load(site, data, replace=True) == ["a", "b"]
    assert site.verify(site.step(), "b")


def test_all_of_it_is_one_synced_transaction(site: Site, host_key: PrivateKey) -> None:
    data = sealed(host_key, **{f"user{number}": SEED for number in range(batch.MOST)})
    syncs = Syncs(site.store)
    assert len(load(site, data)) == batch.MOST
    assert syncs.count() == 1
    site.kill()
    assert len(site.keyring.accounts) == batch.MOST


def test_watermarks_of_seeds_that_are_gone_are_looked_at_once(site: Site, host_key: PrivateKey) -> None:
    names = [f"user{number}" for number in range(20)]
    load(site, sealed(host_key, **dict.fromkeys(names, SEED)))
    statements: list[str] = []
    site.store.file.database.set_trace_callback(statements.append)
    site.wait(120)
    assert load(site, sealed(host_key, **dict.fromkeys(names, OTHER_SEED)), replace=True) == names
    assert [statement.split(" WHERE")[0] for statement in statements].count("DELETE FROM gone") == 1


def test_what_cannot_be_kept_changes_nothing(site: Site, host_key: PrivateKey) -> None:
    site.load("a", OTHER_SEED)
    site.store.file.database.execute(
        "CREATE TRIGGER full BEFORE INSERT ON accounts WHEN new.name = 'c'"
        " BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    before = site.rows()
    with pytest.raises(UnusableState):
        load(site, sealed(host_key, a=SEED, b=SEED, c=SEED), replace=True)
    assert site.rows() == before
    assert [*site.keyring.accounts] == ["a"]
    assert site.verify(site.step(), "a", OTHER_SEED)


def test_a_byte_of_the_key_that_changed_refuses_the_whole(site: Site, host_key: PrivateKey) -> None:
    data = sealed(host_key, a=SEED, b=OTHER_SEED)
    before = site.rows()
    for place in range(0, 18 + host_key.key_size // 8, 7):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(BadSeal):
            load(site, bytes(damaged))
    assert site.rows() == before


def test_a_seed_that_was_moved_to_another_account_refuses_the_whole(site: Site, host_key: PrivateKey) -> None:
    with MasterKey() as master:
        wrapped = master.wrap(host_key.public_key())
        accounts = [Unsealed(name, USUAL, bytearray(SEED)) for name in ("a", "b")]
        one, two = batch.unpack(batch.pack(accounts, wrapped, master), master)
        moved = [entry.to_json(one), entry.to_json(Entry("b", USUAL, one.sealed))]
        start = b"pki2fad batch 1\n" + len(wrapped).to_bytes(2, "big") + wrapped
        data = start + master.seal(bytearray(json.dumps(moved).encode()), start)
    assert two.sealed != one.sealed
    with pytest.raises(BadSeal, match="'b'"):
        load(site, data)
    assert not site.keyring.accounts


def test_a_batch_for_another_host_names_the_key_that_is_here(
    site: Site, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    with pytest.raises(BadSeal) as refused:
        load(site, sealed(other_key, a=SEED))
    assert rsakeys.fingerprint(host_key.public_key()) in str(refused.value)


def test_while_the_key_is_rotated_batches_for_both_are_opened(
    site: Site, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    fingerprint = site.call("rotate", private=rsakeys.private_pem(other_key))["fingerprint"]
    assert load(site, sealed(host_key, a=SEED)) == ["a"]
    assert load(site, sealed(other_key, b=SEED)) == ["b"]
    site.call("rotate_finish", fingerprint=fingerprint)
    with pytest.raises(BadSeal):
        load(site, sealed(host_key, c=SEED))


def test_a_seed_that_was_removed_or_replaced_takes_its_watermark_up(site: Site, host_key: PrivateKey) -> None:
    data = sealed(host_key, a=SEED)
    site.load("a")
    spent = site.step() + 1
    assert site.verify(spent, "a")
    site.call("remove", account="a")
    assert load(site, data) == ["a"]
    assert site.keyring.accounts["a"].last_step == spent
    site.load("a", OTHER_SEED)
    assert load(site, data, replace=True) == ["a"]
    site.restart()
    assert site.keyring.accounts["a"].last_step == spent
    assert not site.verify(spent, "a")


def test_seeds_that_change_their_names_keep_what_is_known_of_them(site: Site, host_key: PrivateKey) -> None:
    site.load("a", SEED)
    site.load("b", OTHER_SEED)
    spent = site.step() + 1
    assert site.verify(spent, "a")
    assert load(site, sealed(host_key, a=OTHER_SEED, b=SEED), replace=True) == ["a", "b"]
    for _ in range(2):
        assert site.keyring.accounts["b"].last_step == spent
        assert UNKNOWN in site.keyring.accounts["b"].drift  # how far ahead it was, whoever had it
        assert site.keyring.accounts["a"].last_step == -1
        site.restart()
    assert not site.verify(spent, "b")


@pytest.mark.parametrize("used", ["a", "b"])
def test_of_two_accounts_with_the_same_seed_the_furthest_ahead_counts(
    site: Site, host_key: PrivateKey, used: str
) -> None:
    for name in ("a", "b"):
        site.load(name, SEED)
    spent = site.step() + 1
    assert site.verify(spent, used)
    load(site, sealed(host_key, a=OTHER_SEED, b=bytes(32), c=SEED), replace=True)
    assert site.keyring.accounts["c"].last_step == spent


def test_replacing_drops_the_successor_as_a_load_does(site: Site, host_key: PrivateKey) -> None:
    site.load("a", SEED)
    successor = sealing.seal_seed(host_key.public_key(), bytearray(OTHER_SEED))
    site.call("load", account="a", sealed=successor, successor=True)
    data = sealed(host_key, a=SEED)
    assert load(site, data) == []
    assert site.keyring.accounts["a"].successor is not None
    assert load(site, data, replace=True) == ["a"]
    assert site.keyring.accounts["a"].successor is None


def test_a_seed_that_stays_where_it_is_keeps_what_is_known_of_it(site: Site, host_key: PrivateKey) -> None:
    site.load("a", SEED)
    spent = site.step() + 1
    assert site.verify(spent, "a")
    assert load(site, sealed(host_key, Parameters(digits=8), a=SEED), replace=True) == ["a"]
    assert site.keyring.accounts["a"].last_step == spent
    assert UNKNOWN not in site.keyring.accounts["a"].drift


def test_another_seed_gives_who_guesses_no_new_budget(site: Site, host_key: PrivateKey) -> None:
    site.load("a", SEED)
    tally = site.keyring.accounts["a"].tally = Tally(Level(3.0, site.uptime), b"")
    load(site, sealed(host_key, a=OTHER_SEED), replace=True)
    assert site.keyring.accounts["a"].tally == tally
    site.restart()
    assert site.keyring.accounts["a"].tally.level.units == 3.0


def test_a_locked_daemon_takes_none(site: Site, host_key: PrivateKey) -> None:
    site.call("lock")
    with pytest.raises(Locked):
        load(site, sealed(host_key, a=SEED))


def test_all_accounts_that_have_another_seed_are_named(site: Site, host_key: PrivateKey) -> None:
    for name in ("a", "b"):
        site.load(name, OTHER_SEED)
    with pytest.raises(AccountExists, match=r"parameters: a, b$"):
        load(site, sealed(host_key, a=SEED, b=SEED, c=SEED))

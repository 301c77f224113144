"""Batches with labels, several authenticators of an account, HOTP and short seeds."""

from typing import Any

import pytest
from support.agents import SEED, USUAL, reference_code
from support.authenticators import HOTP
from support.sites import Site

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import AccountExists, BadRequest
from pki2fad.transfer import batch
from pki2fad.transfer.batch import Unsealed


def load(site: Site, data: bytes, **more: Any) -> list[str]:
    """Load it; the accounts that it changed."""
    changed: list[str] = site.call("load_batch", batch=data, **more)["changed"]
    return changed


def sealed_all(key: PrivateKey, *unsealed: Unsealed) -> bytes:
    with MasterKey() as master:
        return batch.pack(unsealed, master.wrap(key.public_key()), master)


def several(*labels: str, first: int = 1) -> list[Unsealed]:
    """Authenticators of the account a, each with a seed of its own."""
    return [Unsealed("a", USUAL, bytearray([first + at]) * 20, label) for at, label in enumerate(labels)]


def labels(site: Site) -> list[str]:
    return [one["label"] for one in site.call("accounts", match="a")[0]["authenticators"]]


def test_the_authenticators_of_an_account_are_loaded_together(site: Site, host_key: PrivateKey) -> None:
    token = Unsealed("a", HOTP, bytearray(SEED), "token", counter=7)
    short = Unsealed("b", USUAL, bytearray(10), "main")
    data = sealed_all(host_key, *several("main", "phone"), token, short)
    assert data.startswith(b"pki2fad batch 2\n")
    assert site.call("load_batch", batch=data) == {"accounts": 2, "changed": ["a", "b"]}
    for again in (Site.restart, Site.kill):
        assert labels(site) == ["main", "phone", "token"]
        assert len({one.account_id for one in site.keyring.accounts["a"].seeds}) == 1
        again(site)
    assert not site.call("verify", account="a", code=reference_code(SEED, 6, HOTP))["valid"]
    assert site.call("verify", account="a", code=reference_code(SEED, 7, HOTP))["valid"]
    for number in (1, 2):
        assert site.verify(site.step(), "a", bytes([number]) * 20)
    assert site.verify(site.step(), "b", bytes(10))
    assert load(site, data) == load(site, data, replace=True) == []


def test_authenticators_with_other_labels_are_added_and_those_that_are_there_stay(
    site: Site, host_key: PrivateKey
) -> None:
    site.load("a", SEED)
    assert load(site, sealed_all(host_key, *several("phone", "tablet"))) == ["a"]
    assert labels(site) == ["main", "phone", "tablet"]
    assert site.verify(site.step(), "a", SEED)


def test_a_fifth_authenticator_refuses_the_whole(site: Site, host_key: PrivateKey) -> None:
    site.load("a", SEED)
    before = site.rows()
    with pytest.raises(BadRequest, match="'a' has 4 authenticators"):
        load(site, sealed_all(host_key, *several("1", "2", "3", "4"), Unsealed("b", USUAL, bytearray(32))))
    assert site.rows() == before


def test_one_of_several_that_has_another_seed_refuses_the_whole(site: Site, host_key: PrivateKey) -> None:
    load(site, sealed_all(host_key, *several("main", "phone")))
    other = sealed_all(host_key, *several("main"), *several("tablet", first=8), *several("phone", first=9))
    before = site.rows()
    with pytest.raises(AccountExists, match=r"other parameters: a$"):
        load(site, other)
    assert site.rows() == before
    assert load(site, other, replace=True) == ["a"]
    assert labels(site) == ["main", "phone", "tablet"]
    assert site.verify(site.step(), "a", bytes([9]) * 20)


def test_a_sealed_seed_that_says_its_label_is_loaded_under_no_other(site: Site, host_key: PrivateKey) -> None:
    data = sealed_all(host_key, *several("phone"))
    with pytest.raises(BadRequest, match="is for label phone, not main; seal it again with --label main"):
        site.call("load", sealed=data, label="main")
    assert site.call("load", sealed=data)["changed"]
    assert labels(site) == ["phone"]
    assert not site.call("load", sealed=data, label="phone")["changed"]


def test_a_sealed_seed_of_version_1_is_loaded_under_any_label(site: Site, host_key: PrivateKey) -> None:
    site.call("load", sealed=sealed_all(host_key, Unsealed("a", USUAL, bytearray(SEED))), label="phone")
    assert labels(site) == ["phone"]


def test_the_higher_of_the_counters_in_the_seal_and_the_request_counts(
    site: Site, host_key: PrivateKey
) -> None:
    data = sealed_all(host_key, Unsealed("a", HOTP, bytearray(SEED), counter=7))
    site.call("load", sealed=data, counter=3)
    assert site.keyring.accounts["a"].last_step == 6
    site.call("load", sealed=data, counter=20)
    assert site.keyring.accounts["a"].last_step == 19


def test_seeds_d_takes_only_what_is_sealed_for_main(site: Site, host_key: PrivateKey) -> None:
    with pytest.raises(BadRequest, match="label phone, not main"):
        site.agent.provision("a", sealed_all(host_key, *several("phone")), bytes(32), site.reading)
    assert site.agent.provision(
        "a", sealed_all(host_key, Unsealed("a", USUAL, bytearray(SEED))), bytes(32), site.reading
    )

"""Several authenticators for an account, and HOTP, held against oathtool."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.agents import oathtool_hotp
from support.raw import RawPeer, Seed, seal

from pki2fad.crypto.rsakeys import PrivateKey

NAME = "several"


@pytest.fixture
def phone(peer: RawPeer, host_key: PrivateKey) -> Iterator[Seed]:
    """The one authenticator of an account, whose codes have 8 digits."""
    phone = Seed(digits=8)
    peer.call("load", account=NAME, sealed=phone.sealed(host_key), digits=8)
    yield phone
    peer.call("remove", account=NAME)


def load(peer: RawPeer, key: PrivateKey, label: str, seed: Seed, **args: Any) -> dict[str, Any]:
    sealed = seed.sealed(key)
    return dict(peer.call("load", account=NAME, label=label, sealed=sealed, digits=seed.digits, **args))


def row_of(peer: RawPeer) -> dict[str, Any]:
    (row,) = peer.call("accounts", match=NAME)
    return dict(row)


def test_each_of_four_authenticators_has_codes_of_its_own(
    peer: RawPeer, phone: Seed, host_key: PrivateKey
) -> None:
    seeds = {"main": phone, "tablet": Seed(digits=8), "watch": Seed(digits=8), "laptop": Seed(digits=8)}
    for count, (label, seed) in enumerate(list(seeds.items())[1:], 2):
        result = load(peer, host_key, label, seed)
        assert result == {"account": NAME, "changed": True, "authenticators": count}
    for label, seed in seeds.items():
        made = peer.call("generate", account=NAME, label=label)
        assert made["code"] == seed.code(made["step"])
        assert peer.call("verify", account=NAME, code=made["code"]) == {"valid": True}
        assert peer.call("verify", account=NAME, code=made["code"]) == {"valid": False}
    assert [one["label"] for one in row_of(peer)["authenticators"]] == list(seeds)
    assert (
        peer.refusal("load", account=NAME, label="fifth", sealed=Seed().sealed(host_key))[0] == "bad_request"
    )


def test_an_authenticator_is_removed_and_the_last_one_is_not(
    peer: RawPeer, phone: Seed, host_key: PrivateKey
) -> None:
    tablet = Seed(digits=8)
    load(peer, host_key, "tablet", tablet)
    removed = peer.call("remove", account=NAME, label="main")
    assert removed == {"account": NAME, "label": "main", "authenticators": 1}
    assert peer.call("verify", account=NAME, code=phone.code()) == {"valid": False}
    assert peer.refusal("remove", account=NAME, label="tablet")[0] == "bad_request"
    assert peer.refusal("remove", account=NAME, label="main")[0] == "no_such_account"
    assert peer.call("verify", account=NAME, code=tablet.code()) == {"valid": True}


@pytest.mark.usefixtures("phone")
def test_a_token_counts_as_oathtool_does(peer: RawPeer, host_key: PrivateKey) -> None:
    token = Seed(digits=8)
    load(peer, host_key, "token", token, kind="hotp", counter=7)

    def code(counter: int) -> str:
        return oathtool_hotp(bytes.fromhex(token.hex), counter, 8)

    for counter, valid in ((6, False), (7, True), (7, False), (11, True), (10, False), (16, False)):
        assert peer.call("verify", account=NAME, code=code(counter)) == {"valid": valid}, counter
    (_, listed) = row_of(peer)["authenticators"]
    assert (listed["kind"], listed["period"], listed["counter"]) == ("hotp", 0, 12)
    resync = {"account": NAME, "label": "token", "first": code(60), "second": code(61)}
    assert peer.call("resync", **resync) == {"account": NAME, "counter": 62}
    assert peer.refusal("resync", **resync)[0] == "bad_request"
    assert peer.refusal("generate", account=NAME, label="token")[0] == "bad_request"


def test_what_an_account_is_called_by_stays(peer: RawPeer, phone: Seed, host_key: PrivateKey) -> None:
    of = row_of(peer)["id"]
    assert len(bytes.fromhex(of)) == 16
    peer.call("remove", account=NAME)
    peer.call("load", account=NAME, sealed=phone.sealed(host_key), digits=8)
    assert row_of(peer)["id"] == of


@pytest.mark.usefixtures("phone")
@pytest.mark.parametrize("size", [10, 15])
def test_a_short_seed_loads_only_with_short(peer: RawPeer, host_key: PrivateKey, size: int) -> None:
    load = {"account": NAME, "label": "old", "sealed": seal(host_key, b"5a" * size)}
    code, message = peer.refusal("load", **load)
    assert (code, f"{8 * size} bits" in message) == ("bad_seal", True)
    assert peer.call("load", **load, short=True)["changed"] is True
    assert [one["short"] for one in row_of(peer)["authenticators"]] == [False, True]


def test_a_list_comes_in_parts(peer: RawPeer, host_key: PrivateKey) -> None:
    seed = Seed().sealed(host_key)
    names = [f"part-{number}" for number in range(5)]
    for name in names:
        peer.call("load", account=name, sealed=seed)
    part = peer.call("accounts", match="part-*", limit=2)
    assert [row["account"] for row in part] == names[:2]
    part = peer.call("accounts", match="part-*", limit=2, after=names[1])
    assert [row["account"] for row in part] == names[2:4]
    part = peer.call("accounts", match="part-?", after=names[3])
    assert [row["account"] for row in part] == names[4:]
    assert peer.call("accounts", match="part") == []
    for name in names:
        peer.call("remove", account=name)

"""generate and verify, held against oathtool."""

from typing import Any

import pytest
from support.raw import RawPeer, Seed

from pki2fad.crypto.rsakeys import PrivateKey

EVERY_KIND = [
    {"algorithm": algorithm, "digits": digits, "period": period}
    for algorithm in ("SHA1", "SHA256", "SHA512")
    for digits, period in ((6, 30), (7, 60), (8, 120), (8, 1))
]


def name_of(kind: dict[str, object]) -> str:
    return "-".join(map(str, kind.values()))


@pytest.mark.parametrize("seed", EVERY_KIND, ids=name_of, indirect=True)
def test_generate_gives_the_code_of_its_step(peer: RawPeer, seed: Seed) -> None:
    result = peer.call("generate")
    assert result["code"] == seed.code(result["step"])
    assert type(result["step"]) is int
    assert type(result["valid_for"]) is int
    assert 1 <= result["valid_for"] <= seed.period
    assert result.keys() == {"code", "valid_for", "step"}


@pytest.mark.parametrize(
    "seed", [kind for kind in EVERY_KIND if kind["period"] != 1], ids=name_of, indirect=True
)
def test_a_current_code_is_valid_once(peer: RawPeer, seed: Seed) -> None:
    code = seed.code()
    assert peer.call("verify", code=code) == {"valid": True}
    assert peer.call("verify", code=code) == {"valid": False}


def test_a_code_is_valid_once_whatever_the_connection(endpoint: Any, peer: RawPeer, seed: Seed) -> None:
    code = seed.code()
    with endpoint.connect() as other:
        assert other.call("verify", code=code) == {"valid": True}
    assert peer.call("verify", code=code) == {"valid": False}


@pytest.mark.usefixtures("seed")
def test_a_code_that_was_generated_is_valid(peer: RawPeer) -> None:
    assert peer.call("verify", code=peer.call("generate")["code"]) == {"valid": True}


@pytest.mark.parametrize("offset", [-2, 3])
def test_a_code_outside_the_window_is_not_valid(peer: RawPeer, seed: Seed, offset: int) -> None:
    step = peer.call("generate")["step"]
    assert peer.call("verify", code=seed.code(step + offset)) == {"valid": False}


def test_the_code_of_another_account_is_not_valid(peer: RawPeer, seed: Seed) -> None:
    assert peer.call("verify", code=Seed().code()) == {"valid": False}
    assert peer.call("verify", code=seed.code()) == {"valid": True}


@pytest.mark.usefixtures("seed")
@pytest.mark.parametrize("code", ["0000000", "00000000"])
def test_a_code_of_another_length_than_the_accounts_is_not_valid(peer: RawPeer, code: str) -> None:
    assert peer.call("verify", code=code) == {"valid": False}


def test_a_code_with_more_digits_around_the_right_ones_is_not_valid(peer: RawPeer, seed: Seed) -> None:
    assert peer.call("verify", code=seed.code() + "0") == {"valid": False}
    assert peer.call("verify", code="0" + seed.code()) == {"valid": False}


def test_an_accounts_name_chooses_its_seed(peer: RawPeer, seed: Seed, host_key: PrivateKey) -> None:
    named = Seed()
    peer.call("load", account="alice@example.org", sealed=named.sealed(host_key), replace=True)
    result = peer.call("generate", account="alice@example.org")
    assert result["code"] == named.code(result["step"])
    assert peer.call("verify", account="alice@example.org", code=named.code()) == {"valid": True}
    result = peer.call("generate", account="default")
    assert result["code"] == seed.code(result["step"])


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("generate", {}), ("verify", {"code": "123456"}), ("remove", {})],
)
def test_an_account_that_is_not_there_is_no_such_account(
    peer: RawPeer, method: str, arguments: dict[str, str]
) -> None:
    code, message = peer.refusal(method, account="nobody", **arguments)
    assert code == "no_such_account"
    assert message.startswith("no_such_account: ")
    assert "nobody" in message

"""enroll and enroll_confirm, for the account of our own user name."""

import os
import pwd

import pytest
from support.raw import RawPeer, Seed

from pki2fad.crypto.rsakeys import PrivateKey

NAME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture(autouse=True)
def no_account(peer: RawPeer) -> None:
    """There is none yet."""
    if any(row["account"] == NAME for row in peer.call("accounts")):
        peer.call("remove", account=NAME)


def enrolled(peer: RawPeer) -> Seed:
    seed = Seed()
    seed.hex = peer.call("enroll")["seed"]
    return seed


def test_enroll_gives_a_seed_once_and_its_first_code_makes_the_account(peer: RawPeer) -> None:
    result = peer.call("enroll")
    seed = Seed()
    seed.hex = result.pop("seed")
    of = {"algorithm": "SHA1", "digits": 6, "period": 30}
    assert result == {"account": NAME, **of, "expires_in": 600}
    assert len(bytes.fromhex(seed.hex)) == 32
    code = seed.code()
    assert peer.call("enroll_confirm", code=code) == {"valid": True}
    assert peer.call("verify", account=NAME, code=code) == {"valid": False}
    generated = peer.call("generate", account=NAME)
    assert generated["code"] == seed.code(generated["step"])
    for method, arguments in (("enroll", {}), ("enroll_confirm", {"code": code})):
        assert peer.refusal(method, **arguments)[0] == "account_exists"


def test_until_then_there_is_no_account(peer: RawPeer) -> None:
    seed = enrolled(peer)
    assert peer.refusal("generate", account=NAME)[0] == "no_such_account"
    assert NAME not in [row["account"] for row in peer.call("accounts")]
    assert peer.call("enroll_confirm", code="0000000") == {"valid": False}
    assert peer.call("enroll_confirm", code=seed.code()) == {"valid": True}


def test_of_requests_in_one_go_the_first_right_code_makes_the_account(peer: RawPeer) -> None:
    seed = enrolled(peer)
    requests = [
        [0, 700 + n, "enroll_confirm", [{"code": code}]]
        for n, code in enumerate(["0000000"] + [seed.code()] * 2)
    ]
    peer.send(*requests)
    wrong, right, late = (peer.receive()[2:] for _ in requests)
    assert wrong == [None, {"valid": False}]
    assert right == [None, {"valid": True}]
    assert late[0][0] == "account_exists"


def test_what_an_administrator_loads_meanwhile_stays(peer: RawPeer, host_key: PrivateKey) -> None:
    seed, loaded = enrolled(peer), Seed()
    peer.call("load", account=NAME, sealed=loaded.sealed(host_key))
    assert peer.refusal("enroll_confirm", code=seed.code())[0] == "account_exists"
    generated = peer.call("generate", account=NAME)
    assert generated["code"] == loaded.code(generated["step"])


def test_where_no_seed_waits_no_code_makes_an_account(peer: RawPeer, host_key: PrivateKey) -> None:
    peer.call("load", account=NAME, sealed=Seed().sealed(host_key))
    peer.call("remove", account=NAME)
    assert peer.refusal("enroll_confirm", code="123456")[0] == "no_such_account"


def test_what_is_no_code_is_bad_request(peer: RawPeer) -> None:
    enrolled(peer)
    for code in ("12345", "123456789", " 123456", 123456, None):
        assert peer.refusal("enroll_confirm", code=code)[0] == "bad_request"
    assert peer.refusal("enroll", account=None)[0] == "bad_request"


def test_a_code_adds_an_authenticator_and_another_removes_it(peer: RawPeer) -> None:
    seed, other = enrolled(peer), Seed()
    assert peer.call("enroll_confirm", code=seed.code()) == {"valid": True}
    assert peer.call("exists", account=NAME) == {"account": NAME, "exists": True}
    assert peer.refusal("enroll", account=NAME)[0] == "account_exists"
    given = peer.call("enroll", account=NAME, label="tablet", kind="hotp", digits=8)
    of = {"algorithm": "SHA1", "digits": 8, "period": 0}
    other.hex = given.pop("seed")
    assert given == {"account": NAME, "label": "tablet", "kind": "hotp", **of, "expires_in": 600}
    args = {"account": NAME, "label": "tablet"}
    assert peer.call("enroll_confirm", code="00000000", **args) == {"valid": False}
    assert peer.refusal("enroll_confirm", code="123456")[0] == "account_exists"
    assert peer.refusal("remove", account=NAME, label="main", code="0000000")[0] == "bad_request"
    other.hex = peer.call("enroll", **args)["seed"]
    code = other.code()
    assert peer.call("enroll_confirm", code=code, **args) == {"valid": True}
    assert peer.refusal("remove", account=NAME, label="main", code=code)[0] == "forbidden"
    recovery = peer.call("recovery_create", account=NAME)["codes"][0]
    removed = {"account": NAME, "label": "main", "authenticators": 1}
    assert peer.call("remove", account=NAME, label="main", code=recovery) == removed
    assert peer.refusal("remove", **args, code=recovery)[0] == "bad_request"

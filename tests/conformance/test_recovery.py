"""recovery_create, and verify with recovery codes."""

from collections.abc import Callable
from typing import Any

import pytest
from support.raw import RawPeer, Seed

from pki2fad.crypto.rsakeys import PrivateKey

ACCOUNT = "recovering"


@pytest.fixture(autouse=True)
def account(peer: RawPeer, host_key: PrivateKey) -> Seed:
    """One without recovery codes."""
    if any(row["account"] == ACCOUNT for row in peer.call("accounts")):
        peer.call("remove", account=ACCOUNT)
    seed = Seed()
    peer.call("load", account=ACCOUNT, sealed=seed.sealed(host_key))
    return seed


def create(peer: RawPeer, **arguments: Any) -> list[str]:
    result = peer.call("recovery_create", account=ACCOUNT, **arguments)
    assert result == {"account": ACCOUNT, "codes": result["codes"]}
    return list(result["codes"])


def verdicts(peer: RawPeer, *codes: str) -> list[bool]:
    return [peer.call("verify", account=ACCOUNT, code=code)["valid"] for code in codes]


def test_each_of_ten_codes_is_good_once(peer: RawPeer) -> None:
    codes = create(peer)
    assert len(codes) == 10
    assert all(len(code) == 11 and code[5] == "-" for code in codes)
    assert verdicts(peer, *codes, *codes) == [True] * 10 + [False] * 10


@pytest.mark.parametrize(
    "type_it", [str.lower, lambda code: code.replace("-", ""), lambda code: code.replace("0", "o")]
)
def test_a_code_may_be_typed_in_either_case_and_without_the_hyphen(
    peer: RawPeer, type_it: Callable[[str], str]
) -> None:
    code, *_ = create(peer)
    assert verdicts(peer, type_it(code), code) == [True, False]


def test_a_new_set_replaces_the_old_one(peer: RawPeer) -> None:
    old, new = create(peer), create(peer)
    assert verdicts(peer, old[0], new[0]) == [False, True]


def test_of_one_code_in_many_requests_at_once_one_is_good(peer: RawPeer) -> None:
    code, *_ = create(peer)
    peer.send(*[[0, msgid, "verify", [{"account": ACCOUNT, "code": code}]] for msgid in range(20)])
    answers = [peer.receive()[2:] for _ in range(20)]
    assert sorted(str(answer) for answer in answers) == sorted(
        [str([None, {"valid": True}])] + [str([None, {"valid": False}])] * 19
    )


def test_a_code_of_an_authenticator_that_is_given_is_checked_and_spent(peer: RawPeer, account: Seed) -> None:
    code = account.code()
    assert peer.refusal("recovery_create", account=ACCOUNT, code="0000000")[0] == "forbidden"
    codes = create(peer, code=code)
    assert verdicts(peer, code, codes[0]) == [False, True]
    assert peer.refusal("recovery_create", account=ACCOUNT, code=code)[0] == "forbidden"
    assert peer.refusal("recovery_create", account=ACCOUNT, code=codes[1])[0] == "bad_request"
    assert verdicts(peer, codes[1]) == [True]


def test_without_an_account_there_are_none(peer: RawPeer) -> None:
    assert peer.refusal("recovery_create", account="nobody")[0] == "no_such_account"


def test_what_is_neither_a_code_nor_a_recovery_code_is_bad_request(peer: RawPeer) -> None:
    for code in ("K7QM4-2XW9", "K7QM4-2XW9TT", "K7QM-42XW9T", "K7QM4-2XW9U", " K7QM4-2XW9T", "123456789"):
        assert peer.refusal("verify", account=ACCOUNT, code=code)[0] == "bad_request"


def test_explained_answers_say_how_many_are_left(peer: RawPeer) -> None:
    def explained(code: str) -> Any:
        return peer.call("verify", account=ACCOUNT, code=code, explain=True)

    assert explained("00000-00000") == {"valid": False, "recovery": None}
    code, *_ = create(peer)
    assert explained(code) == {"valid": True, "recovery": 9}
    assert explained(code) == {"valid": False, "reason": "used", "recovery": 9}


def test_a_used_code_stays_used_in_another_boot_and_another_is_good_at_once(
    own_endpoint: Any, host_key: PrivateKey
) -> None:
    with own_endpoint.connect() as peer:
        peer.call("load", account=ACCOUNT, sealed=Seed().sealed(host_key))
        used, unused, *_ = create(peer)
        assert verdicts(peer, used) == [True]
    own_endpoint.stop()
    own_endpoint.start("another boot")
    with own_endpoint.connect() as peer:
        assert verdicts(peer, used, unused, unused) == [False, True, False]

"""forbidden, and unavailable with retry_after."""

import time
from typing import Any

import pytest
from support.raw import RawPeer, Seed

from pki2fad.crypto.rsakeys import PrivateKey

FOR_ROLES = [
    ("verify", {"code": "123456"}),
    ("generate", {}),
    ("load", {"sealed": b""}),
    ("remove", {}),
    ("recovery_create", {}),
]

PART = {"upload": "0" * 32, "offset": 0, "part": b""}


@pytest.mark.usefixtures("any_seed")
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        *FOR_ROLES,
        ("accounts", {}),
        ("enroll", {}),
        ("enroll_confirm", {"code": "123456"}),
        ("backup", {"to": b""}),
        ("restore", PART),
    ],
)
def test_a_method_without_its_role_is_forbidden(
    stranger: RawPeer, method: str, arguments: dict[str, Any]
) -> None:
    code, message = stranger.refusal(method, **arguments)
    assert code == "forbidden"
    assert message.startswith("forbidden: ")


@pytest.mark.usefixtures("any_seed")
@pytest.mark.parametrize(("method", "arguments"), FOR_ROLES)
def test_whoever_may_not_ask_does_not_learn_which_accounts_there_are(
    stranger: RawPeer, method: str, arguments: dict[str, Any]
) -> None:
    there = stranger.refusal(method, account="default", **arguments)
    missing = stranger.refusal(method, account="nobody", **arguments)
    assert there[0] == missing[0] == "forbidden"
    assert there[1] == missing[1]


def test_status_is_for_anyone_and_a_forbidden_code_is_not_spent(
    stranger: RawPeer, peer: RawPeer, seed: Seed
) -> None:
    code = seed.code()
    assert stranger.refusal("verify", code=code)[0] == "forbidden"
    assert stranger.call("status")["ready"] is True
    assert peer.call("verify", code=code) == {"valid": True}


@pytest.mark.usefixtures("any_seed")
def test_a_role_for_one_account_holds_for_that_one_alone(
    deployer: RawPeer, peer: RawPeer, host_key: PrivateKey
) -> None:
    deploy = Seed()
    peer.call("load", account="deploy", sealed=deploy.sealed(host_key), replace=True)
    result = deployer.call("generate", account="deploy")
    assert result["code"] == deploy.code(result["step"])
    assert deployer.refusal("generate")[0] == "forbidden"
    assert deployer.refusal("verify", account="deploy", code=deploy.code())[0] == "forbidden"
    assert deployer.refusal("remove", account="deploy")[0] == "forbidden"
    assert deployer.refusal("accounts")[0] == "forbidden"


def test_a_code_is_not_valid_again_after_a_restart(own_endpoint: Any, host_key: PrivateKey) -> None:
    seed = Seed()
    code = seed.code()
    with own_endpoint.connect() as peer:
        peer.call("load", sealed=seed.sealed(host_key))
        assert peer.call("verify", code=code) == {"valid": True}
    own_endpoint.stop()
    own_endpoint.start()
    with own_endpoint.connect() as peer:
        assert peer.call("verify", code=code) == {"valid": False}


def test_after_a_crash_of_the_machine_verify_is_unavailable_for_a_while(
    own_endpoint: Any, host_key: PrivateKey
) -> None:
    seed = Seed()
    code = seed.code()
    with own_endpoint.connect() as peer:
        peer.call("load", sealed=seed.sealed(host_key))
        assert peer.call("verify", code=code) == {"valid": True}
    own_endpoint.stop()
    own_endpoint.start("another boot")
    with own_endpoint.connect() as peer:
        error, message, retry_after = peer.refusal("verify", code=code)
        assert error == "unavailable"
        assert message.startswith("unavailable: ")
        assert type(retry_after) is int
        assert 1 <= retry_after <= 2 * seed.period
        until = peer.call("status")["unavailable_until"]
        assert time.time() < until <= time.time() + 2 * seed.period
        result = peer.call("generate")
        assert result["code"] == seed.code(result["step"])

"""Users remove an authenticator of theirs that is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import OTHER_SEED, sealed
from support.enrolling import ALICE, NAME, REGISTRAR, RULES, code_of, labels, peer_of, refused
from support.host import Host
from support.recovery import create

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import (
    BadRequest,
    Forbidden,
)


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    with Host(tmp_path / "state.db", master, rules=RULES) as host:
        yield host


# Removing a lost one


@pytest.fixture
def two(host: Host) -> Host:
    """An account of a user with two authenticators."""
    host.load(NAME)
    host.call("load", account=NAME, sealed=sealed(OTHER_SEED), label="phone")
    return host


@pytest.mark.parametrize("args", [{}, {"account": NAME}])
def test_a_user_removes_a_lost_one_with_a_code_of_another(two: Host, args: dict[str, str]) -> None:
    code = code_of(two)
    answer = two.call("remove", ALICE, label="phone", code=code, **args)
    assert answer == {"account": NAME, "label": "phone", "authenticators": 1}
    two.kill()
    assert labels(two, NAME) == ["main"]
    assert two.call("verify", account=NAME, code=code) == {"valid": False}
    assert not two.verify(two.step() + 1, NAME, OTHER_SEED)


def test_a_user_removes_a_lost_one_with_a_recovery_code(two: Host) -> None:
    code = create(two, NAME)[0]
    two.call("remove", ALICE, label="main", code=code)
    assert labels(two, NAME) == ["phone"]
    two.kill()
    assert two.keyring.accounts[NAME].recovery.left == 9  # type: ignore[union-attr]
    assert two.call("verify", account=NAME, code=code) == {"valid": False}


def test_the_code_of_the_one_that_goes_will_not_do(two: Host) -> None:
    assert refused(two, "remove", ALICE, label="phone", code=code_of(two, OTHER_SEED)) is Forbidden
    assert labels(two, NAME) == ["main", "phone"]


def test_a_user_removes_no_last_one_nothing_with_a_bad_code_and_nothing_of_others(two: Host) -> None:
    two.load("web-1")
    two.call("load", account="web-1", sealed=sealed(OTHER_SEED), label="phone")
    bad = {"label": "phone", "code": "0000000"}
    assert refused(two, "remove", ALICE, **bad) is Forbidden
    assert refused(two, "remove", ALICE, label="phone") is Forbidden
    assert refused(two, "remove", ALICE, code=code_of(two)) is BadRequest
    theirs = {"account": "web-1", "label": "phone", "code": code_of(two)}
    assert refused(two, "remove", ALICE, **theirs) is Forbidden
    assert labels(two, "web-1") == ["main", "phone"]
    for peer in (REGISTRAR, peer_of(5099)):
        assert refused(two, "remove", peer, account=NAME, label="phone", code=code_of(two)) is Forbidden
    two.call("remove", ALICE, label="phone", code=code_of(two))
    assert refused(two, "remove", ALICE, label="main", code=code_of(two, ahead=1)) is BadRequest
    assert two.verify(two.step() + 1, NAME)  # that code was not spent


def test_the_first_code_of_a_successor_removes_another_one(two: Host) -> None:
    third = b"y" * 20
    two.call("load", account=NAME, sealed=sealed(third), successor=True)
    two.call("remove", ALICE, label="phone", code=code_of(two, third))
    assert labels(two, NAME) == ["main"]
    two.kill()
    two.wait(60)
    assert not two.verify(two.step(), NAME)
    assert two.verify(two.step(), NAME, third)

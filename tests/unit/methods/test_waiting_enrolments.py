"""Seeds that wait for their first code: by account and label, bounded, and ended with what allowed them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import OTHER_SEED, sealed
from support.enrolling import (
    ADMIN,
    ALICE,
    OTHER_REGISTRAR,
    REGISTRAR,
    RULES,
    code_of,
    confirm,
    enroll,
    labels,
    refused,
)
from support.host import Host

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import (
    AccountExists,
    BadRequest,
    NoSuchAccount,
    Unavailable,
)
from pki2fad.rules import enrolments


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    with Host(tmp_path / "state.db", master, rules=RULES) as host:
        yield host


# What waits


def test_what_waits_is_kept_by_label(host: Host) -> None:
    host.load("web-1")
    args = [{"account": "web-1", "label": label} for label in ("a", "b")]
    first, second = [enroll(host, ADMIN, **one) for one in args]
    assert not confirm(host, first, ADMIN, **args[1])
    assert confirm(host, first, ADMIN, **args[0])
    assert confirm(host, second, ADMIN, **args[1])
    assert labels(host, "web-1") == ["main", "a", "b"]


def test_of_two_enrolments_of_one_label_the_later_counts(host: Host) -> None:
    host.load("web-1")
    args = {"account": "web-1", "label": "a"}
    first = enroll(host, REGISTRAR, code=code_of(host), **args)
    second = enroll(host, OTHER_REGISTRAR, code=code_of(host, ahead=1), **args)
    assert not confirm(host, first, REGISTRAR, **args)
    assert confirm(host, second, OTHER_REGISTRAR, **args)
    assert refused(host, "enroll_confirm", REGISTRAR, code=code_of(host, first), **args) is AccountExists
    assert labels(host, "web-1") == ["main", "a"]


def test_what_waited_before_there_was_an_account_adds_nothing_to_it(host: Host) -> None:
    seed = enroll(host, REGISTRAR, account="web-1", label="a")
    host.load("web-1")
    assert (
        refused(host, "enroll_confirm", REGISTRAR, account="web-1", label="a", code=code_of(host, seed))
        is NoSuchAccount
    )


def test_where_there_is_no_room_any_more_the_first_code_adds_nothing(host: Host) -> None:
    host.load("web-1")
    args = {"account": "web-1", "label": "a"}
    seed = enroll(host, ADMIN, **args)
    for label in ("b", "c", "d"):
        host.call("load", account="web-1", sealed=sealed(label.encode() * 20), label=label)
    assert refused(host, "enroll_confirm", ADMIN, code=code_of(host, seed), **args) is BadRequest
    assert labels(host, "web-1") == ["main", "b", "c", "d"]


@pytest.mark.parametrize("how", ["remove", "replace"])
def test_what_a_lost_authenticator_allowed_ends_with_it(host: Host, how: str) -> None:
    host.load("web-1")
    host.call("load", account="web-1", sealed=sealed(OTHER_SEED), label="phone")
    args = {"account": "web-1", "label": "a"}
    seed = enroll(host, REGISTRAR, code=code_of(host, OTHER_SEED), **args)
    if how == "remove":
        host.call("remove", account="web-1", label="phone")
    else:
        host.call("load", account="web-1", sealed=sealed(b"x" * 20), label="phone", replace=True)
    assert refused(host, "enroll_confirm", REGISTRAR, code=code_of(host, seed), **args) is NoSuchAccount


def test_an_administrator_removes_a_label_that_waits_and_an_account_beside_it(host: Host) -> None:
    host.load("web-1")
    args = {"account": "web-1", "label": "a"}
    seed = enroll(host, ADMIN, **args)
    host.call("remove", **args)
    assert refused(host, "enroll_confirm", ADMIN, code=code_of(host, seed), **args) is NoSuchAccount
    enroll(host, ADMIN, **args)
    host.call("remove", account="web-1")
    assert "web-1" not in host.keyring.accounts
    assert host.keyring.enrolments.labels("web-1") == []


def test_one_peer_that_makes_no_end_of_them_keeps_no_others_out(host: Host) -> None:
    for number in range(enrolments.PEER_LIMIT):
        enroll(host, REGISTRAR, account=f"web-{number}")
    with pytest.raises(Unavailable) as caught:
        enroll(host, REGISTRAR, account="web-more")
    assert caught.value.retry_after == enrolments.LIFETIME
    assert enroll(host, REGISTRAR, account="web-7")  # in the place of its own
    assert confirm(host, enroll(host, ALICE), ALICE)
    assert enroll(host, OTHER_REGISTRAR, account="web-1")


def test_a_user_has_at_most_four_that_wait(host: Host) -> None:
    for label in ("a", "b", "c", "d"):
        enroll(host, ALICE, label=label)
    assert refused(host, "enroll", ALICE, label="e") is Unavailable
    assert enroll(host, ALICE, label="d")

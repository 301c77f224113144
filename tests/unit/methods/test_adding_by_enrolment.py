"""Enrolment with an account and a label: who may, what code it takes, and what an attacker gets from it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import OTHER_SEED, ROOT, oathtool_code, sealed
from support.enrolling import (
    ADMIN,
    ADMIN_OF_ONE,
    ALICE,
    NAME,
    OTHER_REGISTRAR,
    REGISTRAR,
    RULES,
    code_of,
    confirm,
    enroll,
    labels,
    peer_of,
    refused,
    throttled_host,
)
from support.host import Host
from support.recovery import create

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import (
    AccountExists,
    BadRequest,
    Forbidden,
    NoSuchAccount,
    Throttled,
)
from pki2fad.rules import otp
from pki2fad.rules.access import Peer
from pki2fad.rules.otp import Parameters


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    with Host(tmp_path / "state.db", master, rules=RULES) as host:
        yield host


# Who may, for which accounts


@pytest.mark.parametrize("name", ["web-1", "web-", "shop"])
def test_a_registrar_makes_accounts_that_match_its_patterns(host: Host, name: str) -> None:
    seed = enroll(host, REGISTRAR, account=name)
    assert confirm(host, seed, REGISTRAR, account=name)
    assert labels(host, name) == ["main"]


@pytest.mark.parametrize("name", ["web", "my-web-1", "Web-1", "shop2", "root", NAME])
def test_a_registrar_has_no_other_names(host: Host, name: str) -> None:
    host.load(name)
    for method, args in (("enroll", {"code": code_of(host)}), ("enroll_confirm", {"code": "123456"})):
        assert refused(host, method, REGISTRAR, account=name, label="x", **args) is Forbidden
    assert refused(host, "exists", REGISTRAR, account=name) is Forbidden
    assert host.verify(host.step(), name)  # no code was spent


@pytest.mark.parametrize("name", ["web-*", "web-?", "web-[1]", "*", "web-1\n", "web-/x"])
def test_a_name_with_the_characters_of_a_pattern_is_no_name(host: Host, name: str) -> None:
    for method in ("enroll", "exists"):
        assert refused(host, method, REGISTRAR, account=name) is BadRequest


def test_admin_for_single_accounts_or_none_enrols_nobody(host: Host) -> None:
    for peer in (ADMIN_OF_ONE, ALICE, peer_of(5099)):
        assert refused(host, "enroll", peer, account="web-1") is Forbidden
        assert refused(host, "enroll_confirm", peer, account="web-1", code="123456") is Forbidden
    assert enroll(host, ADMIN, account="anybody")


def test_without_an_account_neither_a_registrar_nor_an_administrator_enrols(host: Host) -> None:
    for peer in (REGISTRAR, ADMIN):
        with pytest.raises(Forbidden, match="this needs the role 'enroll'"):
            host.call("enroll", peer)


def test_exists_is_for_registrars_and_administrators_of_the_account(host: Host) -> None:
    host.load("web-1")
    for peer in (REGISTRAR, OTHER_REGISTRAR, ADMIN, ADMIN_OF_ONE, ROOT):
        assert host.call("exists", peer, account="web-1") == {"account": "web-1", "exists": True}
    assert host.call("exists", REGISTRAR, account="web-2") == {"account": "web-2", "exists": False}
    enroll(host, REGISTRAR, account="web-2")  # what waits is no account
    assert host.call("exists", REGISTRAR, account="web-2")["exists"] is False
    for peer, name in ((ADMIN_OF_ONE, "web-2"), (OTHER_REGISTRAR, "web-2"), (ALICE, NAME)):
        assert refused(host, "exists", peer, account=name) is Forbidden
    assert refused(host, "exists", ROOT) is BadRequest


# Where the account exists


@pytest.mark.parametrize(("peer", "name"), [(ALICE, NAME), (REGISTRAR, "web-1")])
def test_a_code_of_the_account_adds_an_authenticator_and_is_spent(host: Host, peer: Peer, name: str) -> None:
    host.load(name)
    args = {} if peer is ALICE else {"account": name}
    code = code_of(host)
    given = host.call("enroll", peer, label="tablet", code=code, **args)
    assert (given["account"], given["label"]) == (name, "tablet")
    assert host.call("verify", account=name, code=code) == {"valid": False}
    assert labels(host, name) == ["main"]  # until its first code
    seed = bytes.fromhex(given["seed"])
    assert confirm(host, seed, peer, label="tablet", **args)
    assert labels(host, name) == ["main", "tablet"]
    host.restart()
    assert labels(host, name) == ["main", "tablet"]
    assert not host.verify(host.step(), name, seed)  # it is spent
    host.wait(30)
    assert host.verify(host.step(), name, seed)
    assert host.verify(host.step(), name)


@pytest.mark.parametrize(("peer", "name"), [(ALICE, NAME), (REGISTRAR, "web-1")])
def test_without_a_good_code_nothing_waits_for_an_account_that_exists(
    host: Host, peer: Peer, name: str
) -> None:
    host.load(name)
    code = code_of(host)
    assert host.call("verify", account=name, code=code) == {"valid": True}
    args = {"label": "tablet"} | ({} if peer is ALICE else {"account": name})
    assert refused(host, "enroll", peer, **args) is AccountExists
    for used_or_wrong in (code, "0000000", "00000-00000"):
        assert refused(host, "enroll", peer, code=used_or_wrong, **args) is Forbidden
    for no_code in ("", "12345", " 123456", "K7QM4+2XW9T"):
        assert refused(host, "enroll", peer, code=no_code, **args) is BadRequest
    assert refused(host, "enroll_confirm", peer, code="123456", **args) is NoSuchAccount
    assert host.keyring.enrolments.labels(name) == []


def test_the_code_of_one_enrolment_is_not_good_for_another(host: Host) -> None:
    host.load("web-1")
    code = code_of(host)
    enroll(host, REGISTRAR, account="web-1", label="a", code=code)
    assert refused(host, "enroll", REGISTRAR, account="web-1", label="b", code=code) is Forbidden
    host.kill()
    assert refused(host, "enroll", REGISTRAR, account="web-1", label="b", code=code) is Forbidden


def test_a_recovery_code_will_do_once(host: Host) -> None:
    host.load(NAME)
    code, *_ = create(host, NAME)
    seed = enroll(host, ALICE, label="phone", code=code)
    assert host.keyring.accounts[NAME].recovery.left == 9  # type: ignore[union-attr]
    assert confirm(host, seed, ALICE, label="phone")
    host.kill()
    assert refused(host, "enroll", ALICE, label="other", code=code) is Forbidden


def test_administrators_of_all_accounts_need_no_code(host: Host) -> None:
    for peer, name in ((ADMIN, "web-1"), (ROOT, "web-2")):
        host.load(name)
        seed = enroll(host, peer, account=name, label="tablet")
        assert confirm(host, seed, peer, account=name, label="tablet")
        assert labels(host, name) == ["main", "tablet"]


def test_a_label_that_there_is_stays_as_it_is_and_spends_no_code(host: Host) -> None:
    host.load(NAME)
    for args in ({"label": "main", "code": code_of(host)}, {"code": code_of(host)}):
        assert refused(host, "enroll", ALICE, **args) is AccountExists
    assert refused(host, "enroll", ADMIN, account=NAME, label="main") is AccountExists
    assert host.verify(host.step(), NAME)


def test_a_fifth_authenticator_is_refused_and_spends_no_code(host: Host) -> None:
    host.load("web-1")
    for label in ("a", "b", "c"):
        seed = enroll(host, ADMIN, account="web-1", label=label)
        assert confirm(host, seed, ADMIN, account="web-1", label=label)
    args = {"account": "web-1", "label": "d"}
    assert refused(host, "enroll", REGISTRAR, code=code_of(host), **args) is BadRequest
    assert refused(host, "enroll", ADMIN, **args) is BadRequest
    assert host.verify(host.step(), "web-1")


def test_the_first_code_of_a_successor_will_do_and_ends_the_one_before(host: Host) -> None:
    host.load(NAME)
    host.call("load", account=NAME, sealed=sealed(OTHER_SEED), successor=True)
    seed = enroll(host, ALICE, label="tablet", code=code_of(host, OTHER_SEED))
    assert confirm(host, seed, ALICE, label="tablet")
    assert labels(host, NAME) == ["main", "tablet"]
    host.wait(60)
    assert not host.verify(host.step(), NAME)
    assert host.verify(host.step(), NAME, OTHER_SEED)


# What can be chosen


def test_administrators_choose_the_kind_and_the_parameters(host: Host) -> None:
    of = {"algorithm": "SHA256", "digits": 8, "period": 60}
    given = host.call("enroll", ADMIN, account="web-1", kind="totp", **of)
    assert {key: given[key] for key in of} == of
    code = oathtool_code(bytes.fromhex(given["seed"]), host.wall, Parameters(**of))  # type: ignore[arg-type]
    assert host.call("enroll_confirm", ADMIN, account="web-1", code=code) == {"valid": True}
    for wrong in ({"digits": 5}, {"kind": "x"}, {"period": 0}, {"kind": "hotp", "period": 30}):
        assert refused(host, "enroll", ADMIN, account="web-2", **wrong) is BadRequest


@pytest.mark.parametrize("choice", [{"kind": "totp"}, {"algorithm": "SHA1"}, {"digits": 6}, {"period": 30}])
def test_nobody_else_chooses_anything(host: Host, choice: dict[str, Any]) -> None:
    assert refused(host, "enroll", ALICE, **choice) is Forbidden
    assert refused(host, "enroll", REGISTRAR, account="web-1", **choice) is Forbidden


def test_the_first_code_of_hotp_says_the_counter(host: Host) -> None:
    given = host.call("enroll", ADMIN, account="web-1", kind="hotp")
    assert (given["kind"], given["period"]) == ("hotp", 0)
    seed = bytearray.fromhex(given["seed"])
    of = Parameters(kind="hotp", period=0)
    codes = [otp.make_code(seed, of, counter) for counter in range(4)]
    assert host.call("enroll_confirm", ADMIN, account="web-1", code=codes[2]) == {"valid": True}
    assert host.call("accounts", ADMIN)[0]["authenticators"][0]["counter"] == 3
    host.kill()
    assert [host.call("verify", account="web-1", code=code)["valid"] for code in codes] == [
        False,
        False,
        False,
        True,
    ]


# Guessing


def test_wrong_codes_of_an_account_come_from_the_budget_of_verify(host: Host) -> None:
    throttled_host(host).load("web-1")
    args = {"account": "web-1", "label": "a", "code": "0000000"}
    for _ in range(3):
        assert refused(host, "enroll", REGISTRAR, **args) is Forbidden
    host.call("verify", ROOT, account="web-1", code="0000000")  # another caller
    assert refused(host, "enroll", REGISTRAR, **args) is not Throttled
    assert refused(host, "enroll", REGISTRAR, **args | {"code": code_of(host)}) is Throttled
    assert refused(host, "enroll", REGISTRAR, **args | {"code": "00000-00000"}) is Throttled


def test_an_authenticator_that_is_added_does_not_reset_the_limit_on_wrong_codes(host: Host) -> None:
    throttled_host(host).load("web-1")
    wrong = {"account": "web-1", "code": "0000000"}
    for _ in range(4):
        host.call("verify", ROOT, **wrong)
    assert refused(host, "verify", ROOT, **wrong) is Throttled
    args = {"account": "web-1", "label": "a"}
    assert confirm(host, enroll(host, ADMIN, **args), ADMIN, **args)
    assert refused(host, "verify", ROOT, **wrong) is Throttled
    host.call("remove", **args)
    assert refused(host, "verify", ROOT, **wrong) is Throttled

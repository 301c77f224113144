"""Enrolment with an account and a label: who may, what code it takes, and what an attacker gets from it."""

import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import OTHER_SEED, ROOT, SEED, make_agent, oathtool_code, reference_code, sealed
from support.host import Host
from support.recovery import create

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import (
    AccountExists,
    BadRequest,
    Forbidden,
    NoSuchAccount,
    Refusal,
    Throttled,
    Unavailable,
)
from pki2fad.rules import enrolments, otp
from pki2fad.rules.access import OVERFLOW_ID, Peer, Rule
from pki2fad.rules.otp import Parameters
from pki2fad.rules.throttle import Throttle

USER = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, OVERFLOW_ID))
NAME = USER.pw_name


def peer_of(uid: int) -> Peer:
    return Peer(1, uid, frozenset({uid}))


ALICE = peer_of(USER.pw_uid)
REGISTRAR, OTHER_REGISTRAR, ADMIN, ADMIN_OF_ONE = map(peer_of, range(5001, 5005))
RULES = (
    Rule("enroll", (ALICE.uid,)),
    Rule("registrar", (REGISTRAR.uid,), ("web-*", "shop")),
    Rule("registrar", (OTHER_REGISTRAR.uid,), ("web-1",)),
    Rule("admin", (ADMIN.uid,)),
    Rule("admin", (ADMIN_OF_ONE.uid,), ("web-1",)),
)


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    with Host(tmp_path / "state.db", master, rules=RULES) as host:
        yield host


def throttled_host(host: Host) -> Host:
    """The same with throttling."""
    throttle = Throttle(b"secret", (), host.reading)
    host.agent = make_agent(host.keyring, RULES, watch=host.watch, throttle=throttle)
    return host


def code_of(host: Host, seed: bytes = SEED, ahead: int = 0) -> str:
    return reference_code(seed, host.step() + ahead)


def enroll(host: Host, peer: Peer, **args: Any) -> bytes:
    """The new seed."""
    return bytes.fromhex(host.call("enroll", peer, **args)["seed"])


def confirm(host: Host, seed: bytes, peer: Peer, ahead: int = 0, **args: Any) -> bool:
    return bool(host.call("enroll_confirm", peer, code=code_of(host, seed, ahead), **args)["valid"])


def refused(host: Host, method: str, peer: Peer, **args: Any) -> type[Refusal]:
    with pytest.raises(Refusal) as caught:
        host.call(method, peer, **args)
    return type(caught.value)


def labels(host: Host, name: str) -> list[str]:
    return [one.label for one in host.keyring.accounts[name].authenticators]


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

"""`Agent.handle`: methods, arguments, names, roles, and what it tells."""

import os
import re
from math import inf, nan
from typing import Any

import pytest
from support.agents import (
    CODE,
    NOW,
    OTHER_SEED,
    ROOT,
    SEED,
    STARTED,
    STEP,
    STRANGER,
    at,
    call,
    is_valid,
    make_agent,
    make_keyring,
    reference_code,
    sealed,
)
from support.authenticators import main_of

from pki2fad import __version__
from pki2fad.errors import BadRequest, Forbidden, NoSuchAccount, Refusal, UnknownMethod
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import OVERFLOW_ID, Peer, Rule
from pki2fad.wire.decoder import Decoder
from pki2fad.wire.messages import REQUEST, REQUEST_LIMIT, Request

METHODS = ("generate", "verify", "load", "remove", "accounts", "status")
NAMED = ("generate", "verify", "load", "remove")  # those that take an account
NEEDED: dict[str, dict[str, Any]] = {"verify": {"code": CODE}, "load": {"sealed": sealed(SEED)}}


def refusal_of(agent: Agent, method: str, args: dict[str, Any] | None, peer: Peer = ROOT) -> Refusal:
    answer = agent.handle(Request(1, method, args), peer, NOW)
    assert answer.refusal is not None
    assert (answer.result, answer.change) == (None, None)
    return answer.refusal


# Arguments


@pytest.mark.parametrize(
    ("method", "args", "named"),
    [
        ("verify", {}, "'code' is missing"),
        ("load", {"account": "new"}, "'sealed' is missing"),
        ("verify", {"code": CODE, "acount": "default"}, "no argument 'acount'"),
        ("accounts", {"account": "default"}, "no argument 'account'"),
        ("status", {"verbose": True}, "no argument 'verbose'"),
        ("generate", {"replace": True}, "no argument 'replace'"),
        ("generate", {"x" * 1000: 1}, f"no argument '{'x' * 64}'"),
        ("generate", {"account": None}, "'account' is not of type str"),
        ("generate", {"account": 7}, "'account' is not of type str"),
        ("verify", {"code": 123456}, "'code' is not of type str"),
        ("verify", {"code": None}, "'code' is not of type str"),
        ("load", {"sealed": sealed(SEED), "digits": "6"}, "'digits' is not of type int"),
        ("load", {"sealed": sealed(SEED), "digits": True}, "'digits' is not of type int"),
        ("load", {"sealed": sealed(SEED), "period": 30.5}, "'period' is not of type int"),
        ("load", {"sealed": sealed(SEED), "deadline": 2.0**53}, "'deadline' is not of type int"),
        ("load", {"sealed": sealed(SEED), "deadline": -(2.0**53)}, "'deadline' is not of type int"),
        ("load", {"sealed": sealed(SEED), "deadline": nan}, "'deadline' is not of type int"),
        ("load", {"sealed": sealed(SEED), "deadline": inf}, "'deadline' is not of type int"),
        ("load", {"sealed": None}, "'sealed' is missing"),
        ("load", {"sealed": 1.0}, "'sealed' is not of type bytes"),
        ("load", {"sealed": sealed(SEED), "replace": 1.0}, "'replace' is not of type bool"),
        ("verify", {"code": CODE, "origin": None}, "'origin' is not of type str"),
        ("verify", {"code": 123456.0}, "'code' is not of type str"),
        ("load", {"sealed": sealed(SEED), "replace": 1}, "'replace' is not of type bool"),
    ],
)
def test_an_argument_that_is_missing_unknown_or_of_another_type_is_a_bad_request(
    agent: Agent, method: str, args: dict[str, Any], named: str
) -> None:
    refusal = refusal_of(agent, method, args)
    assert isinstance(refusal, BadRequest)
    assert named in str(refusal)


@pytest.mark.parametrize("method", METHODS)
def test_arguments_that_are_no_map_of_distinct_names_are_a_bad_request(agent: Agent, method: str) -> None:
    assert isinstance(refusal_of(agent, method, None), BadRequest)


def test_an_argument_given_twice_is_a_bad_request(agent: Agent) -> None:
    code = b"\xa4code\xa6" + CODE.encode()
    decoder = Decoder(REQUEST, REQUEST_LIMIT)
    decoder.feed(b"\x94\x00\x01\xa6verify\x91\x82" + code + code)
    request = decoder.next()
    answer = agent.handle(request, ROOT, NOW)
    assert isinstance(answer.refusal, BadRequest)
    assert answer.change is None


@pytest.mark.parametrize("method", ["", "Verify", "verify ", "__init__", "rename", "\udcff" * 1000])
def test_an_unknown_method_is_named_in_the_refusal(agent: Agent, method: str) -> None:
    refusal = refusal_of(agent, method, {})
    assert isinstance(refusal, UnknownMethod)
    assert ascii(method[:64]) in str(refusal)


@pytest.mark.parametrize("method", NAMED)
@pytest.mark.parametrize(
    "name", ["", ".hidden", "-option", "@host", "a/b", "a b", "a\n", "naïve", "a\0", "..", "x" * 65, "\udcff"]
)
def test_what_cannot_be_a_file_name_cannot_name_an_account(agent: Agent, method: str, name: str) -> None:
    refusal = refusal_of(agent, method, {**NEEDED.get(method, {}), "account": name})
    assert isinstance(refusal, BadRequest)
    assert "an account name has 1 to 64" in str(refusal)


@pytest.mark.parametrize("name", ["a", "0", "_", "user@example.org", "a.b-c_d", "A" * 64, "x..y"])
def test_an_account_is_known_by_its_own_name_only(agent: Agent, name: str) -> None:
    for method in ("generate", "verify", "remove"):
        refusal = refusal_of(agent, method, {**NEEDED.get(method, {}), "account": name})
        assert isinstance(refusal, NoSuchAccount)
    call(agent, "load", ROOT, NOW, account=name, sealed=sealed(SEED))
    assert call(agent, "generate", ROOT, NOW, account=name)["code"] == CODE


def test_no_account_named_means_default() -> None:
    agent = make_agent(make_keyring({"default": SEED, "other": OTHER_SEED}))
    assert call(agent, "generate", ROOT, NOW) == call(agent, "generate", ROOT, NOW, account="default")
    assert is_valid(agent, CODE, NOW)
    assert not is_valid(agent, CODE, NOW, account="default")
    assert call(agent, "remove", ROOT, NOW) == {"account": "default"}
    assert [entry["account"] for entry in call(agent, "accounts", ROOT, NOW)] == ["other"]
    assert call(agent, "load", ROOT, NOW, sealed=sealed(SEED)) == {
        "account": "default",
        "changed": True,
        "authenticators": 1,
    }


# Roles

ROLE_OF = {
    "generate": "generate",
    "verify": "verify",
    "load": "admin",
    "remove": "admin",
    "accounts": "admin",
}
MEMBERS = {
    role: Peer(9, 2000 + number, frozenset()) for number, role in enumerate(("verify", "generate", "admin"))
}


@pytest.mark.parametrize("method", ROLE_OF)
@pytest.mark.parametrize("role", MEMBERS)
def test_a_method_needs_its_own_role(method: str, role: str) -> None:
    rules = [Rule(role, (peer.uid,)) for role, peer in MEMBERS.items()]
    agent = make_agent(make_keyring({"default": SEED}), rules)
    answer = agent.handle(Request(1, method, NEEDED.get(method, {})), MEMBERS[role], NOW)
    if ROLE_OF[method] == role:
        assert answer.refusal is None
    else:
        assert isinstance(answer.refusal, Forbidden)
        assert f"{ROLE_OF[method]!r}" in str(answer.refusal)
        assert str(MEMBERS[role].uid) in str(answer.refusal)


@pytest.mark.parametrize("peer", [STRANGER, Peer(3, OVERFLOW_ID, frozenset({OVERFLOW_ID}))])
def test_anyone_may_ask_for_the_status_and_nothing_else(agent: Agent, peer: Peer) -> None:
    for method in ROLE_OF:
        assert isinstance(refusal_of(agent, method, NEEDED.get(method, {}), peer), Forbidden)
    assert call(agent, "status", peer, NOW)["accounts"] == 1


@pytest.mark.parametrize("method", NAMED)
def test_who_has_no_role_does_not_learn_which_accounts_there_are(agent: Agent, method: str) -> None:
    args = NEEDED.get(method, {})
    there = refusal_of(agent, method, {**args, "account": "default"}, STRANGER)
    missing = refusal_of(agent, method, {**args, "account": "nobody"}, STRANGER)
    assert (type(there), str(there)) == (type(missing), str(missing))


def test_the_daemons_own_user_has_every_role() -> None:
    agent = make_agent(make_keyring({"default": SEED}), own_uid=STRANGER.uid)
    for method in METHODS:
        assert agent.handle(Request(1, method, NEEDED.get(method, {})), STRANGER, NOW).refusal is None


def test_a_role_for_one_account_is_none_for_another() -> None:
    rules = [Rule(role, (STRANGER.uid,), ("mine",)) for role in ("verify", "generate", "admin")]
    agent = make_agent(make_keyring({"default": SEED, "mine": SEED}), rules)
    for method in NAMED:
        assert isinstance(refusal_of(agent, method, NEEDED.get(method, {}), STRANGER), Forbidden)
    assert [entry["account"] for entry in call(agent, "accounts", STRANGER, NOW)] == ["mine"]
    for method in ("generate", "verify", "remove"):
        assert call(agent, method, STRANGER, NOW, account="mine", **NEEDED.get(method, {}))


def test_a_seed_that_may_be_anybodys_is_loaded_only_with_the_role_for_all_accounts() -> None:
    agent = make_agent(make_keyring({"default": SEED}), [Rule("admin", (STRANGER.uid,), ("mine",))])
    refused = refusal_of(agent, "load", {"account": "mine", **NEEDED["load"]}, STRANGER)
    assert isinstance(refused, Forbidden)
    assert "for all accounts" in str(refused)


# What is told


def test_accounts_are_listed_by_name_with_their_parameters_and_last_use(agent: Agent) -> None:
    call(agent, "load", ROOT, NOW, account="b", sealed=sealed(SEED), algorithm="SHA512", digits=8, period=60)
    call(agent, "load", ROOT, NOW, account="a", sealed=sealed(OTHER_SEED))
    assert is_valid(agent, reference_code(OTHER_SEED, STEP - 1), NOW, account="a")
    usual = {"algorithm": "SHA1", "digits": 6, "period": 30}
    assert [main_of(row) for row in call(agent, "accounts", ROOT, NOW)] == [
        {
            "account": "a",
            **usual,
            "last_used": (STEP - 1) * 30,
            "offset": 0,
            "drift": [-1],
            "successor": None,
        },
        {
            "account": "b",
            "algorithm": "SHA512",
            "digits": 8,
            "period": 60,
            "last_used": None,
            "offset": 0,
            "drift": [],
            "successor": None,
        },
        {"account": "default", **usual, "last_used": None, "offset": 0, "drift": [], "successor": None},
    ]


def test_the_status_tells_numbers_and_no_names() -> None:
    agent = make_agent(make_keyring({"alice": SEED, "bob": SEED}))
    status = call(agent, "status", STRANGER, at(STARTED.wall + 61.5))
    assert status == {
        "version": __version__,
        "pid": os.getpid(),
        "started": int(STARTED.wall),
        "uptime": 61,
        "throttling": False,
        "locked": False,
        "clock": "unknown",
        "clock_behind": 0,
        "ready": True,
        "accounts": 2,
        "unavailable_until": None,
        "log_dropped": 0,
        "trouble": [],
    }
    assert agent.account_count == 2


def test_an_answer_does_not_show_the_code_in_it(agent: Agent) -> None:
    for method, args in (("generate", {}), ("verify", {"code": CODE})):
        request = Request(1, method, args)
        answer = agent.handle(request, ROOT, NOW)
        assert answer.refusal is None
        assert not re.search(CODE, f"{request!r} {answer!r}")

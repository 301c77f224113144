"""What `accounts` lists: which names, in which parts, and what it says of each authenticator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import (
    OTHER_SEED,
    ROOT,
    SEED,
    STARTED,
    STEP,
    at_step,
    call,
    make_agent,
    make_keyring,
    sealed,
)
from support.authenticators import EIGHT, HOTP, is_good, load, main_of, seed_of, token_code
from support.host import Host

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadRequest
from pki2fad.rules.access import ADMIN, Peer, Rule
from pki2fad.wire.messages import Request

NAMES = ["ann", "bob", "web-1", "web-10", "web-2", "www-1"]
ADMIN_OF_SOME = Peer(7, 1001, frozenset({1001}))
RULES = [Rule(ADMIN, (ADMIN_OF_SOME.uid,), ("bob", "web-2"))]


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    """A host without accounts."""
    with Host(tmp_path / "state.db", master, at_step(STEP).wall) as host:
        yield host


def names(peer: Peer = ROOT, **args: Any) -> list[str]:
    agent = make_agent(make_keyring(dict.fromkeys(reversed(NAMES), SEED)), RULES)
    return [row["account"] for row in call(agent, "accounts", peer, STARTED, **args)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", NAMES),
        ("web-*", ["web-1", "web-10", "web-2"]),
        ("web-?", ["web-1", "web-2"]),
        ("w[ew]*1", ["web-1", "www-1"]),
        ("ann", ["ann"]),
        ("an", []),
        ("nn", []),
        ("", []),
        ("[", []),
        ("*" * 256, NAMES),
    ],
)
def test_a_pattern_is_for_whole_names(pattern: str, found: list[str]) -> None:
    assert names(match=pattern) == found


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 7, 10**12, 2**64 - 1])
def test_parts_put_together_are_the_list(limit: int) -> None:
    found: list[str] = []
    while part := names(limit=limit, **({"after": found[-1]} if found else {})):
        assert len(part) <= limit
        found += part
    assert found == NAMES


def test_a_part_begins_behind_a_name_that_need_not_be_there() -> None:
    assert names(after="bz", limit=2) == ["web-1", "web-10"]
    assert names(after="zz") == []


def test_who_administers_some_finds_only_those() -> None:
    assert names(ADMIN_OF_SOME) == ["bob", "web-2"]
    assert names(ADMIN_OF_SOME, limit=1) == ["bob"]
    assert names(ADMIN_OF_SOME, match="web-*") == ["web-2"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"limit": 0}, "limit must be 1 or more"),
        ({"limit": -1}, "limit must be 1 or more"),
        ({"match": "*" * 257}, "at most 256 characters"),
    ],
)
def test_what_asks_for_nothing_is_a_bad_request(args: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        names(**args)


@pytest.mark.parametrize(
    ("args", "pieces"),
    [
        ({}, 10),
        ({"limit": 5000}, 10),
        ({"match": "*7*"}, 40),  # some patterns take long
    ],
    ids=str,
)
def test_ten_thousand_accounts_are_listed_in_pieces(args: dict[str, Any], pieces: int) -> None:
    keyring = make_keyring({"0": SEED})
    (model,) = keyring.accounts.values()
    for number in range(10_000):
        keyring.put(type(model)(f"n{number:05}", model.parameters, model.sealed, model.fixed))
    work = make_agent(keyring).handle(Request(1, "accounts", args), ROOT, STARTED).work
    assert work is not None
    assert sum(1 for _ in work) >= pieces  # others have their turn so often


def test_each_authenticator_is_listed_with_what_is_known_of_it(host: Host) -> None:
    load(host, "main", SEED, EIGHT, account="ann")
    host.wait(3600)
    load(host, "token", OTHER_SEED, HOTP, account="ann", counter=5)
    load(host, "token", seed_of(3), account="ann", successor=True)
    load(host, "old", seed_of(4)[:10], account="ann", short=True)
    assert is_good(host, token_code(5, OTHER_SEED), "ann")
    usual = {"algorithm": "SHA1", "digits": 6, "offset": 0, "drift": [], "last_used": None, "successor": None}
    end = {"deadline": None, "cutover": False}
    for _ in range(2):
        (row,) = host.call("accounts")
        now = int(host.wall)
        assert row["authenticators"] == [
            {
                **usual,
                "label": "main",
                "kind": "totp",
                "digits": 8,
                "period": 30,
                "made": now - 3600,
                "short": False,
            },
            {
                **usual,
                "label": "token",
                "kind": "hotp",
                "period": 0,
                "made": now,
                "short": False,
                "counter": 6,
                "inactive": False,
                "last_used": now,
                "successor": {"algorithm": "SHA1", "digits": 6, "period": 30, **end},
            },
            {**usual, "label": "old", "kind": "totp", "period": 30, "made": now, "short": True},
        ]
        assert main_of(row) == {"account": "ann", **usual, "digits": 8, "period": 30}
        host.restart()


def test_an_accounts_id_outlives_it_and_is_its_own(host: Host) -> None:
    def ids() -> dict[str, str]:
        return {row["account"]: row["id"] for row in host.call("accounts")}

    for name in ("ann", "bob"):
        host.call("load", account=name, sealed=sealed(SEED))
    before = ids()
    assert before["ann"] != before["bob"]
    host.call("remove", account="ann")
    host.restart()
    load(host, "phone", OTHER_SEED, account="ann")
    assert ids() == before

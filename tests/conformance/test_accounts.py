"""load, remove, accounts and status."""

import time
from typing import Any

import pytest
from support.authenticators import main_of
from support.raw import RawPeer, Seed, seal

from pki2fad import __version__
from pki2fad.crypto.rsakeys import PrivateKey


def row_of(peer: RawPeer, account: str) -> dict[str, object] | None:
    """What `accounts` says of one of them."""
    rows = [main_of(row) for row in peer.call("accounts") if row["account"] == account]
    assert len(rows) <= 1
    return rows[0] if rows else None


def test_load_says_whether_it_changed_anything(peer: RawPeer, host_key: PrivateKey) -> None:
    seed = Seed("SHA256", 8, 60)
    load = {"account": "says", **seed.parameters}
    assert peer.call("load", sealed=seed.sealed(host_key), **load) == {
        "account": "says",
        "changed": True,
        "authenticators": 1,
    }
    # Sealed anew, so that the bytes differ.
    assert peer.call("load", sealed=seed.sealed(host_key), **load) == {
        "account": "says",
        "changed": False,
        "authenticators": 1,
    }
    assert peer.call("load", sealed=seed.sealed(host_key), replace=True, **load)["changed"] is False


def test_load_without_parameters_means_sha1_6_digits_30_seconds(peer: RawPeer, host_key: PrivateKey) -> None:
    seed = Seed()
    peer.call("load", account="plain", sealed=seed.sealed(host_key))
    assert row_of(peer, "plain") == {
        "account": "plain",
        "algorithm": "SHA1",
        "digits": 6,
        "period": 30,
        "last_used": None,
        "offset": 0,
        "drift": [],
        "successor": None,
    }
    result = peer.call("generate", account="plain")
    assert result["code"] == seed.code(result["step"])


def test_load_without_a_name_is_of_default(peer: RawPeer, seed: Seed, host_key: PrivateKey) -> None:
    loaded = peer.call("load", sealed=seed.sealed(host_key), **seed.parameters)
    assert loaded == {"account": "default", "changed": False, "authenticators": 1}


@pytest.mark.parametrize(
    "other",
    [{"algorithm": "SHA512"}, {"digits": 8}, {"period": 60}, {}],
    ids=["algorithm", "digits", "period", "seed"],
)
def test_another_seed_or_parameter_needs_replace(
    peer: RawPeer, host_key: PrivateKey, seed: Seed, other: dict[str, object]
) -> None:
    wanted = Seed(**{**seed.parameters, **other})
    if other:
        wanted.hex = seed.hex
    load = {"sealed": wanted.sealed(host_key), **wanted.parameters}
    for arguments in (load, {**load, "replace": False}):
        code, message = peer.refusal("load", **arguments)
        assert code == "account_exists"
        assert message.startswith("account_exists: ")
        kept = peer.call("generate")
        assert kept["code"] == seed.code(kept["step"])
    assert peer.call("load", **load, replace=True) == {
        "account": "default",
        "changed": True,
        "authenticators": 1,
    }
    replaced = peer.call("generate")
    assert replaced["code"] == wanted.code(replaced["step"])


def test_what_does_not_open_is_bad_seal_in_one_text_and_changes_nothing(
    peer: RawPeer, seed: Seed, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    digits = Seed().hex.encode()
    right = seal(host_key, digits)
    sealed = {
        "empty": b"",
        "short": right[:-1],
        "long": right + b"\0",
        "changed": right[:-1] + bytes([right[-1] ^ 1]),
        "zeros": bytes(len(right)),
        "of another key": seal(other_key, digits),
        "upper case": seal(host_key, digits.upper().replace(b"0", b"A")),
        "63 digits": seal(host_key, digits[1:]),
        "18 digits": seal(host_key, digits[:18]),
        "130 digits": seal(host_key, (digits * 3)[:130]),
        "0x": seal(host_key, b"0x" + digits),
        "newline": seal(host_key, digits + b"\n"),
        "not digits": seal(host_key, b"g" * 64),
    }
    answers = {why: peer.refusal("load", sealed=bad, replace=True) for why, bad in sealed.items()}
    assert {error[0] for error in answers.values()} == {"bad_seal"}
    assert len({error[1] for error in answers.values()}) == 1, answers
    kept = peer.call("generate")
    assert kept["code"] == seed.code(kept["step"])


@pytest.mark.parametrize("digits", [32, 64, 128])
def test_seeds_of_16_to_64_bytes_are_taken(peer: RawPeer, host_key: PrivateKey, digits: int) -> None:
    seed = Seed()
    seed.hex = (Seed().hex + Seed().hex)[:digits]
    peer.call("load", account=f"of{digits}", sealed=seed.sealed(host_key))
    result = peer.call("generate", account=f"of{digits}")
    assert result["code"] == seed.code(result["step"])


def test_remove_takes_an_account_away(peer: RawPeer, host_key: PrivateKey) -> None:
    peer.call("load", account="leaves", sealed=Seed().sealed(host_key))
    assert peer.call("remove", account="leaves") == {"account": "leaves"}
    assert row_of(peer, "leaves") is None
    assert peer.refusal("generate", account="leaves")[0] == "no_such_account"
    assert peer.refusal("remove", account="leaves")[0] == "no_such_account"


@pytest.mark.usefixtures("seed")
def test_remove_without_a_name_is_of_default(peer: RawPeer) -> None:
    assert peer.call("remove") == {"account": "default"}
    assert peer.refusal("generate")[0] == "no_such_account"


def test_a_code_stays_spent_when_its_seed_goes_and_comes_back(
    peer: RawPeer, seed: Seed, host_key: PrivateKey
) -> None:
    code = seed.code()
    assert peer.call("verify", code=code) == {"valid": True}
    peer.call("remove")
    peer.call("load", sealed=seed.sealed(host_key))
    assert peer.call("verify", code=code) == {"valid": False}
    peer.call("load", sealed=Seed().sealed(host_key), replace=True)
    peer.call("load", sealed=seed.sealed(host_key), replace=True)
    assert peer.call("verify", code=code) == {"valid": False}


def test_accounts_are_listed_by_name(peer: RawPeer, host_key: PrivateKey) -> None:
    for name in ("list-b", "list-a", "list.c", "LIST"):
        peer.call("load", account=name, sealed=Seed().sealed(host_key))
    names = [row["account"] for row in peer.call("accounts")]
    assert names == sorted(names)
    assert {"list-b", "list-a", "list.c", "LIST"} <= set(names)


def test_last_used_is_the_beginning_of_the_last_accepted_step(peer: RawPeer, host_key: PrivateKey) -> None:
    seed = Seed("SHA256", 8, 60)
    peer.call("load", account="used", sealed=seed.sealed(host_key), **seed.parameters)
    step = int(time.time()) // 60
    assert row_of(peer, "used")["last_used"] is None
    assert peer.call("verify", account="used", code=seed.code(step)) == {"valid": True}
    row = row_of(peer, "used")
    assert row.pop("drift") in ([0], [-1])  # a new step may have begun in between
    used = {"last_used": step * 60, "offset": 0, "successor": None}
    assert row == {"account": "used", **seed.parameters, **used}


def test_status_says_who_it_is_and_how_it_is(endpoint: Any, peer: RawPeer) -> None:
    status = peer.call("status")
    assert status["version"] == __version__
    assert status["pid"] == endpoint.pid
    assert status["ready"] is True
    assert status["unavailable_until"] is None
    assert type(status["uptime"]) is int
    assert 0 <= status["uptime"] < 3600


def test_status_counts_accounts_and_names_none(peer: RawPeer, host_key: PrivateKey) -> None:
    before = peer.call("status")["accounts"]
    assert before == len(peer.call("accounts"))
    peer.call("load", account="counted-one", sealed=Seed().sealed(host_key))
    status = peer.call("status")
    assert status["accounts"] == before + 1
    assert "counted-one" not in repr(status)

"""Clients of every generation of MessagePack: what they cannot say in another way means what it should."""

import time
from typing import Any

import msgpack
import pytest
from support.raw import REQUEST, RESPONSE, RawPeer, Seed, assert_bad_request

from pki2fad.crypto.rsakeys import PrivateKey


def as_str(message: Any) -> bytes:
    """As the first generation packs it: all text and bytes as str, which was called raw."""
    return msgpack.packb(message, use_bin_type=False)


def as_bin(value: Any) -> Any:
    """With all text as bin."""
    if isinstance(value, dict):
        return {as_bin(name): as_bin(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [as_bin(entry) for entry in value]
    return value.encode() if isinstance(value, str) else value


def as_floats(value: Any) -> Any:
    """With all arguments that are numbers as floats."""
    return float(value) if type(value) is int else value


def test_bytes_may_come_as_str_and_are_taken_as_they_are(peer: RawPeer, host_key: PrivateKey) -> None:
    seed = Seed()
    load = {"account": "raw", "sealed": seed.sealed(host_key), "replace": True}
    peer.send_bytes(as_str([REQUEST, 1, "load", [load]]))
    assert peer.receive() == [RESPONSE, 1, None, {"account": "raw", "changed": True, "authenticators": 1}]
    peer.send_bytes(as_str([REQUEST, 2, "verify", [{"account": "raw", "code": seed.code()}]]))
    assert peer.receive() == [RESPONSE, 2, None, {"valid": True}]


def test_text_may_come_as_bin(peer: RawPeer, host_key: PrivateKey) -> None:
    seed = Seed("SHA256", 8, 60)
    load = {"account": "bin", "sealed": seed.sealed(host_key), "replace": True, **seed.parameters}
    verify = {"account": "bin", "code": seed.code()}
    for method, arguments in (("load", load), ("verify", verify), ("remove", {"account": "bin"})):
        error, result = peer.exchange(as_bin([method, [arguments]]))
        assert error is None
        assert result in (
            {"account": "bin", "changed": True, "authenticators": 1},
            {"valid": True},
            {"account": "bin"},
        )


def test_a_name_as_str_and_as_bin_is_an_argument_given_twice(peer: RawPeer) -> None:
    error = peer.refusal_of(["generate", [{"account": "default", b"account": "default"}]])
    assert_bad_request(peer, error)
    assert "'account' is given twice" in error[1]


def test_text_as_bin_that_is_not_utf_8_is_no_name(peer: RawPeer) -> None:
    assert_bad_request(peer, peer.refusal("generate", account=b"\xff"))


@pytest.mark.usefixtures("any_seed")
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("verify", {"code": "123456", "account": None}),
        ("generate", {"account": None}),
        ("verify", {"code": "123456", "origin": None}),
        ("verify", {"code": None}),
        ("enroll_confirm", {"code": None}),
        ("recovery_create", {"code": None}),
    ],
    ids=repr,
)
def test_nil_never_stands_for_whom_or_for_a_code(peer: RawPeer, method: str, arguments: Any) -> None:
    error = peer.refusal(method, **arguments)
    assert_bad_request(peer, error)
    assert "is not of type str" in error[1]


def test_any_other_argument_that_is_nil_is_absent(peer: RawPeer, host_key: PrivateKey) -> None:
    load = {"account": "nil", "sealed": Seed().sealed(host_key), "replace": True}
    absent = dict.fromkeys(["algorithm", "digits", "period", "successor", "deadline", "cutover"])
    assert peer.call("load", **load, **absent) == {"account": "nil", "changed": True, "authenticators": 1}
    assert_bad_request(peer, peer.refusal("load", account="nil", sealed=None))
    assert_bad_request(peer, peer.refusal("load", **load, unknown=None))


def test_a_whole_float_is_an_integer(peer: RawPeer, host_key: PrivateKey) -> None:
    seed = Seed("SHA512", 7, 60)
    load = {"account": "float", "sealed": seed.sealed(host_key), "replace": True, **seed.parameters}
    peer.call("load", **{name: as_floats(value) for name, value in load.items()})
    assert peer.call("verify", account="float", code=seed.code()) == {"valid": True}
    successor = {"successor": True, "deadline": time.time() // 1 + 3600.0, "digits": 6.0}
    assert peer.call("load", account="float", sealed=Seed().sealed(host_key), **successor)["changed"] is True


@pytest.mark.parametrize("msgid", [0.0, 7.0, 2.0**32 - 1])
def test_a_msgid_that_is_a_whole_float_gets_bad_request_under_that_integer(
    peer: RawPeer, msgid: float
) -> None:
    peer.send([REQUEST, msgid, "status", []])
    kind, answered, error, result = peer.receive()
    assert (kind, answered, type(answered), result) == (RESPONSE, msgid, int, None)
    assert_bad_request(peer, error)
    assert "float" in error[1]


def test_a_container_of_more_than_16_is_bad_request_whatever_is_in_it(peer: RawPeer) -> None:
    many = {f"argument-{number}": "x" * 1000 for number in range(17)}
    assert_bad_request(peer, peer.refusal("load", **many))
    error = peer.refusal("load", **dict(list(many.items())[:16]))
    assert "this method has no argument 'argument-0'" in error[1]

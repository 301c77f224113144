"""The protocol from the bytes up: framing, order, what is ignored, and what ends a connection."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.raw import NOTIFICATION, REQUEST, RESPONSE, RawPeer, Seed

import pki2fad
from pki2fad.crypto.rsakeys import PrivateKey

CALL = bytes.fromhex(
    "94"  # an array of four
    "00"  # a request
    "2a"  # msgid 42
    "a6766572696679"  # "verify"
    "91"  # an array of one
    "81"  # a map of one
    "a4636f6465"  # "code"
)
HEX = re.compile(r"\s+([0-9a-f]{2}\s)+")
SIX_DIGITS, EIGHT_DIGITS = b"\xa6", b"\xa8"
LIMIT = 64 * 1024
INVALID = bytes.fromhex("94012ac081a576616c6964c2")  # [1, 42, nil, {"valid": false}]
VALID = bytes.fromhex("94012ac081a576616c6964c3")


def test_an_exchange_in_bytes(peer: RawPeer, seed: Seed) -> None:
    # No code of a six-digit account has eight digits.
    peer.send_bytes(CALL + EIGHT_DIGITS + b"00000000")
    assert peer.receive_bytes() == INVALID
    peer.send_bytes(CALL + SIX_DIGITS + seed.code().encode())
    assert peer.receive_bytes() == VALID


@pytest.mark.usefixtures("any_seed")
def test_the_exchange_of_the_reference_is_what_happens(peer: RawPeer) -> None:
    reference = Path(pki2fad.__file__).with_name("PROTOCOL.md").read_text()
    lines = reference.partition("## One exchange")[2].splitlines()
    blocks = [list(block) for _, block in itertools.groupby(lines, key=lambda line: line.startswith("    "))]
    request, response = (
        bytes.fromhex("".join(HEX.match(line).group() for line in block))
        for block in blocks
        if block[0].startswith("    ")
    )
    peer.send_bytes(request)
    assert peer.receive_bytes() == response


@pytest.mark.usefixtures("any_seed")
def test_every_longer_encoding_of_the_same_message_means_the_same(peer: RawPeer) -> None:
    peer.send_bytes(
        bytes.fromhex(
            "dd00000004"  # array 32
            "cf0000000000000000"  # uint 64
            "ce0000002a"  # uint 32
            "da0006"
            "766572696679"  # str 16
            "dc0001"  # array 16
            "df00000001"  # map 32
            "db00000004"
            "636f6465"  # str 32
            "d908"
            "3030303030303030"  # str 8
        )
    )
    assert peer.receive_bytes() == INVALID


@pytest.mark.usefixtures("any_seed")
def test_a_message_may_arrive_a_byte_at_a_time(peer: RawPeer) -> None:
    for byte in CALL + EIGHT_DIGITS + b"00000000":
        peer.send_bytes(bytes([byte]))
    assert peer.receive_bytes() == INVALID


def test_pipelined_requests_are_answered_in_order(peer: RawPeer, seed: Seed, host_key: PrivateKey) -> None:
    code, other = seed.code(), Seed()
    load = {"account": "piped", "sealed": other.sealed(host_key)}
    tails = [
        ["generate", []],
        ["verify", [{"code": code}]],
        ["verify", [{"code": code}]],
        ["load", [load]],
        ["generate", [{"account": "piped"}]],
        ["verify", [{"account": "piped", "code": other.code()}]],
        ["status", [None]],
        ["nonsense", []],
        ["verify", [{"code": "12345"}]],
        ["remove", [{"account": "piped"}]],
        ["generate", [{"account": "piped"}]],
        ["verify", [{"code": code}]],
    ]
    msgids = [7, 7, 0, 2**32 - 1, 3, 2, 1, 1000, 70000, 5, 6, 4]  # a client's own choice, in any order
    peer.send(*([REQUEST, msgid, *tail] for msgid, tail in zip(msgids, tails, strict=True)))
    answers = [peer.receive() for _ in tails]
    assert [(kind, msgid) for kind, msgid, _, _ in answers] == [(RESPONSE, msgid) for msgid in msgids]
    errors = [error and error[0] for _, _, error, _ in answers]
    assert errors == [
        *[None] * 7,
        "unknown_method",
        "bad_request",
        None,
        "no_such_account",
        None,
    ]
    results = [result for *_, result in answers]
    assert results[0]["code"] == seed.code(results[0]["step"])
    assert results[1:4] == [
        {"valid": True},
        {"valid": False},
        {"account": "piped", "changed": True, "authenticators": 1},
    ]
    assert results[4]["code"] == other.code(results[4]["step"])
    assert results[5] == {"valid": True}
    assert results[6]["ready"] is True
    assert results[9] == {"account": "piped"}
    assert results[11] == {"valid": False}


@pytest.mark.usefixtures("any_seed")
def test_more_requests_than_one_turn_handles_are_answered_in_order(peer: RawPeer) -> None:
    methods = itertools.cycle(["generate", "status", "verify", "nonsense"])
    requests = [[REQUEST, msgid, next(methods), []] for msgid in range(1000)]
    peer.send(*requests)
    assert [peer.receive()[1] for _ in requests] == list(range(1000))


@pytest.mark.parametrize("msgid", [0, 1, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32 - 1])
def test_every_msgid_of_32_bits_comes_back(peer: RawPeer, msgid: int) -> None:
    peer.send([REQUEST, msgid, "status", []])
    assert peer.receive()[:3] == [RESPONSE, msgid, None]


@pytest.mark.parametrize("msgid", [2**32, -1, 2**64 - 1, 1.5, 2.0**32, True, None, "1", b"1", [1]], ids=repr)
def test_any_other_msgid_ends_the_connection_without_an_answer(peer: RawPeer, msgid: object) -> None:
    peer.send([REQUEST, msgid, "status", []])
    assert list(peer.messages()) == []


IGNORED = [
    [NOTIFICATION, "nvim_set_client_info", ["x", {"major": 1}, "remote", {}, {"deep": [[[{}]]]}]],
    [NOTIFICATION, b"as bin", []],
    [NOTIFICATION, "generate", [{"account": "default"}]],
    [NOTIFICATION, "load", None],
    [NOTIFICATION, 5, {1: 2, None: {}}],
    [NOTIFICATION, None, msgpack.ExtType(5, b"x")],
    [NOTIFICATION, "x", list(range(1000))],
    [RESPONSE, 1, None, {"valid": True}],
    [RESPONSE, 2**40, ["error", "text"], [{}] * 300],
    [RESPONSE, "not ours", None, None],
]


@pytest.mark.parametrize("message", IGNORED, ids=lambda message: repr(message)[:40])
def test_a_notification_and_a_stray_response_are_ignored(peer: RawPeer, message: list[Any]) -> None:
    peer.send(message, [REQUEST, 1, "status", []], message)
    assert peer.receive()[1] == 1
    peer.send([REQUEST, 2, "status", []])
    assert peer.receive()[1] == 2


@pytest.mark.parametrize(
    "method", ["nvim_get_api_info", "", "Status", "status ", "handle", "__init__", "é" * 1000]
)
@pytest.mark.parametrize("params", [[], [1, [2], {"a": {}}], None], ids=repr)
def test_an_unknown_method_is_answered_and_keeps_the_connection(
    peer: RawPeer, method: str, params: Any
) -> None:
    code, message = peer.refusal_of([method, params])
    assert code == "unknown_method"
    assert message.startswith("unknown_method: ")
    assert peer.call("status")["ready"] is True


NO_MESSAGES = {
    "a number": b"\x00",
    "nil": b"\xc0",
    "the byte that is never used": b"\xc1",
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "a string": msgpack.packb("status"),
    "a map": msgpack.packb({"method": "status"}),
    "an empty array": b"\x90",
    "a short request": msgpack.packb([REQUEST, 1, "status"]),
    "a long request": msgpack.packb([REQUEST, 1, "status", [], None]),
    "another kind": msgpack.packb([3, 1, "status", []]),
    "a kind of another type": msgpack.packb([False, 1, "status", []]),
    "a long notification": msgpack.packb([NOTIFICATION, 1, "status", []]),
    "a giant array": b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES.keys())
def test_what_is_no_message_ends_the_connection_after_the_answers_before_it(
    peer: RawPeer, data: bytes
) -> None:
    peer.send_bytes(msgpack.packb([REQUEST, 5, "status", []]) + data)
    assert [(kind, msgid) for kind, msgid, *_ in peer.messages()] == [(RESPONSE, 5)]


def test_a_request_of_64_kib_is_taken_and_one_byte_more_is_not(peer: RawPeer) -> None:
    empty = len(msgpack.packb([REQUEST, 0, "load", [{"sealed": bytes(256)}]])) - 256
    for over, code in ((0, "bad_seal"), (1, "bad_request")):
        peer.send([REQUEST, over, "load", [{"sealed": bytes(LIMIT - empty + over)}]])
        assert peer.receive()[2][0] == code
    assert list(peer.messages()) == []


@pytest.mark.parametrize("make", [list, dict.fromkeys], ids=["array", "map"])
def test_a_container_is_no_argument_and_costs_no_connection(
    peer: RawPeer, make: Callable[[range], object]
) -> None:
    peer.send([REQUEST, 1, "status", [make(range(5000))]])
    assert peer.receive()[2][0] == "bad_request"
    assert peer.call("status")["ready"] is True


def test_containers_1000_deep_are_taken_and_2000_deep_are_not(peer: RawPeer) -> None:
    head, end = msgpack.packb([REQUEST, 1, "status", []])[:-1], b"\x90"
    peer.send_bytes(head + b"\x91" * 1000 + end)
    assert peer.receive()[2][0] == "bad_request"
    assert peer.call("status")["ready"] is True
    peer.send_bytes(head + b"\x91" * 2000 + end)
    assert [(msgid, error[0]) for _, msgid, error, _ in peer.messages()] == [(1, "bad_request")]


def test_a_notification_over_64_kib_ends_the_connection(peer: RawPeer) -> None:
    peer.send([NOTIFICATION, "x", [bytes(LIMIT)]])
    assert list(peer.messages()) == []


BAD_REQUESTS = {
    "a method as a number": [1, []],
    "no method": [None, []],
    "over 64 KiB": ["load", [{"sealed": bytes(LIMIT)}]],
}


@pytest.mark.parametrize("tail", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_whose_msgid_was_read_gets_one_error_and_ends_the_connection(
    peer: RawPeer, tail: list[Any]
) -> None:
    peer.send([REQUEST, 77, *tail])
    ((kind, msgid, error, result),) = peer.messages()
    assert (kind, msgid, result) == (RESPONSE, 77, None)
    assert error[0] == "bad_request"
    assert error[1].startswith("bad_request: ")


def test_nothing_behind_a_bad_message_is_carried_out(endpoint: Any, peer: RawPeer, seed: Seed) -> None:
    code = seed.code()
    peer.send_bytes(b"\xc1" + msgpack.packb([REQUEST, 1, "verify", [{"code": code}]]))
    assert list(peer.messages()) == []
    with endpoint.connect() as other:
        assert other.call("verify", code=code) == {"valid": True}


def test_a_client_that_sends_no_more_gets_its_answers_and_then_the_end(peer: RawPeer, seed: Seed) -> None:
    code = seed.code()
    peer.send(*([REQUEST, msgid, "verify", [{"code": code}]] for msgid in range(200)))
    peer.finish()
    answers = list(peer.messages())
    assert [msgid for _, msgid, _, _ in answers] == list(range(200))
    assert [result["valid"] for *_, result in answers] == [True] + [False] * 199


@pytest.mark.parametrize("sent", [0, 1, 10])
def test_a_client_that_ends_in_the_middle_of_a_message_gets_the_end(peer: RawPeer, sent: int) -> None:
    peer.send_bytes(CALL[:sent])
    peer.finish()
    assert list(peer.messages()) == []

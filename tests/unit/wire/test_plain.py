"""Plain requests: the same bytes mean the same as to the decoder that takes everything."""

import contextlib
from collections.abc import Iterable

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pki2fad.errors import ProtocolError
from pki2fad.wire import plain
from pki2fad.wire.messages import REQUEST, REQUEST_LIMIT, Decoder, Request

VERIFY = msgpack.packb([0, 7, "verify", [{"account": "deploy", "code": "123456"}]])
GENERATE = msgpack.packb([0, 300, "generate", [{"account": "a.b@c"}]])
LOAD = msgpack.packb([0, 1, "load", [{"account": "deploy", "sealed": VERIFY}]])

good_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,40}", fullmatch=True)
good_codes = st.from_regex(r"[0-9]{5,9}", fullmatch=True)
names = good_names | st.tuples(good_names, st.text(max_size=2)).map("".join)
codes = good_codes | st.tuples(good_codes, st.text(max_size=2)).map("".join)
arguments = (
    st.fixed_dictionaries({"account": names, "code": codes})
    | st.fixed_dictionaries({"account": names})
    | st.fixed_dictionaries({"code": codes, "account": names})
    | st.fixed_dictionaries({"account": names, "code": codes, "origin": names})
)
messages = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(["verify", "generate", "status"]), arguments)


# What strings are made of that end too early, or hold what looks like the end of a request or another one.
PIECES = [
    b"a", b"-", b"123456", b"1234567", b"\n", b"\x94",
    b"\x94\x00\x02", b"\xa4code", b"\xa6", b"\xa7", b"\xa1x",
    b"\xa8generate\x91\x81\xa7account", b"\xa6verify\x91\x82\xa7account",
    b"\xc0", b"\xff", b"\xc3\xa9",
]  # fmt: skip
strings = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map(lambda of: b"".join(of)[:31])
msgids = st.sampled_from(
    [b"\x07", b"\xcc\x94", b"\xcd\x01\x94", b"\xce\x94\x94\x94\x94", b"\xcc\x07", b"\xa1"]
)


def string(text: bytes) -> bytes:
    return bytes([0xA0 + len(text)]) + text


def verify(msgid: bytes, name: bytes, code: bytes) -> bytes:
    return b"\x94\x00" + msgid + b"\xa6verify\x91\x82\xa7account" + string(name) + b"\xa4code" + string(code)


def generate(msgid: bytes, name: bytes) -> bytes:
    return b"\x94\x00" + msgid + b"\xa8generate\x91\x81\xa7account" + string(name)


crafted = st.builds(verify, msgids, strings, strings) | st.builds(generate, msgids, strings)


def fields(requests: Iterable[object]) -> list[tuple[int, str, object]]:
    found = []
    for request in requests:
        assert isinstance(request, Request)
        found.append((request.msgid, request.method, request.args))
    return found


def decoded(data: bytes) -> list[tuple[int, str, object]]:
    """What the decoder makes of it, up to where it is none of the protocol."""
    decoder, found = Decoder(REQUEST, REQUEST_LIMIT), []
    decoder.feed(data)
    with contextlib.suppress(ProtocolError):
        while (message := decoder.next()) is not None:
            found.append(message)
    return fields(found)


def all_of(data: bytes) -> list[tuple[int, str, object]]:
    """What is made of it where plain requests are taken out first."""
    requests, rest = plain.split(data)
    assert plain.alone(data) == (requests[0] if len(requests) == 1 and not rest else None)
    return fields(map(plain.request, requests)) + decoded(rest)


def test_both_methods_are_plain() -> None:
    assert plain.split(VERIFY) == ([("\x07", "deploy", "123456")], b"")
    assert plain.split(GENERATE) == ([("\xcd\x01\x2c", "a.b@c", None)], b"")


@settings(deadline=None, max_examples=300)
@given(st.lists(messages, max_size=6))
def test_requests_mean_what_they_mean_to_the_decoder(sent: list[tuple[int, str, object]]) -> None:
    data = b"".join(msgpack.packb([0, msgid, method, [args]]) for msgid, method, args in sent)
    assert all_of(data) == sent


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32 - 1), good_names, good_codes)
def test_what_is_plain_is_found(msgid: int, name: str, code: str) -> None:
    data = msgpack.packb([0, msgid, "verify", [{"account": name, "code": code}]])
    is_plain = len(name) < 32 and 6 <= len(code) <= 8
    requests, rest = plain.split(3 * data)
    assert (len(requests), rest) == ((3, b"") if is_plain else (0, 3 * data))


@settings(deadline=None, max_examples=1000)
@given(st.lists(crafted, min_size=1, max_size=3).map(b"".join), st.integers(0, 200))
@example(verify(b"\x07", b"a\xa4code\xa6123456\x94\x00", b"000000"), 0)
@example(verify(b"\x07", b"deploy", b"123456\x94"), 0)
@example(generate(b"\x07", b"a\x94\x00\x02\xa8generate\x91\x81\xa7account\xa1b"), 0)
def test_whatever_strings_hold_it_means_the_same(data: bytes, left_out: int) -> None:
    for some in (data, data[: len(data) - left_out]):
        assert all_of(some) == decoded(some)


def test_a_long_read_is_left_to_the_decoder() -> None:
    many = GENERATE * 1000
    assert plain.split(many) == ([], many)


def test_what_is_not_whole_comes_after() -> None:
    for cut in range(1, len(VERIFY)):
        requests, rest = plain.split(GENERATE + VERIFY[:cut])
        assert [plain.request(one).method for one in requests] + decoded(rest) in (["generate"], [])
        assert rest.endswith(VERIFY[:cut])


@pytest.mark.parametrize("between", [LOAD, b"\x93\x02\xa1x\x90", b"\xc1", b"x", b"\x94\x00", b"\n"])
def test_what_stands_between_requests_is_not_passed_over(between: bytes) -> None:
    assert plain.split(GENERATE + between + VERIFY) == ([], GENERATE + between + VERIFY)
    assert plain.split(between + VERIFY) == ([], between + VERIFY)


def test_a_request_within_another_is_none() -> None:
    assert plain.split(LOAD) == ([], LOAD)
    assert plain.split(GENERATE + LOAD) == ([], GENERATE + LOAD)
    cut = LOAD[: -len(VERIFY)]
    assert plain.split(cut) == ([], cut)


@pytest.mark.parametrize(
    "data",
    [
        VERIFY.replace(b"\xa6123456", b"\xa61234567"),  # lengths that are not those of what follows
        VERIFY.replace(b"\xa6123456", b"\xa7123456"),
        VERIFY.replace(b"\xa6deploy", b"\xa5deploy"),
        VERIFY.replace(b"\xa6deploy", b"\xa7deploy"),
        VERIFY.replace(b"\x82", b"\x81"),
        VERIFY.replace(b"\xa6123456", b"\xa7123456 "),  # what is not of a code or a name at the end
        VERIFY.replace(b"\xa6123456", b"\xa8123456\n\0"),
        VERIFY.replace(b"\xa6123456", b"\xa712345678"),
        VERIFY.replace(b"\xa6deploy", b"\xa7deploy\n"),
        GENERATE.replace(b"\xa5a.b@c", b"\xa6a.b@c\n"),
        GENERATE.replace(b"\xa5a.b@c", b"\xa7a.b@c\xc3\xa9"),
        VERIFY.replace(b"123456", "\uff11\uff12".encode()),
        VERIFY.replace(b"123456", b"12345\n"),
        VERIFY.replace(b"deploy", b"-eploy"),
        VERIFY.replace(b"deploy", b"dep\0oy"),
        VERIFY.replace(b"verify", b"verifY"),
        VERIFY.replace(b"\x94\x00", b"\x94\x01"),
        VERIFY.replace(b"\x94\x00", b"\x94\xc2"),
        VERIFY.replace(b"\x94\x00\x07", b"\x94\x00\xcc\x07"),  # msgids that are not written shortest
        VERIFY.replace(b"\x94\x00\x07", b"\x94\x00\xcd\x00\x07"),
        VERIFY.replace(b"\x94\x00\x07", b"\x94\x00\xce\x00\x00\x01\x07"),
        VERIFY.replace(b"\x94\x00\x07", b"\x94\x00\xd0\x07"),
        VERIFY.replace(b"\x94\x00\x07", b"\x94\x00\xff"),
        GENERATE.replace(b"\x81", b"\x82") + b"\xa4code\xa6123456",
        VERIFY.replace(b"\xa6verify", b"\xa8generate"),
    ],
)
def test_whatever_differs_is_left_to_the_decoder(data: bytes) -> None:
    assert plain.split(data) == ([], data)
    assert plain.split(VERIFY + data)[0] in ([], plain.split(VERIFY)[0])


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(0, 2**40), good_codes)
def test_answers_are_what_msgpack_writes(msgid: int, valid_for: int, step: int, code: str) -> None:
    text = msgpack.packb(msgid).decode("latin-1")
    response = plain.START + text + plain.END_OF_INVALID
    assert response.encode("latin-1") == msgpack.packb([1, msgid, None, {"valid": False}])
    result = {"code": code, "valid_for": valid_for, "step": step}
    answer = plain.code(text, code, valid_for, step)
    assert answer.encode("latin-1") == msgpack.packb([1, msgid, None, result])

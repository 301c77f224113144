"""Messages that come together: they are what msgpack makes of them, in any encoding and cut at any byte."""

from collections.abc import Callable, Iterable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pki2fad.errors import ProtocolError
from pki2fad.wire.build import AT_ONCE, PASSED, SEVERAL
from pki2fad.wire.decoder import Decoder
from pki2fad.wire.messages import REQUEST, REQUEST_LIMIT, Request

Fields = tuple[int, str, Any]

STATUS = b"\x94\0\7\xa6status\x90"
NOTE = b"\x93\2\xa4note\x90"
UNPACK = {
    "raw": False,
    "strict_map_key": False,
    "unicode_errors": "surrogateescape",
    "object_pairs_hook": list,
}

names = st.text("abc.@é", min_size=1, max_size=8)
values = names | st.binary(max_size=8) | st.integers(0, 2**32) | st.booleans() | st.floats(0, 1) | st.none()
requests = st.tuples(st.integers(0, 2**32 - 1), names, st.dictionaries(names, values, max_size=4))


def sized(kind: str, data: bytes, width: int) -> bytes:
    """A string whose length is written in so many bytes."""
    first = {"str": {1: b"\xd9", 2: b"\xda", 4: b"\xdb"}, "bin": {1: b"\xc4", 2: b"\xc5", 4: b"\xc6"}}[kind]
    return first[width] + len(data).to_bytes(width, "big") + data


@st.composite
def encoded(draw: Callable[..., Any], request: st.SearchStrategy[Fields]) -> bytes:
    """A request, each part of which is in any of the encodings that there are for it."""
    msgid, method, args = draw(request)

    def string(text: str) -> bytes:
        if draw(st.booleans()):
            return bytes(msgpack.packb(text))
        return sized(draw(st.sampled_from(["str", "bin"])), text.encode(), draw(st.sampled_from([1, 2, 4])))

    def number(value: int) -> bytes:
        widest = draw(st.sampled_from([b"\xce", b"\xcf", b""]))
        if not widest:
            return bytes(msgpack.packb(value))
        return widest + value.to_bytes(4 if widest == b"\xce" else 8, "big")

    start = draw(st.sampled_from([b"\x94", b"\xdc\0\4", b"\xdd\0\0\0\4"]))
    pairs = b"".join(string(name) + msgpack.packb(value) for name, value in args.items())
    size = bytes([0x80 + len(args)])
    opening = draw(st.sampled_from([size, b"\xde" + len(args).to_bytes(2, "big")]))
    params = draw(st.sampled_from([b"\x91", b"\xdc\0\1"])) + opening + pairs
    if not args:
        params = draw(st.sampled_from([params, b"\x90", b"\x91\xc0", b"\x91\x90"]))
    return start + draw(st.sampled_from([b"\0", b"\xcc\0"])) + number(msgid) + string(method) + params


def by_msgpack(data: bytes) -> list[Fields]:
    """What msgpack's own Unpacker makes of whole requests."""
    unpacker = msgpack.Unpacker(**UNPACK)
    unpacker.feed(data)
    found = []
    for _, msgid, method, params in unpacker:
        pairs = params[0] if params and params[0] else []
        args = {text(name): value for name, value in pairs}
        found.append((msgid, text(method), args))
    return found


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def taken(pieces: Iterable[bytes]) -> list[Fields]:
    """The requests found, several at once; the last is the error that ended the stream, if one did."""
    decoder, found = Decoder(REQUEST, REQUEST_LIMIT), []
    for piece in pieces:
        decoder.feed(piece)
        try:
            while some := decoder.some():
                assert len(some) <= SEVERAL
                found += [one for one in some if one is not PASSED]
        except ProtocolError as error:
            return [*fields(found), (error.msgid or 0, "ended", None)]
    return fields(found)


def one_by_one(data: bytes) -> list[Fields]:
    decoder, found = Decoder(REQUEST, REQUEST_LIMIT), []
    decoder.feed(data)
    try:
        while (message := decoder.next()) is not None:
            if message is not PASSED:
                found.append(message)
    except ProtocolError as error:
        return [*fields(found), (error.msgid or 0, "ended", None)]
    return fields(found)


def fields(found: Iterable[Any]) -> list[Fields]:
    assert all(isinstance(one, Request) for one in found)
    return [(one.msgid, one.method, one.args) for one in found]


@settings(deadline=None, max_examples=300)
@given(st.lists(encoded(requests), max_size=2 * SEVERAL + 2))
def test_requests_are_what_msgpack_makes_of_them(sent: list[bytes]) -> None:
    data = b"".join(sent)
    assert taken([data]) == one_by_one(data) == by_msgpack(data)


@settings(deadline=None, max_examples=60)
@given(st.lists(encoded(requests), min_size=1, max_size=4))
def test_it_is_the_same_wherever_they_are_cut(sent: list[bytes]) -> None:
    data = b"".join(sent)
    whole = by_msgpack(data)
    ends = [len(b"".join(sent[: count + 1])) for count in range(len(sent))]
    for cut in range(1, len(data)):
        before = taken([data[:cut]])
        assert before == whole[: sum(end <= cut for end in ends)]
        assert taken([data[:cut], data[cut:]]) == whole


PIECES = [
    STATUS, NOTE, b"\x94", b"\0", b"\2", b"\7", b"\xa6status", b"\xa4", b"\x90", b"\x91", b"\xc0", b"\xc1",
    b"\x81", b"\xa1a", b"\xa1b", b"\xcd\1", b"\xdc\0\4", b"\xde\0\x11", b"\x93", b"\xc7\5\xff", b"\xca\0",
]  # fmt: skip


@settings(deadline=None, max_examples=1500)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
@example(b"\x94\0\2\xa6status")  # a nil behind it would make it whole
@example(STATUS + b"\x94\0\2\xa6status")
@example(b"\xc0\xa5ab")  # a nil, and half a string that a nil is a part of
@example(STATUS + b"\xc0")
@example(STATUS + b"\xcd\1")
@example(STATUS * SEVERAL + b"\xc1")
@example(STATUS + b"\x94\0\1\xa1m\x91\x82\xa1a\1\xa1a\2" + STATUS)  # an argument that is given twice
def test_whatever_comes_is_the_same_together_and_one_by_one(data: bytes) -> None:
    assert taken([data]) == one_by_one(data)


@pytest.mark.parametrize(
    "bad", [b"\xc1", b"\x94\0\1\7\x90", b"\x07", b"\xc0", b"\x92\0\1", b"\x94\0\xa1a\xa1m\x90"]
)
@pytest.mark.parametrize("count", [1, SEVERAL - 1, SEVERAL, SEVERAL + 1])
def test_those_before_a_bad_one_are_all_found(bad: bytes, count: int) -> None:
    *found, (_, end, _) = taken([STATUS * count + bad + STATUS])
    assert [method for _, method, _ in found] == ["status"] * count
    assert end == "ended"


def test_an_argument_given_twice_is_seen_among_others() -> None:
    twice = b"\x94\0\1\xa1m\x91\x82\xa1a\1\xc4\1a\2"
    assert taken([STATUS + twice + STATUS]) == [(7, "status", {}), (1, "m", None), (7, "status", {})]


@pytest.mark.parametrize("size", [16, 17, 1000])
def test_a_notification_holds_whatever_it_likes(size: int) -> None:
    note = msgpack.packb([2, "note", [list(range(size)), {str(one): one for one in range(size)}]])
    assert len(taken([(STATUS + note) * 5 + STATUS])) == 6


@pytest.mark.parametrize("size", [16, 17])
def test_a_request_with_more_arguments_than_any_method_takes_is_marked(size: int) -> None:
    data = msgpack.packb([0, 1, "m", [{str(one): one for one in range(size)}]])
    (_, (_, _, args), _) = taken([STATUS + data + STATUS])
    assert (args is None) == (size > 16)


@pytest.mark.parametrize("size", [AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 5 * AT_ONCE])
def test_long_and_short_ones_come_in_order(size: int) -> None:
    long = msgpack.packb([0, 1, "load", [{"sealed": bytes(size)}]])
    assert [method for _, method, _ in taken([(STATUS * 3 + long) * 3])] == (["status"] * 3 + ["load"]) * 3

"""The wire: messages to bytes and back, however the bytes are cut.

The independent encoder is `msgpack.packb`, or bytes written out by hand.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki2fad.errors import ProtocolError
from pki2fad.wire import messages
from pki2fad.wire.build import PASSED
from pki2fad.wire.decoder import Decoder

GENERATE = b"\x94\x00\x07\xa8generate\x91\x81\xa7account\xa6deploy"
ANSWER = b"\x94\x01\x07\xc0\x81\xa5valid\xc3"
ANNOUNCEMENT = b"\x93\x02\xa5hello\x92\xc4\x01\x00\x91\x91\xc0"

# What a foreign client may send of its own accord, and what must not disturb a stream of requests.
PASSED_OVER = {
    "notification": [2, "note", []],
    "its method as bin": [2, b"nvim_set_client_info", ["client", {"major": 1}]],
    "its method no string at all": [2, None, None],
    "its arguments nested": [2, "note", [[{"a": [{"b": {b"c": [1.5, None]}}]}], [[]]]],
    "its arguments many": [2, "note", [list(range(1000)), {str(i): i for i in range(1000)}]],
    "its arguments not even a list": [2, "note", {(1, 2): {"unhashable": "nowhere"}}],
    "an extension type in it": [2, "note", [msgpack.ExtType(5, b"data"), msgpack.Timestamp(1)]],
    "a stray response": [1, 3, None, {"valid": True}],
    "a stray error": [1, 3, ["internal", "internal: no"], None],
    "a stray response with a strange msgid": [1, "three", [[]], [[[]]]],
}

MIXED = [
    GENERATE,
    ANNOUNCEMENT,
    b"\x94\x00\xce\xff\xff\xff\xff\xa6status\x90",
    ANSWER,
    b"\xdc\x00\x04\xcc\x00\xcd\x00\x08\xd9\x04load\x91\xde\x00\x01\xa6sealed\xc4\x03\x00\xff\x94",
]
MIXED_FIELDS = [
    (7, "generate", {"account": "deploy"}),
    (2**32 - 1, "status", {}),
    (8, "load", {"sealed": b"\x00\xff\x94"}),
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
requests = st.tuples(
    st.integers(0, 2**32 - 1),
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=20), scalars, max_size=16),
)


def new(kind: int = messages.REQUEST) -> Decoder:
    return Decoder(kind, messages.REQUEST_LIMIT)


def read(pieces: Iterable[bytes], decoder: Decoder) -> Iterator[Any]:
    for piece in pieces:
        decoder.feed(piece)
        while (message := decoder.next()) is not None:
            if message is not PASSED:
                yield message


def fields(pieces: Iterable[bytes]) -> list[tuple[int, str, dict[str, Any] | None]]:
    return [(request.msgid, request.method, request.args) for request in read(pieces, new())]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def args_of(params: object) -> dict[str, Any] | None:
    (request,) = read([msgpack.packb([0, 7, "m", params])], new())
    return request.args


def test_a_request_is_just_these_bytes() -> None:
    assert messages.encode_request(7, "generate", {"account": "deploy"}) == GENERATE


@pytest.mark.parametrize(
    ("error", "result", "expected"),
    [
        (None, {"valid": True}, ANSWER),
        (["throttled", "throttled: no", 9], None, b"\x94\x01\x07\x93\xa9throttled\xadthrottled: no\x09\xc0"),
    ],
)
def test_a_response_is_just_these_bytes(error: list[Any] | None, result: Any, expected: bytes) -> None:
    assert messages.encode_response(7, error, result) == expected


@given(request=requests)
def test_any_request_comes_back_as_it_was_sent(request: tuple[int, str, dict[str, Any]]) -> None:
    assert fields([messages.encode_request(*request)]) == [request]


@given(msgid=st.integers(0, 2**32 - 1), result=st.recursive(scalars, st.lists))
def test_any_response_comes_back_as_it_was_sent(msgid: int, result: Any) -> None:
    data = messages.encode_response(msgid, None, result)
    assert msgpack.unpackb(data) == [1, msgid, None, result]
    (response,) = read([data], new(messages.RESPONSE))
    assert (response.msgid, response.error, response.result) == (msgid, None, result)


def test_an_error_response_comes_back_with_all_that_is_in_it() -> None:
    error = ["throttled", "throttled: too many failures", 12]
    (response,) = read([messages.encode_response(3, error, None)], new(messages.RESPONSE))
    assert (response.msgid, response.error, response.result) == (3, error, None)


def test_what_cannot_be_encoded_leaves_nothing_behind_for_the_next_message() -> None:
    with pytest.raises(TypeError):
        messages.encode_request(1, "generate", {"account": "half of it", "code": object()})
    assert messages.encode_request(7, "generate", {"account": "deploy"}) == GENERATE


@pytest.mark.parametrize("place", range(len(b"".join(MIXED)) + 1))
def test_a_stream_cut_at_any_byte_gives_the_same_requests(place: int) -> None:
    assert fields(cut(b"".join(MIXED), [place])) == MIXED_FIELDS


def test_a_stream_byte_by_byte_gives_the_same_requests() -> None:
    stream = b"".join(MIXED)
    assert fields(cut(stream, range(1, len(stream)))) == MIXED_FIELDS


@given(stream=st.lists(requests, max_size=8), places=st.lists(st.integers(0, 4000), max_size=20))
def test_a_stream_cut_anywhere_gives_the_same_requests(
    stream: list[tuple[int, str, dict[str, Any]]], places: list[int]
) -> None:
    data = b"".join(msgpack.packb([0, msgid, method, [args]]) for msgid, method, args in stream)
    assert fields(cut(data, [min(place, len(data)) for place in places])) == stream


def test_a_pipeline_far_longer_than_the_limit_of_a_message_comes_in_order() -> None:
    count = 20_000
    pipeline = b"".join(msgpack.packb([0, msgid, "status", []]) for msgid in range(count))
    assert len(pipeline) > 3 * messages.REQUEST_LIMIT
    assert [msgid for msgid, _, _ in fields([pipeline])] == list(range(count))


def test_large_messages_in_one_piece_are_all_read() -> None:
    large = msgpack.packb([0, 1, "load", [{"sealed": bytes(60_000)}]])
    assert [len(args["sealed"]) for _, _, args in fields([large * 10]) if args] == [60_000] * 10


def test_a_long_response_in_many_pieces_is_not_read_again_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = []

    class Counting(msgpack.Unpacker):
        def feed(self, data: bytes) -> None:
            fed.append(len(data))
            super().feed(data)

    monkeypatch.setattr("pki2fad.wire.decoder.Unpacker", Counting)
    data = messages.encode_response(1, None, {"backup": bytes(4 * 2**20)})
    decoder = Decoder(messages.RESPONSE, messages.RESPONSE_LIMIT)
    (response,) = read((data[start : start + 65536] for start in range(0, len(data), 65536)), decoder)
    assert len(response.result["backup"]) == 4 * 2**20
    assert sum(fed) <= 1.1 * len(data)


@pytest.mark.parametrize("message", PASSED_OVER.values(), ids=PASSED_OVER)
def test_what_is_not_asked_is_passed_over(message: Any) -> None:
    stray = msgpack.packb(message)
    assert fields([stray + GENERATE + stray + stray + GENERATE]) == [MIXED_FIELDS[0]] * 2
    assert fields(cut(stray + GENERATE, range(1, len(stray) + len(GENERATE)))) == [MIXED_FIELDS[0]]


def test_requests_are_passed_over_where_responses_are_read() -> None:
    (response,) = read([GENERATE + ANNOUNCEMENT + ANSWER + GENERATE], new(messages.RESPONSE))
    assert (response.msgid, response.result) == (7, {"valid": True})


@pytest.mark.parametrize("params", [[], [None], [{}], [[]]], ids=repr)
def test_absent_arguments_are_no_arguments(params: list[Any]) -> None:
    assert args_of(params) == {}


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"account": "deploy"},
        "deploy",
        7,
        ["deploy"],
        [[None]],
        [[["account", "deploy"]]],
        [[("account", "deploy")]],
        [False],
        [{}, {}],
        [None, None],
        [{"account": "a"}, {"account": "b"}],
        [{1: "deploy"}],
        [{None: "deploy"}],
        [{"account": "deploy", b"account": "deploy"}],
        [{(1, 2): "deploy"}],
        [{"account": ["deploy"]}],
        [{"account": {"name": "deploy"}}],
        [{"account": {}}],
        [{"account": []}],
        [{str(number): number for number in range(17)}],
        [{"account": msgpack.ExtType(5, b"deploy")}],
        [{"account": msgpack.Timestamp(1)}],
        [msgpack.ExtType(5, b"deploy")],
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["m", "m" * 300])  # what is longer is read in another way
def test_arguments_of_another_form_are_marked_as_such(params: Any, method: str) -> None:
    (request,) = read([msgpack.packb([0, 7, method, params])], new())
    assert (request.msgid, request.method, request.args) == (7, method, None)
    assert request.fault


def test_what_is_wrong_with_arguments_is_told() -> None:
    (request,) = read([msgpack.packb([0, 7, "m", [{"account": "a", b"account": "a"}]])], new())
    assert request.fault == "the argument 'account' is given twice"


@pytest.mark.parametrize("padding", ["", "x" * 300])
def test_the_method_and_names_are_text_whether_they_come_as_str_or_bin(padding: str) -> None:
    message = [0, 7, "vérify".encode(), [{b"account": "deploy", "code": b"123456", "padding": padding}]]
    expected = (7, "vérify", {"account": "deploy", "code": b"123456", "padding": padding})
    assert fields([msgpack.packb(message)]) == [expected]


@pytest.mark.parametrize("msgid", [0.0, 7.0, -0.0, 2.0**32 - 1])
def test_a_whole_float_as_msgid_is_answered_under_that_integer(msgid: float) -> None:
    (request, following) = read([msgpack.packb([0, msgid, "status", []]) + GENERATE], new())
    assert (request.msgid, type(request.msgid), request.args) == (msgid, int, None)
    assert "float" in request.fault
    assert following.msgid == 7


@pytest.mark.parametrize(
    "pairs", [b"\xa1a\x01\xa1a\x02", b"\xa1a\x01\xa1a\x01", b"\xa1a\x01\xd9\x01a\x01"], ids=repr
)
def test_an_argument_given_twice_is_not_silently_the_last_one(pairs: bytes) -> None:
    ((_, _, args),) = fields([b"\x94\x00\x07\xa1m\x91\x82" + pairs])
    assert args is None


def test_text_that_is_not_utf_8_goes_through_unchanged() -> None:
    raw = b"\x94\x00\x07\xa2\xc3\x28\x91\x81\xa1\xff\xa3\xed\xa0\x80"
    ((msgid, method, args),) = fields([raw])
    assert args is not None
    assert (method, args) == ("\udcc3(", {"\udcff": "\udced\udca0\udc80"})
    assert messages.encode_request(msgid, method, args) == raw


@pytest.mark.parametrize("msgid", [0, 127, 128, 2**16, 2**31, 2**32 - 1])
def test_a_msgid_is_any_unsigned_32_bit_integer(msgid: int) -> None:
    assert fields([msgpack.packb([0, msgid, "status", []])]) == [(msgid, "status", {})]


@pytest.mark.parametrize(
    "message", [messages.Request(7, "verify", {"code": "123456"}), messages.Response(7, ["123456"], "123456")]
)
def test_no_repr_shows_a_code(message: Any) -> None:
    assert "msgid=7" in repr(message)
    assert "123456" not in repr(message)


def test_the_repr_of_a_foreign_method_is_plain_ascii() -> None:
    assert repr(messages.Request(7, "e\u0301\n\udcff", None)) == r"Request(msgid=7, method='e\u0301\n\udcff')"


def test_it_is_known_whether_a_message_has_begun() -> None:
    decoder = new()
    assert not decoder.partial
    for end in range(1, len(GENERATE)):
        assert list(read([GENERATE[end - 1 : end]], decoder)) == []
        assert decoder.partial
    assert len(list(read([GENERATE[-1:]], decoder))) == 1
    assert not decoder.partial


def test_messages_are_counted_when_they_are_whole() -> None:
    decoder = new()
    counts = []
    for piece in (ANNOUNCEMENT[:-1], ANNOUNCEMENT[-1:] + GENERATE[:5], GENERATE[5:-1], GENERATE[-1:]):
        list(read([piece], decoder))
        counts.append(decoder.count)
    assert counts == [0, 1, 1, 2]


def test_what_came_before_a_bad_message_is_still_read() -> None:
    decoder = new()
    decoder.feed(GENERATE + GENERATE + b"\xc1" + GENERATE)
    assert [decoder.next().msgid, decoder.next().msgid] == [7, 7]
    with pytest.raises(ProtocolError):
        decoder.next()

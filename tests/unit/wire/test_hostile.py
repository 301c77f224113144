"""The wire against a hostile peer: whatever it sends, the limits hold and memory stays small."""

import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from math import inf, nan
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pki2fad.errors import ProtocolError
from pki2fad.wire import messages
from pki2fad.wire.build import PASSED
from pki2fad.wire.decoder import Decoder

LIMIT = messages.REQUEST_LIMIT
STATUS = b"\x94\x00\x07\xa6status\x90"
HEAD = b"\x94\x00\x09\xa4load"  # what comes next are the arguments

# All that may be held for one message of 64 KiB, while it is read: itself four times, and a scanner.
MEMORY = 450 * 1024

_NO_END = b"\xc6\x00\x0f\xff\xff"  # a bin that is announced as a megabyte

BOMBS = {
    "nested arrays": b"\x91" * 60_000,
    "nested maps": b"\x81\xc0" * 30_000,
    "nested arrays that announce 256": b"\xdc\x01\x00" * 20_000,
    "nested maps that announce 256": b"\xde\x01\x00\xc0" * 15_000,
    "nested arrays that announce 65535": b"\xdc\xff\xff" * 20_000,
    "nested maps that announce 65535": b"\xde\xff\xff\xc0" * 15_000,
    "an array of 4 Gi": b"\xdd\xff\xff\xff\xff",
    "a map of 4 Gi": b"\xdf\xff\xff\xff\xff",
    "a string of 4 GiB": b"\xdb\xff\xff\xff\xff",
    "a bin of 4 GiB": b"\xc6\xff\xff\xff\xff",
    "an extension of 4 GiB": b"\xc9\xff\xff\xff\xfe\x05",
    "an extension of 4 GiB less a byte": b"\xc9\xff\xff\xff\xff\x05",
    "many empty arrays": b"\xdc\x01\x00" + (b"\xdc\x00\xff" + b"\x90" * 255) * 254 + _NO_END,
    "many short strings": b"\xdc\x01\x00" + (b"\xdc\x00\xff" + b"\xa1\xff" * 255) * 126 + _NO_END,
    "many small maps": b"\xdc\x01\x00" + (b"\xdc\x00\xff" + b"\x81\xc0\xc0" * 255) * 85 + _NO_END,
}

PLACES = {
    "as a message": b"",
    "as the kind": b"\x94",
    "as the msgid": b"\x94\x00",
    "as the method": b"\x94\x00\x09",
    "as the arguments": HEAD,
    "in the arguments": HEAD + b"\x91\x81\xa1a",
    "as the method of a notification": b"\x93\x02",
    "in a notification": b"\x93\x02\xa4note\x91",
    "in a response": b"\x94\x01\x09\xc0",
}


def new() -> Decoder:
    return Decoder(messages.REQUEST, LIMIT)


def read(pieces: Iterable[bytes], decoder: Decoder) -> Iterator[Any]:
    for piece in pieces:
        decoder.feed(piece)
        while found := decoder.some():
            yield from (message for message in found if message is not PASSED)


def whole(data: bytes) -> list[bytes]:
    return [data]


def halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def dripped(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def dense(head: bytes, count: int, element: bytes) -> bytes:
    """An array of that many, in a message that has nothing else."""
    return head + b"\xdd" + count.to_bytes(4, "big") + element * count


# Whole messages of nearly 64 KiB, that would take some megabytes.
WHOLE = {
    "13000 arguments": b"\x94\x00\x09\xa6verify\x91\xdf\x00\x00\x32\xc8"
    + b"".join(b"\xa3%03x\xc0" % (number % 4096) for number in range(13_000)),
    "parameters": dense(HEAD, 65_000, b"\x90"),
    "arrays of 16 in each other": HEAD
    + b"\x9d"
    + (b"\x9f" + (b"\x9f" + (b"\x9f" + b"\x90" * 15) * 15) * 15) * 13,
    "an argument": dense(HEAD + b"\x91\x81\xa1a", 65_000, b"\x90"),
    "a notification": dense(b"\x93\x02\xa4note", 65_000, b"\x90"),
    "a notification in a long encoding": dense(b"\xdc\x00\x03\xcc\x02\xa4note", 65_000, b"\x90"),
    "a response": dense(b"\x94\x01\x09\xc0", 65_000, b"\x90"),
}


def load_of(length: int) -> bytes:
    """A load request of just so many bytes."""
    data = msgpack.packb([0, 9, "load", [{"sealed": bytes(length - 20)}]], use_bin_type=True)
    return msgpack.packb([0, 9, "load", [{"sealed": bytes(2 * length - 20 - len(data))}]])


def outcome(pieces: Iterable[bytes]) -> tuple[list[tuple[Any, ...]], bool]:
    """The requests that were read, and whether an error ended the stream."""
    requests = []
    try:
        for request in read(pieces, new()):
            assert isinstance(request, messages.Request)
            requests.append((request.msgid, request.method, repr(request.args)))  # repr: NaN equals NaN
    except ProtocolError:
        return requests, True
    return requests, False


def refusal(pieces: Iterable[bytes]) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        list(read(pieces, new()))
    return caught.value


@pytest.mark.parametrize("in_pieces", [whole, halves, dripped])
def test_a_message_of_just_the_limit_is_read(in_pieces: Callable[[bytes], list[bytes]]) -> None:
    data = load_of(LIMIT)
    assert len(data) == LIMIT
    requests = list(read(in_pieces(data + STATUS), new()))
    assert [request.method for request in requests] == ["load", "status"]


@pytest.mark.parametrize("in_pieces", [whole, halves, dripped])
@pytest.mark.parametrize("length", [LIMIT + 1, 3 * LIMIT])
def test_a_longer_message_is_refused_with_its_msgid(
    length: int, in_pieces: Callable[[bytes], list[bytes]]
) -> None:
    data = load_of(length)
    assert len(data) == length
    assert refusal(in_pieces(data)).msgid == 9


def test_a_longer_message_after_good_ones_is_refused_after_them() -> None:
    stream = [STATUS * 3 + load_of(LIMIT + 1) + STATUS]
    requests, ended = outcome(stream)
    assert len(requests) == 3
    assert ended
    assert refusal(stream).msgid == 9


def test_a_message_that_never_ends_is_refused_as_soon_as_it_is_too_long() -> None:
    decoder = new()
    list(read([HEAD + b"\x91\x81\xa6sealed\xc6\xff\xff\xff\xff"], decoder))
    head = len(HEAD) + 14
    list(read([bytes(LIMIT - head)], decoder))
    with pytest.raises(ProtocolError):
        list(read([b"\x00"], decoder))


@pytest.mark.parametrize("in_pieces", [whole, dripped])
def test_a_notification_longer_than_the_limit_is_refused(in_pieces: Callable[[bytes], list[bytes]]) -> None:
    assert refusal(in_pieces(msgpack.packb([2, "note", [bytes(LIMIT)]]))).msgid is None


@pytest.mark.parametrize("size", [999, 2 * LIMIT])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_occupies_little_and_ends_the_stream_at_the_limit(
    bomb: bytes, place: bytes, size: int
) -> None:
    data = (place + bomb).ljust(2 * LIMIT, b"\x00")
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    tracemalloc.start()
    try:
        requests, ended = outcome(pieces)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    assert requests == []
    assert ended


@pytest.mark.parametrize("message", WHOLE.values(), ids=WHOLE)
def test_of_a_message_that_no_method_takes_nothing_is_built(message: bytes) -> None:
    decoder = new()
    tracemalloc.start()
    try:
        found = list(read([message + STATUS], decoder))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    assert [request.args for request in found] in ([{}], [None, {}])


HALVES = {
    "a long bin": HEAD + b"\x91\x81\xa6sealed\xc6\x00\x00\xff\x00" + bytes(0xFF00),
    "many small things": WHOLE["a notification"],
    "many requests and half of one": STATUS * 3000 + HEAD,
}


@pytest.mark.parametrize("piece", [1000, LIMIT])
@pytest.mark.parametrize("size", [1, 100, 5000, 9000, 20_000, 60_000])
@pytest.mark.parametrize("data", HALVES.values(), ids=HALVES)
def test_half_a_message_takes_little_more_memory_than_it_has_bytes_and_that_is_told(
    data: bytes, size: int, piece: int
) -> None:
    pieces = [data[start : min(start + piece, size)] for start in range(0, size, piece)]
    outcome(pieces)  # what Python keeps of a first time is not the decoder's
    decoder, taken = new(), sys.maxsize
    for _ in range(3):  # other threads take memory too, the least is the decoder's
        tracemalloc.start()
        try:
            decoder = new()
            for _ in read(pieces, decoder):
                pass
            gc.collect()  # Python keeps some of the dicts that it let go of
            taken = min(taken, tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert taken - 1024 < decoder.held < 2 * size + 64 * 1024
    if size < 8 * 1024 or data is HALVES["a long bin"]:  # no scanner waits for the rest
        assert decoder.held < 1.25 * size + 64


def test_what_is_not_handled_yet_is_counted_as_held() -> None:
    decoder = new()
    assert decoder.held == 0
    decoder.feed(STATUS * 5000)
    assert decoder.next() is not None
    assert len(STATUS) * 4999 <= decoder.held < len(STATUS) * 5000 + 64 * 1024
    assert len(list(read([b""], decoder))) == 4999
    assert decoder.held < 16


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_in_the_arguments_is_refused_with_its_msgid(bomb: bytes) -> None:
    assert refusal([(HEAD + bomb).ljust(2 * LIMIT, b"\x00")]).msgid == 9


@pytest.mark.parametrize(
    "msgid",
    [True, False, -1, 2**32, 2**64 - 1, 1.5, -1.0, 2.0**32, nan, inf, "1", b"1", None, [1], {1: 1}],
)
def test_a_msgid_of_another_kind_ends_the_stream(msgid: object) -> None:
    error = refusal([msgpack.packb([0, msgid, "status", []])])
    assert error.msgid is None
    assert "msgid" in str(error)


@pytest.mark.parametrize("method", [7, None, True, ["status"], {"status": 1}])
def test_a_method_that_is_no_string_ends_the_stream_with_its_msgid(method: object) -> None:
    error = refusal([msgpack.packb([0, 9, method, []])])
    assert error.msgid == 9
    assert "method" in str(error)


@pytest.mark.parametrize(
    "message",
    [
        [],
        [0],
        [0, 9],
        [0, 9, "status"],
        [0, 9, "status", [], []],
        [1, 9, None],
        [2, "note"],
        [2, "note", [], []],
        [3, 9, "status", []],
        [3, 9, "status"],
        [-1, 9, "status", []],
        [True, 9, None, None],
        [False, 9, "status", []],
        [0.0, 9, "status", []],
        [None, 9, "status", []],
        ["0", 9, "status", []],
        [[0], 9, "status", []],
        [{}, 9, "status", []],
        {0: 9},
        {},
        0,
        None,
        "status",
        b"status",
        1.5,
    ],
    ids=repr,
)
def test_what_is_no_message_at_all_ends_the_stream(message: object) -> None:
    assert refusal([msgpack.packb(message)]).msgid is None


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\n", b"\xc1"])
def test_another_protocol_ends_the_stream(garbage: bytes) -> None:
    assert refusal([garbage]).msgid is None


def test_a_byte_that_messagepack_never_uses_ends_the_stream_with_the_msgid() -> None:
    assert refusal([HEAD + b"\x91\x81\xa1a\xc1"]).msgid == 9


@given(garbage=st.binary(max_size=2000))
def test_garbage_is_messages_or_the_end_however_it_is_cut(garbage: bytes) -> None:
    assert outcome([garbage]) == outcome(dripped(garbage))


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_messages_are_messages_or_the_end_however_they_are_cut(data: st.DataObject) -> None:
    stream = bytearray(
        msgpack.packb([0, 1, "verify", [{"account": "deploy", "code": "123456"}]])
        + msgpack.packb([2, b"note", [{"a": [1, 2.5, None]}]])
        + msgpack.packb([0, 300, "load", [{"sealed": bytes(40), "digits": 8, "replace": True}]])
        + msgpack.packb([1, 5, None, [1, 2]])
    )
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(stream) - 1))
        width = data.draw(st.integers(0, 3))
        stream[place : place + width] = data.draw(st.binary(max_size=6))
        stream += STATUS
    size = data.draw(st.integers(1, 40))
    pieces = [bytes(stream[start : start + size]) for start in range(0, len(stream), size)]
    assert outcome([bytes(stream)]) == outcome(pieces)

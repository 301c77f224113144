"""What the public client makes of answers: every error code, nonsense, and answers of unusual size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support.raw import NOTIFICATION, REQUEST, RESPONSE, Listener, RawPeer, Serve

from pki2fad import errors
from pki2fad.client import Client
from pki2fad.errors import ProtocolError, Refusal

STATUS = {"ready": True}


@pytest.fixture
def path(short_path: Path) -> Path:
    return short_path / "socket"


def answering(error: Any, result: Any) -> Serve:
    """Answers every request with this."""

    def serve(peer: RawPeer, _number: int) -> None:
        while True:
            peer.send([RESPONSE, peer.receive()[1], error, result])

    return serve


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("bad_request", errors.BadRequest),
        ("unknown_method", errors.UnknownMethod),
        ("forbidden", errors.Forbidden),
        ("no_such_account", errors.NoSuchAccount),
        ("account_exists", errors.AccountExists),
        ("bad_seal", errors.BadSeal),
        ("throttled", errors.Throttled),
        ("locked", errors.Locked),
        ("unavailable", errors.Unavailable),
        ("internal", errors.Internal),
        ("of_a_later_version", errors.Internal),
    ],
)
def test_every_error_code_has_its_exception(path: Path, code: str, kind: type[Refusal]) -> None:
    serve = answering([code, f"{code}: why it is so", 7], None)
    with Listener(path, serve), Client(str(path)) as client, pytest.raises(Refusal) as caught:
        client.status()
    assert type(caught.value) is kind
    assert str(caught.value) == "why it is so"
    assert caught.value.retry_after == 7


def test_after_a_refusal_the_connection_is_kept(path: Path) -> None:
    serve = answering(["forbidden", "forbidden: no"], None)
    with Listener(path, serve) as listener, Client(str(path)) as client:
        for _ in range(3):
            with pytest.raises(errors.Forbidden):
                client.status()
        assert listener.connections == 1


GARBAGE = {
    "the byte that is never used": b"\xc1",
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a number": b"\x05",
    "a short response": msgpack.packb([RESPONSE, 1, None]),
    "a long response": msgpack.packb([RESPONSE, 1, None, None, None]),
    "another kind": msgpack.packb([3, 1, None, None]),
    "another msgid": msgpack.packb([RESPONSE, 4711, None, STATUS]),
    "a msgid that is none": msgpack.packb([RESPONSE, -1, None, STATUS]),
    "a giant": b"\xdd\xff\xff\xff\xff",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_a_protocol_error_and_ends_the_connection(path: Path, garbage: bytes) -> None:
    def serve(peer: RawPeer, number: int) -> None:
        request = peer.receive()
        if number == 1:
            peer.send_bytes(garbage)
            peer.receive()  # until the client leaves
        peer.send([RESPONSE, request[1], None, STATUS])

    with Listener(path, serve) as listener, Client(str(path)) as client:
        with pytest.raises(ProtocolError):
            client.status()
        assert client.status() == STATUS
        assert listener.connections == 2


@pytest.mark.parametrize(
    "error", [True, 5, "forbidden", {}, [], ["forbidden"], [1, "x"], ["forbidden", None]], ids=repr
)
def test_an_error_of_another_form_is_a_protocol_error(path: Path, error: Any) -> None:
    with (
        Listener(path, answering(error, None)),
        Client(str(path)) as client,
        pytest.raises(ProtocolError),
    ):
        client.status()


CALLS: dict[str, Callable[[Client], object]] = {
    "generate": lambda client: client.generate(),
    "verify": lambda client: client.verify("123456"),
    "load": lambda client: client.load(b"sealed"),
    "load_batch": lambda client: client.load_batch(b"batch"),
    "enroll": lambda client: client.enroll(),
    "enroll_confirm": lambda client: client.enroll_confirm("123456"),
    "recovery_create": lambda client: client.recovery_create(),
    "accounts": lambda client: client.accounts(),
    "status": lambda client: client.status(),
}


@pytest.mark.parametrize("result", [None, 5, "x", [5], [{}]], ids=repr)
@pytest.mark.parametrize("method", CALLS)
def test_a_result_of_another_form_is_a_protocol_error(path: Path, method: str, result: Any) -> None:
    with (
        Listener(path, answering(None, result)),
        Client(str(path)) as client,
        pytest.raises(ProtocolError),
    ):
        CALLS[method](client)


@pytest.mark.parametrize(
    "result",
    [
        {"accounts": "x", "changed": []},
        {"accounts": float("inf"), "changed": []},
        {"accounts": 1, "changed": "ann"},
        {"accounts": 1, "changed": [b"ann"]},
    ],
    ids=repr,
)
def test_a_batch_of_which_nothing_is_told_is_a_protocol_error(path: Path, result: Any) -> None:
    with (
        Listener(path, answering(None, result)),
        Client(str(path)) as client,
        pytest.raises(ProtocolError),
    ):
        client.load_batch(b"batch")


def test_a_seed_that_is_none_is_a_protocol_error_that_does_not_show_it(path: Path) -> None:
    of = {"algorithm": "SHA1", "digits": 6, "period": 30, "expires_in": 600}
    serve = answering(None, {"account": "me", "seed": "no hex", **of})
    with Listener(path, serve), Client(str(path)) as client, pytest.raises(ProtocolError) as caught:
        client.enroll()
    assert "no hex" not in str(caught.value)


def test_what_is_no_answer_is_passed_over(path: Path) -> None:
    def serve(peer: RawPeer, _number: int) -> None:
        _, msgid, _, _ = peer.receive()
        peer.send([NOTIFICATION, "hello", [{"deep": [[]]}]], [REQUEST, 1, "ping", []])
        peer.send([RESPONSE, msgid, None, STATUS])

    with Listener(path, serve), Client(str(path)) as client:
        assert client.status() == STATUS


def test_a_long_list_of_accounts_arrives_whole(path: Path) -> None:
    rows = [
        {
            "account": f"user{number}",
            "algorithm": "SHA1",
            "digits": 6,
            "period": 30,
            "last_used": number,
            "offset": 0,
            "drift": [],
            "successor": None,
            "id": "00",
            "authenticators": [],
            "recovery": None,
        }
        for number in range(20_000)
    ]
    with Listener(path, answering(None, rows)), Client(str(path)) as client:
        accounts = client.accounts()
    assert [one.account for one in accounts] == [row["account"] for row in rows]
    assert [one.last_used for one in accounts] == [row["last_used"] for row in rows]

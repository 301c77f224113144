"""Arguments: what is taken, and what is bad_request, with the connection kept."""

from typing import Any

import msgpack
import pytest
from support.raw import RawPeer, Seed, assert_bad_request

from pki2fad.crypto.rsakeys import PrivateKey


@pytest.mark.usefixtures("any_seed")
@pytest.mark.parametrize("params", [[], [{}], [None], [[]]], ids=repr)
@pytest.mark.parametrize("method", ["generate", "accounts", "status"])
def test_no_arguments_take_four_forms(peer: RawPeer, method: str, params: list[Any]) -> None:
    error, result = peer.exchange([method, params])
    assert error is None
    assert result


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        "default",
        1,
        ["default"],
        [1],
        [{}, {}],
        [{}, None],
        [None, None],
        [{1: "a"}],
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["generate", "load", "status"])
@pytest.mark.usefixtures("any_seed")
def test_arguments_of_another_form_are_bad_request(peer: RawPeer, method: str, params: Any) -> None:
    assert_bad_request(peer, peer.refusal_of([method, params]))


UNKNOWN = [
    ("generate", {"acount": "default"}),
    ("generate", {"code": "123456"}),
    ("verify", {"code": "123456", "windows": 1}),
    ("load", {"sealed": b"", "seed": "00"}),
    ("remove", {"force": True}),
    ("accounts", {"account": "default"}),
    ("backup", {"to": b"", "account": "default"}),
    ("restore", {"upload": "0" * 32, "offset": 0, "part": b"", "account": "default"}),
    ("status", {"account": "default"}),
    ("status", {"": None}),
]


@pytest.mark.usefixtures("any_seed")
@pytest.mark.parametrize(("method", "arguments"), UNKNOWN, ids=repr)
def test_an_unknown_argument_is_bad_request(peer: RawPeer, method: str, arguments: dict[str, Any]) -> None:
    assert_bad_request(peer, peer.refusal(method, **arguments))


@pytest.mark.usefixtures("any_seed")
@pytest.mark.parametrize("second", ["default", "other"])
def test_an_argument_given_twice_is_bad_request(peer: RawPeer, second: str) -> None:
    pairs = [("account", "default"), ("account", second)]
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(4)
    for one in (0, 9, "generate"):
        packer.pack(one)
    packer.pack_array_header(1)
    packer.pack_map_pairs(pairs)
    peer.send_bytes(packer.bytes())
    kind, msgid, error, result = peer.receive()
    assert (kind, msgid, result) == (1, 9, None)
    assert_bad_request(peer, error)


WRONG_TYPES = [
    ("generate", {"account": None}),
    ("generate", {"account": 1}),
    ("generate", {"account": ["default"]}),
    ("generate", {"account": {"name": "default"}}),
    ("verify", {}),
    ("verify", {"account": "default"}),
    ("load", {}),
    ("load", {"sealed": None}),
    ("load", {"sealed": b"", "digits": "6"}),
    ("load", {"sealed": b"", "digits": 6.5}),
    ("load", {"sealed": b"", "deadline": 2.0**53}),
    ("load", {"sealed": b"", "replace": 1.0}),
    ("load", {"sealed": [1, 2, 3]}),
    ("verify", {"code": "123456", "account": None}),
    ("verify", {"code": "123456", "origin": None}),
    ("load", {"sealed": b"", "digits": True}),
    ("load", {"sealed": b"", "algorithm": 1}),
    ("load", {"sealed": b"", "replace": 1}),
    ("remove", {"account": 0}),
    ("backup", {}),
    ("restore", {"upload": "0" * 32, "offset": 0}),
    ("restore", {"upload": "0" * 32, "offset": False, "part": b""}),
    ("restore", {"upload": "0" * 32, "offset": -1, "part": b""}),
    ("restore", {"upload": "0" * 32, "offset": 1, "part": b""}),
    ("restore", {"upload": "0" * 32, "offset": 0, "part": b"", "last": 1}),
]


@pytest.mark.usefixtures("any_seed")
@pytest.mark.parametrize(("method", "arguments"), WRONG_TYPES, ids=repr)
def test_a_missing_argument_or_one_of_another_type_is_bad_request(
    peer: RawPeer, method: str, arguments: dict[str, Any]
) -> None:
    assert_bad_request(peer, peer.refusal(method, **arguments))


@pytest.mark.usefixtures("any_seed")
@pytest.mark.parametrize(
    "code",
    [
        "",
        "12345",
        "123456789",
        " 123456",
        "123456 ",
        "123456\n",
        "123 456",
        "+12345",
        "-12345",
        "12345a",
        "0x1234",
        "1_2_3_4",
        "\uff11\uff12\uff13\uff14\uff15\uff16",  # full-width
        "\u0661\u0662\u0663\u0664\u0665\u0666",  # Arabic-Indic
        "12345\u0660",
        "12345²",
        "123456\0",
        123456,
        123456.0,
        True,
        None,
        ["123456"],
        msgpack.Timestamp(123456),
    ],
    ids=ascii,
)
def test_what_is_no_code_is_bad_request_and_never_invalid(peer: RawPeer, code: object) -> None:
    assert_bad_request(peer, peer.refusal("verify", code=code))


def test_a_right_code_in_full_width_digits_is_bad_request_and_not_spent(peer: RawPeer, seed: Seed) -> None:
    code = seed.code()
    wide = "".join(chr(ord(digit) + 0xFEE0) for digit in code)
    assert_bad_request(peer, peer.refusal("verify", code=wide))
    assert peer.call("verify", code=code) == {"valid": True}


NO_NAMES = [
    "",
    ".",
    "..",
    ".hidden",
    "-x",
    "@x",
    "a/b",
    "../a",
    "a b",
    "a\0",
    "a\n",
    "é",
    "x" * 65,
    "a:b",
    "a%b",
]


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
@pytest.mark.parametrize(
    ("method", "arguments"),
    [("verify", {"code": "123456"}), ("load", {"sealed": b""})],
)
def test_what_cannot_be_a_name_is_bad_request(
    peer: RawPeer, method: str, arguments: dict[str, Any], name: str
) -> None:
    assert_bad_request(peer, peer.refusal(method, account=name, **arguments))


@pytest.mark.parametrize("name", ["a", "_", "0", "Alice.B_c@example-1.org", "x" * 64, "a..b", "a-"])
def test_names_of_every_allowed_form_are_taken(peer: RawPeer, host_key: PrivateKey, name: str) -> None:
    sealed = Seed().sealed(host_key)
    assert peer.call("load", account=name, sealed=sealed, replace=True)["account"] == name


@pytest.mark.parametrize(
    "parameters",
    [
        {"algorithm": "MD5"},
        {"algorithm": "sha1"},
        {"algorithm": ""},
        {"digits": 5},
        {"digits": 9},
        {"digits": -6},
        {"digits": 2**63},
        {"period": 0},
        {"period": 121},
        {"period": -30},
        {"period": 2**64 - 1},
    ],
    ids=repr,
)
def test_parameters_out_of_range_are_bad_request_and_change_nothing(
    peer: RawPeer, seed: Seed, host_key: PrivateKey, parameters: dict[str, Any]
) -> None:
    sealed = Seed().sealed(host_key)
    assert_bad_request(peer, peer.refusal("load", sealed=sealed, replace=True, **parameters))
    kept = peer.call("generate")
    assert kept["code"] == seed.code(kept["step"])

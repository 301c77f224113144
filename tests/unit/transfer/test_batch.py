"""The format of batches: as the description has it, and no byte of one changes unnoticed."""

import base64
import json
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.agents import OTHER_SEED, SEED
from support.entries import GOOD, WRONG

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import MAXIMUM_BITS, PrivateKey
from pki2fad.errors import BadSeal
from pki2fad.rules.otp import Parameters
from pki2fad.transfer import batch
from pki2fad.transfer.entry import Entry
from pki2fad.wire import messages

MAGIC = b"pki2fad batch 1\n"
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"pki2fad master key")

SEEDS = [
    ("default", Parameters(), bytearray(SEED)),
    ("deploy@host", Parameters("SHA512", 8, 60), bytearray(OTHER_SEED)),
]


@pytest.fixture
def made(master: MasterKey, host_key: PrivateKey) -> bytes:
    return batch.pack(SEEDS, master.wrap(host_key.public_key()), master)


def bound(name: str, of: Parameters) -> bytes:
    return "\0".join(
        ("pki2fad account 1", name, of.algorithm, str(of.digits), str(of.period)),
    ).encode()


def test_it_opens_by_the_description(made: bytes, host_key: PrivateKey) -> None:
    assert made.startswith(MAGIC)
    length = int.from_bytes(made[16:18], "big")
    assert length == host_key.key_size // 8
    end = 18 + length
    cipher = AESGCM(host_key.decrypt(made[18:end], OAEP))
    accounts = json.loads(cipher.decrypt(made[end : end + 12], made[end + 12 :], made[:end]))
    for account, (name, of, seed) in zip(accounts, SEEDS, strict=True):
        sealed = base64.b64decode(account.pop("sealed"))
        assert cipher.decrypt(sealed[:12], sealed[12:], bound(name, of)) == seed
        assert account == {"name": name, "algorithm": of.algorithm, "digits": of.digits, "period": of.period}


def test_what_is_made_by_the_description_is_opened(host_key: PrivateKey) -> None:
    key = os.urandom(32)
    cipher = AESGCM(key)
    accounts = []
    for name, of, seed in SEEDS:
        nonce = os.urandom(12)
        accounts.append(
            {
                "name": name,
                "algorithm": of.algorithm,
                "digits": of.digits,
                "period": of.period,
                "sealed": base64.b64encode(nonce + cipher.encrypt(nonce, seed, bound(name, of))).decode(),
            }
        )
    start = MAGIC + (host_key.key_size // 8).to_bytes(2, "big") + host_key.public_key().encrypt(key, OAEP)
    nonce = os.urandom(12)
    data = start + nonce + cipher.encrypt(nonce, json.dumps(accounts).encode(), start)
    master = MasterKey.unwrap(host_key, batch.wrapped_key(data))
    for entry, (name, of, seed) in zip(batch.unpack(data, master), SEEDS, strict=True):
        assert (entry.name, entry.parameters) == (name, of)
        with master.opened(entry.sealed, bound(name, of)) as opened:
            assert opened == seed
    master.close()


def test_neither_seeds_nor_names_are_in_it_to_be_read(made: bytes) -> None:
    for secret in (SEED, SEED.hex().encode(), base64.b64encode(SEED), b"deploy", b"default", b"SHA512"):
        assert secret not in made


def test_every_changed_byte_is_noticed(made: bytes, master: MasterKey) -> None:
    for place in range(len(made)):
        changed = bytearray(made)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(BadSeal):
            batch.unpack(bytes(changed), master)


def test_what_is_cut_short_or_goes_on_is_noticed(made: bytes, master: MasterKey) -> None:
    for length in range(len(made)):
        with pytest.raises(BadSeal):
            batch.unpack(made[:length], master)
    for more in (b"\0", b"\n", made):
        with pytest.raises(BadSeal):
            batch.unpack(made + more, master)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a batch"),
        (b"pki2fad backup 1\n" + bytes(64), "not a batch"),
        (b"pki2fad batch 2\n" + bytes(64), "another version"),
        (b"pki2fad batch 1\n" + (2049).to_bytes(2, "big") + bytes(4096), "damaged"),
    ],
)
def test_what_is_no_batch_is_refused_and_said_to_be_none(data: bytes, reason: str) -> None:
    with pytest.raises(BadSeal, match=reason):
        batch.wrapped_key(data)


def test_as_many_accounts_as_are_put_into_one_fit_into_a_request(master: MasterKey) -> None:
    seeds = [("x" * 64, Parameters("SHA512", 8, 120), bytearray(64))] * batch.MOST
    data = batch.pack(seeds, bytes(MAXIMUM_BITS // 8), master)
    request = messages.encode_request(2**32 - 1, "load_batch", {"batch": data, "replace": True})
    assert len(request) <= messages.REQUEST_LIMIT


CONTENTS: dict[str, Any] = {
    "a map": {},
    "nothing": None,
    "text": "accounts",
    "an array in it": [[]],
    "a name twice": [GOOD, GOOD],
    "too many": [GOOD | {"name": f"user{number}"} for number in range(batch.MOST + 1)],
    **{repr(wrong): [GOOD | wrong] for wrong in WRONG},
}


def sealed_text(text: str, master: MasterKey) -> bytes:
    """What somebody seals who knows the format."""
    start = MAGIC + b"\0\0"
    return start + master.seal(bytearray(text.encode()), start)


def sealed_json(data: Any, master: MasterKey) -> bytes:
    return sealed_text(json.dumps(data), master)


def test_a_content_that_is_right_is_taken(master: MasterKey) -> None:
    assert batch.unpack(sealed_json([GOOD], master), master) == [Entry("default", Parameters(), bytes(60))]


@pytest.mark.parametrize("wrong", CONTENTS.values(), ids=CONTENTS)
def test_a_content_that_cannot_be_one_is_refused(master: MasterKey, wrong: Any) -> None:
    with pytest.raises(BadSeal):
        batch.unpack(sealed_json(wrong, master), master)


@pytest.mark.parametrize("text", ["", "[", "[" * 50_000, '{"a":' * 10_000, "[1e999]"], ids=len)
def test_what_is_no_json_or_too_deep_is_refused(master: MasterKey, text: str) -> None:
    with pytest.raises(BadSeal):
        batch.unpack(sealed_text(text, master), master)

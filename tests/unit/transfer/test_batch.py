"""The format of batches: as the description has it, and no byte of one changes unnoticed."""

import base64
import json
import os
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support import entries
from support.agents import OTHER_SEED, SEED
from support.entries import GOOD, WRONG, readable

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import MAXIMUM_BITS, PrivateKey
from pki2fad.errors import BadSeal
from pki2fad.rules.otp import LAST_COUNTER, Parameters
from pki2fad.transfer import batch
from pki2fad.transfer.batch import Unsealed
from pki2fad.transfer.entry import Entry
from pki2fad.wire import messages

OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"pki2fad master key")

TOKEN = Parameters("SHA256", 7, 0, "hotp")
SEEDS_1 = [
    Unsealed("default", Parameters(), bytearray(SEED)),
    Unsealed("deploy@host", Parameters("SHA512", 8, 60), bytearray(OTHER_SEED)),
]
SEEDS_2 = [
    *SEEDS_1,
    Unsealed("deploy@host", TOKEN, bytearray(SEED), "token", LAST_COUNTER),
    Unsealed("short", Parameters(), bytearray(SEED[:10])),
]


@pytest.fixture(params=[SEEDS_1, SEEDS_2], ids=["1", "2"])
def seeds(request: pytest.FixtureRequest) -> list[Unsealed]:
    found: list[Unsealed] = request.param
    return found


@pytest.fixture
def made(seeds: list[Unsealed], master: MasterKey, host_key: PrivateKey) -> bytes:
    return batch.pack(seeds, master.wrap(host_key.public_key()), master)


def bound(one: Unsealed, version: int) -> bytes:
    of = one.parameters
    which = ["1", one.name] if version == 1 else ["2", one.name, one.label, of.kind]
    fields = [f"pki2fad account {which[0]}", *which[1:], of.algorithm, str(of.digits), str(of.period)]
    return "\0".join(fields).encode()


def described(one: Unsealed, version: int) -> dict[str, Any]:
    """Its fields but `sealed`, by the description."""
    of = one.parameters
    fields = {"name": one.name, "algorithm": of.algorithm, "digits": of.digits, "period": of.period}
    if version == 1:
        return fields
    short = len(one.seed) < 16
    return fields | {"label": one.label, "kind": of.kind, "counter": one.counter, "short": short}


def test_it_opens_by_the_description(made: bytes, seeds: list[Unsealed], host_key: PrivateKey) -> None:
    version = 1 if seeds is SEEDS_1 else 2
    assert made.startswith(b"pki2fad batch %d\n" % version)
    length = int.from_bytes(made[16:18], "big")
    assert length == host_key.key_size // 8
    end = 18 + length
    cipher = AESGCM(host_key.decrypt(made[18:end], OAEP))
    accounts = json.loads(cipher.decrypt(made[end : end + 12], made[end + 12 :], made[:end]))
    for account, one in zip(accounts, seeds, strict=True):
        sealed = base64.b64decode(account.pop("sealed"))
        assert cipher.decrypt(sealed[:12], sealed[12:], bound(one, version)) == one.seed
        assert account == described(one, version)


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_made_by_the_description_is_opened(host_key: PrivateKey, version: int) -> None:
    seeds = SEEDS_1 if version == 1 else SEEDS_2
    key = os.urandom(32)
    cipher = AESGCM(key)
    accounts = []
    for one in seeds:
        nonce = os.urandom(12)
        sealed = base64.b64encode(nonce + cipher.encrypt(nonce, one.seed, bound(one, version))).decode()
        accounts.append(described(one, version) | {"sealed": sealed})
    start = b"pki2fad batch %d\n" % version + (host_key.key_size // 8).to_bytes(2, "big")
    start += host_key.public_key().encrypt(key, OAEP)
    nonce = os.urandom(12)
    data = start + nonce + cipher.encrypt(nonce, json.dumps(accounts).encode(), start)
    master = MasterKey.unwrap(host_key, batch.wrapped_key(data))
    for entry, one in zip(batch.unpack(data, master), seeds, strict=True):
        assert (entry.name, entry.parameters, entry.label) == (one.name, one.parameters, one.label)
        assert entry.last_step == one.counter - 1
        with master.opened(entry.sealed, bound(one, version)) as opened:
            assert opened == one.seed
    master.close()


def test_neither_seeds_nor_names_are_in_it_to_be_read(made: bytes) -> None:
    assert not [secret for secret in readable(SEED) if secret in made]


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
        (b"pki2fad batch 3\n" + bytes(64), "another version"),
        (b"pki2fad batch 1\n" + (2049).to_bytes(2, "big") + bytes(4096), "damaged"),
    ],
)
def test_what_is_no_batch_is_refused_and_said_to_be_none(data: bytes, reason: str) -> None:
    with pytest.raises(BadSeal, match=reason):
        batch.wrapped_key(data)


LONGEST = Unsealed("x" * 64, TOKEN, bytearray(64), "y" * 32, LAST_COUNTER)
SHORTEST = Unsealed("x", Parameters(), bytearray(16))


@pytest.mark.parametrize("one", [LONGEST, SHORTEST], ids=["long", "short"])
@pytest.mark.parametrize("version", [1, 2])
def test_as_many_as_are_put_into_one_fit_into_a_request(
    master: MasterKey, one: Unsealed, version: int
) -> None:
    if version == 1:
        one = replace(one, parameters=Parameters("SHA512", 8, 120), label="main", counter=0)
    lists = [*batch.split([one] * 500, version)]
    assert sum(map(len, lists)) == 500
    assert max(map(len, lists)) <= batch.MOST
    sizes = []
    for some in lists:
        data = batch.pack(some, bytes(MAXIMUM_BITS // 8), master, version)
        request = messages.encode_request(2**32 - 1, "load_batch", {"batch": data, "replace": True})
        assert len(request) <= messages.REQUEST_LIMIT
        sizes.append(len(data))
    assert max(sizes) <= batch.LIMIT
    if one is LONGEST:  # it is full by its bytes, and another one would not fit
        assert batch.LIMIT - max(sizes) < 400


@pytest.mark.parametrize(
    "one",
    [
        Unsealed("a", Parameters(), bytearray(32), "phone"),
        Unsealed("a", TOKEN, bytearray(32)),
        Unsealed("a", Parameters(), bytearray(15)),
    ],
    ids=["label", "kind", "short"],
)
def test_what_version_1_cannot_say_is_written_in_version_2(one: Unsealed) -> None:
    assert batch.version_of(SEEDS_1) == 1
    assert batch.version_of([*SEEDS_1, one]) == 2


def test_the_seed_of_what_goes_into_a_batch_is_not_in_its_repr() -> None:
    assert repr(Unsealed("a", Parameters(), bytearray(b"secret"))).count("secret") == 0


GOOD_2 = entries.GOOD_2 | {"counter": 0}
HOTP = entries.TOKEN | {"counter": 5}
CONTENTS: dict[str, tuple[Any, int]] = {
    "a map": ({}, 1),
    "nothing": (None, 1),
    "text": ("accounts", 1),
    "an array in it": ([[]], 1),
    "a name twice": ([GOOD, GOOD], 1),
    "too many": ([GOOD | {"name": f"user{number}"} for number in range(batch.MOST + 1)], 1),
    **{repr(wrong): ([GOOD | wrong], 1) for wrong in WRONG},
    "version 2 in 1": ([GOOD_2], 1),
    "version 1 in 2": ([GOOD], 2),
    "a label twice": ([GOOD_2, GOOD_2], 2),
    "five": ([GOOD_2 | {"label": f"{number}"} for number in range(5)], 2),
    "not together": ([GOOD_2, GOOD_2 | {"name": "b"}, GOOD_2 | {"label": "b"}], 2),
    **{f"2 {wrong}": ([GOOD_2 | wrong], 2) for wrong in [*entries.WRONG_2, {"counter": 1}]},
    **{
        f"counter {counter!r}": ([HOTP | {"counter": counter}], 2)
        for counter in (-1, LAST_COUNTER + 1, 2**64, 1.0, True, "1", None)
    },
}


def sealed_text(text: str, master: MasterKey, version: int = 1) -> bytes:
    """What somebody seals who knows the format."""
    start = b"pki2fad batch %d\n\0\0" % version
    return start + master.seal(bytearray(text.encode()), start)


def sealed_json(data: Any, master: MasterKey, version: int = 1) -> bytes:
    return sealed_text(json.dumps(data), master, version)


def test_a_content_that_is_right_is_taken(master: MasterKey) -> None:
    assert batch.unpack(sealed_json([GOOD], master), master) == [Entry("default", Parameters(), bytes(60))]


def test_a_content_of_version_2_that_is_right_is_taken(master: MasterKey) -> None:
    one, two = batch.unpack(sealed_json([GOOD_2, HOTP], master, 2), master)
    assert one == Entry("default", Parameters(), bytes(60), version=2)
    assert two == Entry("default", Parameters(period=0, kind="hotp"), bytes(60), 4, "token", 2)


@pytest.mark.parametrize(("wrong", "version"), CONTENTS.values(), ids=CONTENTS)
def test_a_content_that_cannot_be_one_is_refused(master: MasterKey, wrong: Any, version: int) -> None:
    with pytest.raises(BadSeal):
        batch.unpack(sealed_json(wrong, master, version), master)


@pytest.mark.parametrize("text", ["", "[", "[" * 50_000, '{"a":' * 10_000, "[1e999]"], ids=len)
def test_what_is_no_json_or_too_deep_is_refused(master: MasterKey, text: str) -> None:
    with pytest.raises(BadSeal):
        batch.unpack(sealed_text(text, master), master)

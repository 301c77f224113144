"""The format of backups: who opens one, what is in it, and that no byte of it changes unnoticed."""

import base64
from typing import Any

import pytest
from support.agents import SEED, packed, unpacked
from support.entries import readable

from pki2fad.crypto import rsakeys
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadRequest, BadSeal, UnusableKey
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.transfer import backup
from pki2fad.transfer.content import Content, Record
from pki2fad.transfer.entry import associated

MAGIC = b"pki2fad backup 1\n"


PHONE, TOKEN = Parameters("SHA512", 8, 60), Parameters("SHA256", 7, 0, "hotp")


def content_of(keyring: Keyring, master: MasterKey, version: int) -> Content:
    def record(name: str, seed: bytes, of: Parameters, label: str = "main", **more: Any) -> Record:
        one = keyring.seal(name, bytearray(seed), of, label=label)
        sealed = keyring.resealed(one, master, associated(name, of, label, version))
        return Record(name, of, sealed, label=label, version=version, **more)

    records = [
        record("default", SEED, Parameters(), last_step=58_000_000),
        record("deploy@host", bytes(64), PHONE, offset=-3, drift=b"\xff\x00\x01"),
    ]
    if version == 2:
        records += [
            record("deploy@host", SEED, TOKEN, "token", last_step=2**53, made=1_600_000_000),
            record("deploy@host", SEED[:10], PHONE, "x" * 32, last_step=7, made=1),
        ]
    return Content(1_700_000_000, records, {30: 1_700_000_030, 60: 0}, [(1.5, 2.5)], version)


def slots(master: MasterKey, *keys: PrivateKey) -> dict[str, bytes]:
    return {rsakeys.fingerprint(key.public_key()): master.wrap(key.public_key()) for key in keys}


def fingerprint(key: PrivateKey) -> str:
    return rsakeys.fingerprint(key.public_key())


def opened(data: bytes, key: PrivateKey) -> Content:
    master = MasterKey.unwrap(key, backup.slot(data, fingerprint(key)))
    try:
        return unpacked(data, master)
    finally:
        master.close()


@pytest.fixture(params=[1, 2])
def content(master: MasterKey, request: pytest.FixtureRequest) -> Content:
    return content_of(Keyring(MasterKey()), master, request.param)


@pytest.fixture
def made(content: Content, master: MasterKey, host_key: PrivateKey) -> bytes:
    return packed(content, slots(master, host_key), master)


def test_what_is_packed_is_unpacked_by_each_key_that_was_named(
    content: Content, master: MasterKey, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    data = packed(content, slots(master, host_key, other_key), master)
    assert opened(data, host_key) == opened(data, other_key) == content


def test_a_backup_without_accounts_is_one(master: MasterKey, host_key: PrivateKey) -> None:
    empty = Content(0, [], {}, [])
    assert opened(packed(empty, slots(master, host_key), master), host_key) == empty


def test_neither_seeds_nor_names_are_in_it_to_be_read(made: bytes) -> None:
    assert not [secret for secret in readable(SEED) if secret in made]


def test_a_key_that_was_not_named_is_told_which_were(
    made: bytes, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    with pytest.raises(BadSeal) as refused:
        backup.slot(made, fingerprint(other_key))
    assert fingerprint(host_key) in str(refused.value)
    assert fingerprint(other_key) in str(refused.value)


def test_a_key_can_be_added_by_who_can_open_it(
    made: bytes, content: Content, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    master = MasterKey.unwrap(host_key, backup.slot(made, fingerprint(host_key)))
    public = other_key.public_key()
    added = backup.with_slot(made, master, fingerprint(other_key), master.wrap(public))
    assert opened(added, other_key) == opened(added, host_key) == content
    with pytest.raises(BadSeal):
        backup.slot(made, fingerprint(other_key))


def test_every_changed_byte_is_noticed(made: bytes, master: MasterKey) -> None:
    for place in range(len(made)):
        changed = bytearray(made)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(BadSeal):
            unpacked(bytes(changed), master)
        with pytest.raises(BadSeal):
            backup.with_slot(bytes(changed), master, "SHA256:x", b"")


def test_what_is_cut_short_or_goes_on_is_noticed(made: bytes, master: MasterKey) -> None:
    for length in range(len(made)):
        with pytest.raises(BadSeal):
            unpacked(made[:length], master)
    for more in (b"\0", b"\n", made):
        with pytest.raises(BadSeal):
            unpacked(made + more, master)


def test_a_slot_that_was_taken_from_another_backup_opens_nothing(made: bytes, host_key: PrivateKey) -> None:
    other = MasterKey()
    wrapped = other.wrap(host_key.public_key())
    name = fingerprint(host_key).encode()
    before = base64.b64encode(backup.slot(made, name.decode()))
    forged = made.replace(before, base64.b64encode(wrapped))
    assert forged != made
    with pytest.raises(BadSeal):
        opened(forged, host_key)


def with_header(header: bytes) -> bytes:
    return MAGIC + len(header).to_bytes(4, "big") + header


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a backup"),
        (b"SQLite format 3\0", "not a backup"),
        (b"pki2fad backup 3\n" + bytes(64), "another version"),
        (MAGIC, "damaged"),
        (MAGIC + b"\xff\xff\xff\xff{}", "damaged"),
        (MAGIC + b"\0\0\0\2{}", "damaged"),
        (MAGIC + b"\0\0\0\2[]", "damaged"),
        (MAGIC + b"\0\0\0\x0c" + b'{"slots":[]}', "damaged"),
        (MAGIC + b"\0\0\0\x12" + b'{"slots":{"a":17}}', "damaged"),
        (MAGIC + b"\0\0\xff\xff" + b"[" * 0xFFFF, "damaged"),
        (MAGIC + b"\0\0\0\4\xff\xfe\xfd\xfc", "damaged"),
        (with_header(b'{"slots":{}}' + b" " * (256 * 1024 - 11)), "damaged"),
        (with_header(b'{"x":[[],[]],"slots":{}}'), "damaged"),
        (with_header(b'{"x":{},"slots":{}}'), "damaged"),
        (with_header(b'{"slots":{"SHA256:x":""}}'), "damaged"),
        (with_header(b'{"slots":{' + b'"":"",' * 600 + b'"":""}}'), "damaged"),
    ],
)
def test_what_is_no_backup_is_refused_and_said_to_be_none(data: bytes, reason: str) -> None:
    with pytest.raises(BadSeal, match=reason):
        backup.slot(data, "SHA256:x")


def many(count: int, size: int) -> dict[str, bytes]:
    names = [base64.b64encode(index.to_bytes(32, "big")).decode().rstrip("=") for index in range(count)]
    return {f"SHA256:{name}": bytes(size) for name in names}


@pytest.mark.parametrize(("count", "size"), [(110, 384), (24, 2048), (440, 384)])
def test_a_backup_for_as_many_keys_as_a_request_ever_had_room_for_opens(
    content: Content, master: MasterKey, host_key: PrivateKey, count: int, size: int
) -> None:
    """110 keys of 3072 bits or 24 of 16384 are more than 64 KiB of PEM; others were added."""
    data = packed(content, {**many(count, size), **slots(master, host_key)}, master)
    assert opened(data, host_key) == content


@pytest.mark.parametrize(("count", "size"), [(513, 200), (480, 384)])
def test_a_header_that_would_not_be_read_is_not_made(
    content: Content, master: MasterKey, count: int, size: int
) -> None:
    with pytest.raises(BadRequest, match="no room for that many keys"):
        packed(content, many(count, size), master)


def test_public_keys_stand_one_after_the_other(host_key: PrivateKey, other_key: PrivateKey) -> None:
    pems = [rsakeys.public_pem(key.public_key()) for key in (host_key, other_key)]
    for between in (b"", b"\n", b"\r\n\r\n"):
        keys = rsakeys.load_publics(between.join(pems) + between, "x")
        assert [rsakeys.public_pem(key) for key in keys] == pems
    without_a_start = pems[0] + pems[1].partition(b"\n")[2]
    for wrong in (
        b"",
        b"\n",
        pems[0] + b"more",
        rsakeys.private_pem(host_key),
        pems[0] + pems[1][:-10],
        without_a_start,
    ):
        with pytest.raises(UnusableKey):
            rsakeys.load_publics(wrong, "x")

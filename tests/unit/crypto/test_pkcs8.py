"""Private keys under a passphrase: openssl and cryptography as peers, and what a guess costs."""

import subprocess
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from support.peers import openssl

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import ProtectedKey, UnusableKey, WrongPassphrase

PASSPHRASE = b"correct horse battery"

# What openssl makes of a key, and whether a guess of the passphrase is cheap.
OPENSSL = {
    "PBKDF2": ("pkcs8 -topk8", True),
    "PBKDF2 with many iterations": ("pkcs8 -topk8 -iter 1000000", False),
    "scrypt": ("pkcs8 -topk8 -scrypt", True),
    "scrypt, five passes": ("pkcs8 -topk8 -scrypt -scrypt_p 5", False),
    "PBES1": ("pkcs8 -topk8 -v1 PBE-SHA1-3DES", True),
    "another cipher": ("pkcs8 -topk8 -v2 aes-128-cbc", True),
    "older form": ("rsa -traditional -aes128", True),
}


@pytest.fixture(scope="module")
def protected(host_key: PrivateKey) -> bytes:
    return rsakeys.private_pem(host_key, PASSPHRASE)


def test_openssl_opens_a_key_that_was_protected_here(
    host_key: PrivateKey, protected: bytes, tmp_path: Path
) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_bytes(PASSPHRASE)
    plain = openssl("pkey", "-passin", f"file:{passphrase}", data=protected)
    assert plain == rsakeys.private_pem(host_key)
    with pytest.raises(subprocess.CalledProcessError):
        openssl("pkey", "-passin", "pass:cow", data=protected)


def test_openssl_sees_scrypt_of_31_mebibytes_and_four_passes(protected: bytes) -> None:
    printed = openssl("asn1parse", data=protected).decode()
    values = [line.rpartition(":")[2].strip() for line in printed.splitlines()]
    assert protected.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert [value for value in values if value in ("PBES2", "scrypt", "aes-256-cbc")] == [
        "PBES2",
        "scrypt",
        "aes-256-cbc",
    ]
    n, r, p = (int(line.rpartition(":")[2], 16) for line in printed.splitlines() if "prim: INTEGER" in line)
    assert 128 * n * r == 30 * 2**20
    assert p == 4


def test_cryptography_opens_a_key_that_was_protected_here(host_key: PrivateKey, protected: bytes) -> None:
    key = load_pem_private_key(protected, PASSPHRASE)
    assert key.private_numbers() == host_key.private_numbers()


def test_the_same_key_and_passphrase_give_another_file(host_key: PrivateKey, protected: bytes) -> None:
    assert rsakeys.private_pem(host_key, PASSPHRASE) != protected


def test_a_guess_costs_a_hundred_times_what_it_cost_in_the_form_before(
    host_key: PrivateKey, protected: bytes
) -> None:
    plain = rsakeys.private_pem(host_key)
    before = openssl("pkcs8", "-topk8", "-passout", "pass:cow", data=plain)

    def seconds(pem: bytes) -> float:
        start = time.process_time()
        with pytest.raises(ValueError, match="password"):
            load_pem_private_key(pem, b"a wrong one")
        return time.process_time() - start

    assert seconds(protected) > 100 * min(seconds(before) for _ in range(5))


@pytest.mark.parametrize("form", OPENSSL)
def test_keys_of_other_makers_and_older_versions_open_and_their_cost_is_known(
    host_key: PrivateKey, form: str
) -> None:
    command, is_cheap = OPENSSL[form]
    plain = rsakeys.private_pem(host_key)
    pem = openssl(*command.split(), "-passout", "pass:horse", data=plain)
    assert rsakeys.is_cheap(pem, "FILE") is is_cheap
    assert rsakeys.load_private(pem, "FILE", b"horse").private_numbers() == host_key.private_numbers()
    with pytest.raises(ProtectedKey):
        rsakeys.load_private(pem, "FILE")
    assert_refused(pem, b"Horse")


def assert_refused(pem: bytes, wrong: bytes) -> None:
    with pytest.raises(WrongPassphrase, match="FILE") as caught:
        rsakeys.load_private(pem, "FILE", wrong)
    assert "Horse" not in str(caught.value)


@pytest.mark.parametrize("wrong", [b"", b"Horse", PASSPHRASE + b"\n"])
def test_a_key_opens_with_its_passphrase_alone(host_key: PrivateKey, protected: bytes, wrong: bytes) -> None:
    with pytest.raises(ProtectedKey, match="FILE is protected by a passphrase"):
        rsakeys.load_private(protected, "FILE")
    assert_refused(protected, wrong)
    key = rsakeys.load_private(protected, "FILE", PASSPHRASE)
    assert key.private_numbers() == host_key.private_numbers()


def test_a_key_that_pki2fad_protected_before_opens_and_is_cheap_to_guess(host_key: PrivateKey) -> None:
    before = BestAvailableEncryption(b"horse")
    pem = host_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, before)
    assert rsakeys.is_cheap(pem, "FILE")
    assert rsakeys.load_private(pem, "FILE", b"horse").private_numbers() == host_key.private_numbers()


def test_neither_a_key_of_today_nor_one_without_a_passphrase_is_cheap(
    host_key: PrivateKey, protected: bytes
) -> None:
    assert not rsakeys.is_cheap(protected, "FILE")
    assert not rsakeys.is_cheap(rsakeys.private_pem(host_key), "FILE")


def test_a_passphrase_may_be_any_bytes_and_long(host_key: PrivateKey) -> None:
    passphrase = bytes(range(256)) * 3
    pem = rsakeys.private_pem(host_key, passphrase)
    assert rsakeys.load_private(pem, "FILE", passphrase).private_numbers() == host_key.private_numbers()
    assert load_pem_private_key(pem, passphrase).private_numbers() == host_key.private_numbers()


def test_other_threads_go_on_while_a_key_is_opened(protected: bytes) -> None:
    opening = threading.Thread(target=rsakeys.load_private, args=(protected, "FILE", PASSPHRASE))
    turns = 0
    opening.start()
    while opening.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 20


def cut(pem: bytes) -> bytes:
    lines = pem.splitlines(keepends=True)
    return b"".join(lines[:5] + lines[7:])


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda pem: pem[:-40],
        lambda pem: pem.replace(b"\nM", b"\n!", 1),
        lambda pem: pem[:500] + pem[-40:],
    ],
    ids=["lines gone", "cut off", "no base64", "its end gone"],
)
def test_a_damaged_key_is_called_that_before_anybody_is_asked_for_its_passphrase(
    protected: bytes, damage: object
) -> None:
    with pytest.raises(UnusableKey, match="FILE is damaged") as caught:
        rsakeys.load_private(damage(protected), "FILE")  # type: ignore[operator]
    assert type(caught.value) is UnusableKey

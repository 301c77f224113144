"""Sealed seeds, with openssl as the independent peer, and the one refusal of all that does not open."""

import base64
import codecs
import subprocess
from pathlib import Path

import pytest
from support import peers

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey, PublicKey
from pki2fad.errors import BadSeal

OAEP = ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")
DIGITS = bytes(range(16, 48)).hex().encode()


def pkeyutl(directory: Path, pem: bytes, data: bytes, *action: str, options: tuple[str, ...] = OAEP) -> bytes:
    """What openssl makes of the data with an RSA key."""
    (directory / "key.pem").write_bytes(pem)
    settings = [argument for option in options for argument in ("-pkeyopt", option)]
    command = [peers.require("openssl"), "pkeyutl", *action, "-inkey", str(directory / "key.pem"), *settings]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def sealed_by_openssl(directory: Path, key: PublicKey, text: bytes, options: tuple[str, ...] = OAEP) -> bytes:
    return pkeyutl(directory, rsakeys.public_pem(key), text, "-encrypt", "-pubin", options=options)


def refusal(key: PrivateKey, sealed: bytes) -> str:
    with pytest.raises(BadSeal) as caught:
        sealing.open_seed(key, sealed)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__  # neither does a traceback tell the reasons apart
    return str(caught.value)


@pytest.mark.parametrize("length", [16, 20, 32, 64])
def test_a_seed_that_openssl_sealed_opens(host_key: PrivateKey, tmp_path: Path, length: int) -> None:
    seed = bytes(range(200 - length, 200))
    sealed = sealed_by_openssl(tmp_path, host_key.public_key(), seed.hex().encode())
    assert sealing.open_seed(host_key, sealed) == seed


@pytest.mark.parametrize("length", [16, 20, 32, 64])
def test_a_seed_sealed_here_opens_with_openssl(host_key: PrivateKey, tmp_path: Path, length: int) -> None:
    seed = bytearray(range(length))
    sealed = sealing.seal_seed(host_key.public_key(), seed)
    assert len(sealed) == host_key.key_size // 8
    text = pkeyutl(tmp_path, rsakeys.private_pem(host_key), sealed, "-decrypt")
    assert text == seed.hex().encode()


def test_the_default_key_makes_sealed_seeds_of_512_bytes_and_684_characters(tmp_path: Path) -> None:
    key = rsakeys.generate_key()
    (tmp_path / "key.pem").write_bytes(rsakeys.private_pem(key))
    command = [peers.require("openssl"), "pkey", "-in", str(tmp_path / "key.pem"), "-noout", "-text"]
    described = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert described.startswith("Private-Key: (4096 bit, 2 primes)")
    assert "publicExponent: 65537 (0x10001)" in described
    sealed = sealing.seal_seed(key.public_key(), sealing.new_seed())
    text = sealing.sealed_to_text(sealed)
    assert (len(sealed), len(text.rstrip(b"\n"))) == (512, 684)


def test_sealing_the_same_seed_twice_gives_two_sealed_seeds(host_key: PrivateKey) -> None:
    seed = bytearray.fromhex(DIGITS.decode())
    assert sealing.seal_seed(host_key.public_key(), seed) != sealing.seal_seed(host_key.public_key(), seed)


def test_a_new_seed_is_32_bytes_that_nobody_had_before() -> None:
    seeds = [sealing.new_seed() for _ in range(20)]
    assert {len(seed) for seed in seeds} == {32}
    assert len({bytes(seed) for seed in seeds}) == 20


BAD_PLAINTEXTS = {
    "upper case": DIGITS.upper(),
    "one upper case digit": DIGITS[:-1] + b"F",
    "63 digits": DIGITS[1:],
    "18 digits": DIGITS[:18],
    "31 digits": DIGITS[:31],
    "129 digits": DIGITS * 2 + b"0",
    "130 digits": DIGITS * 2 + b"00",
    "nothing": b"",
    "0x before": b"0x" + DIGITS,
    "0x in place of two digits": b"0x" + DIGITS[2:],
    "a newline after": DIGITS + b"\n",
    "a newline in place of a digit": DIGITS[:-1] + b"\n",
    "a newline before": b"\n" + DIGITS,
    "a space before": b" " + DIGITS,
    "a space within": DIGITS[:32] + b" " + DIGITS[32:],
    "a NUL after": DIGITS + b"\0",
    "no hex digit": DIGITS[:-1] + b"g",
    "full-width digits": ("\uff11" * 32).encode(),
    "the bytes themselves": bytes(range(32)),
}


@pytest.mark.parametrize("text", BAD_PLAINTEXTS.values(), ids=BAD_PLAINTEXTS)
def test_what_holds_no_seed_is_refused_like_what_does_not_open(
    host_key: PrivateKey, other_key: PrivateKey, tmp_path: Path, text: bytes
) -> None:
    for_another = sealing.seal_seed(other_key.public_key(), bytearray.fromhex(DIGITS.decode()))
    sealed = sealed_by_openssl(tmp_path, host_key.public_key(), text)
    assert refusal(host_key, sealed) == refusal(host_key, for_another)


@pytest.mark.parametrize(
    "options",
    [
        ("rsa_padding_mode:pkcs1",),
        ("rsa_padding_mode:oaep", "rsa_oaep_md:sha1", "rsa_mgf1_md:sha1"),
        ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha1"),
        (*OAEP, "rsa_oaep_label:00ff"),
    ],
    ids=["PKCS#1 v1.5", "SHA-1", "MGF1 with SHA-1", "a label"],
)
def test_another_padding_is_refused_like_what_does_not_open(
    host_key: PrivateKey, other_key: PrivateKey, tmp_path: Path, options: tuple[str, ...]
) -> None:
    for_another = sealing.seal_seed(other_key.public_key(), bytearray.fromhex(DIGITS.decode()))
    sealed = sealed_by_openssl(tmp_path, host_key.public_key(), DIGITS, options)
    assert refusal(host_key, sealed) == refusal(host_key, for_another)


@pytest.mark.parametrize("change", ["shorter", "longer", "empty", "first byte", "last byte", "zeros", "ones"])
def test_a_damaged_sealed_seed_is_refused_like_one_for_another_key(
    host_key: PrivateKey, other_key: PrivateKey, change: str
) -> None:
    seed = bytearray.fromhex(DIGITS.decode())
    sealed = sealing.seal_seed(host_key.public_key(), seed)
    damaged = {
        "shorter": sealed[:-1],
        "longer": sealed + b"\0",
        "empty": b"",
        "first byte": bytes([sealed[0] ^ 1]) + sealed[1:],
        "last byte": sealed[:-1] + bytes([sealed[-1] ^ 0x80]),
        "zeros": bytes(len(sealed)),
        "ones": b"\xff" * len(sealed),
    }[change]
    for_another = sealing.seal_seed(other_key.public_key(), seed)
    assert refusal(host_key, damaged) == refusal(host_key, for_another)


def test_the_refusal_names_the_key_in_use_and_not_the_seed(host_key: PrivateKey, tmp_path: Path) -> None:
    text = refusal(host_key, sealed_by_openssl(tmp_path, host_key.public_key(), DIGITS.upper()))
    assert rsakeys.fingerprint(host_key.public_key()) in text
    assert DIGITS[:8].decode().lower() not in text.lower()


def test_a_seed_is_not_shown_when_its_digits_are_refused() -> None:
    with pytest.raises(ValueError, match="lowercase hex digits") as caught:
        sealing.seed_from_hex(DIGITS + b"!")
    assert DIGITS.decode() not in str(caught.value)


@pytest.mark.parametrize(
    "around",
    [(b"", b""), (b"", b"\n"), (b"", b"\r\n"), (b" \t\r\n", b" \n\n"), (codecs.BOM_UTF8, b"\r\n")],
    ids=repr,
)
def test_base64_may_have_white_space_around_it(around: tuple[bytes, bytes]) -> None:
    sealed = bytes(range(256)) * 2
    before, after = around
    assert sealing.sealed_from_text(before + base64.b64encode(sealed) + after) == sealed


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n    ", b" "], ids=repr)
def test_base64_may_be_broken_anywhere(end: bytes) -> None:
    sealed = bytes(range(256)) * 2
    for text in (base64.encodebytes(sealed).replace(b"\n", end), end.join(lines(sealed, 7))):
        assert sealing.sealed_from_text(text) == sealed


def lines(sealed: bytes, width: int) -> list[bytes]:
    text = base64.b64encode(sealed)
    return [text[start : start + width] for start in range(0, len(text), width)]


def test_the_text_of_a_sealed_seed_is_one_line_of_base64() -> None:
    sealed = bytes(range(256)) * 2
    text = sealing.sealed_to_text(sealed)
    assert text == base64.b64encode(sealed) + b"\n"
    assert sealing.sealed_from_text(text) == sealed


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" \n",
        b"QUJDRA",
        b"QUJDRA=",
        b"QUJDRA===",
        b"QUJD=REVG",
        b"QUJDRA==REVG",
        b"=QUJD",
        b"QUJ_REVG",
        b"QUJ-REVG",
        b"QUJD!",
        b"QUJDR",
        b"QUJD\0",
        b"\xffQUJ",
        "\uff31UJD".encode(),
        b"-----BEGIN PKCS7-----",
    ],
    ids=repr,
)
def test_what_is_not_strictly_base64_is_refused_as_that(text: bytes) -> None:
    with pytest.raises(BadSeal, match="base64"):
        sealing.sealed_from_text(text)

"""Key files: openssl reads ours, we read openssl's, and what is no such key is refused by name."""

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.peers import openssl

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import UnusableKey

PATH = "/etc/pki2fad/host.pem"


def private_refusal(pem: bytes) -> str:
    with pytest.raises(UnusableKey) as caught:
        rsakeys.load_private(pem, PATH)
    assert str(caught.value).startswith(PATH)
    return str(caught.value)


def public_refusal(pem: bytes) -> str:
    with pytest.raises(UnusableKey) as caught:
        rsakeys.load_public(pem, PATH)
    assert str(caught.value).startswith(PATH)
    return str(caught.value)


@pytest.fixture(scope="module")
def small_key() -> bytes:
    """A private key of 2048 bits."""
    return openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")


@pytest.fixture(scope="module")
def curve_key() -> bytes:
    """A private key that is not RSA."""
    return openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


def public_of(private_pem: bytes) -> bytes:
    return openssl("pkey", "-pubout", data=private_pem)


def test_a_private_key_file_is_pkcs8_and_openssl_finds_it_sound(host_key: PrivateKey) -> None:
    pem = rsakeys.private_pem(host_key)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert pem.endswith(b"-----END PRIVATE KEY-----\n")
    assert b"Key is valid" in openssl("pkey", "-check", "-noout", data=pem)
    assert openssl("pkey", data=pem) == pem


def test_a_public_key_file_is_what_openssl_derives_from_the_private_one(host_key: PrivateKey) -> None:
    pem = rsakeys.public_pem(host_key.public_key())
    assert pem.startswith(b"-----BEGIN PUBLIC KEY-----\n")
    assert public_of(rsakeys.private_pem(host_key)) == pem


def test_the_fingerprint_is_the_digest_of_what_openssl_writes_as_der(host_key: PrivateKey) -> None:
    pem = rsakeys.public_pem(host_key.public_key())
    der = openssl("pkey", "-pubin", "-pubout", "-outform", "DER", data=pem)
    digest = openssl("dgst", "-sha256", "-binary", data=der)
    expected = "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    assert rsakeys.fingerprint(host_key.public_key()) == expected


def test_the_key_files_are_read_again(host_key: PrivateKey) -> None:
    private = rsakeys.load_private(rsakeys.private_pem(host_key), PATH)
    public = rsakeys.load_public(rsakeys.public_pem(host_key.public_key()), PATH)
    assert private.private_numbers() == host_key.private_numbers()
    assert public.public_numbers() == host_key.public_key().public_numbers()


def test_a_private_key_in_the_older_form_is_read_too(host_key: PrivateKey) -> None:
    pem = openssl("rsa", "-traditional", data=rsakeys.private_pem(host_key))
    assert pem.startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert rsakeys.load_private(pem, PATH).private_numbers() == host_key.private_numbers()


def test_a_key_made_by_openssl_opens_what_is_sealed_to_it() -> None:
    pem = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072")
    seed = sealing.new_seed()
    sealed = sealing.seal_seed(rsakeys.load_public(public_of(pem), PATH), seed)
    assert sealing.open_seed(rsakeys.load_private(pem, PATH), sealed) == seed


@pytest.mark.parametrize("bits", [2048, 3071, 16385])
def test_a_key_of_a_size_out_of_range_is_not_made(bits: int) -> None:
    with pytest.raises(UnusableKey, match=rf"3072 to 16384 bits, not {bits}"):
        rsakeys.generate_key(bits)


def test_line_ends_as_two_characters_are_recognised_with_what_mends_them(
    host_key: PrivateKey, tmp_path: Path
) -> None:
    private, public = rsakeys.private_pem(host_key), rsakeys.public_pem(host_key.public_key())
    for pem, refusal in ((private, private_refusal), (public, public_refusal)):
        escaped = pem.replace(b"\n", b"\\n")
        message = refusal(escaped)
        assert r"\n" in message
        # The command in the message does mend it.
        file = tmp_path / "key.pem"
        file.write_bytes(escaped)
        command = message.partition("repair it with: ")[2].replace(PATH, str(file))
        subprocess.run(command, shell=True, check=True)
        assert file.read_bytes().rstrip(b"\n") == pem.rstrip(b"\n")


def test_a_public_key_where_a_private_one_belongs_is_called_that(host_key: PrivateKey) -> None:
    assert "is a public key" in private_refusal(rsakeys.public_pem(host_key.public_key()))


def test_a_private_key_where_a_public_one_belongs_is_called_that(host_key: PrivateKey) -> None:
    assert "is a private key" in public_refusal(rsakeys.private_pem(host_key))


def test_a_passphrase_for_a_key_that_needs_none_is_left_alone(host_key: PrivateKey) -> None:
    loaded = rsakeys.load_private(rsakeys.private_pem(host_key), PATH, b"horse")
    assert loaded.private_numbers() == host_key.private_numbers()


def test_a_key_that_is_not_rsa_is_called_that(curve_key: bytes) -> None:
    assert "is not an RSA key" in private_refusal(curve_key)
    assert "is not an RSA key" in public_refusal(public_of(curve_key))


def test_a_small_key_is_refused_with_both_numbers(small_key: bytes) -> None:
    for message in (private_refusal(small_key), public_refusal(public_of(small_key))):
        assert "2048 bits" in message
        assert "3072" in message


@pytest.mark.parametrize("data", [b"", b"\n", b"\x30\x82\x01\x0a", b"0", b"0\x80", b"ssh keys", b"\0" * 100])
def test_what_is_no_pem_is_called_that(data: bytes) -> None:
    assert "is not a PEM file" in private_refusal(data)
    assert "is not a PEM file" in public_refusal(data)


def middle(pem: bytes, replacement: bytes) -> bytes:
    """The PEM with some characters in its middle replaced."""
    place = len(pem) // 2
    return pem[:place] + replacement + pem[place + len(replacement) :]


DAMAGES = {
    "a character that is not base64": lambda pem: middle(pem, b"!"),
    "bytes that are no text": lambda pem: middle(pem, b"\xff\xfe"),
    "cut off": lambda pem: pem[: len(pem) // 2],
    "its end line gone": lambda pem: b"".join(pem.splitlines(keepends=True)[:-1]),
    "a line gone": lambda pem: b"".join(
        pem.splitlines(keepends=True)[:5] + pem.splitlines(keepends=True)[6:]
    ),
    "nothing in it": lambda pem: b"".join(
        pem.splitlines(keepends=True)[:1] + pem.splitlines(keepends=True)[-1:]
    ),
    "other data in it": lambda pem: b"".join(
        [pem.splitlines(keepends=True)[0], base64.encodebytes(bytes(300)), pem.splitlines(keepends=True)[-1]]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_key_is_called_that(host_key: PrivateKey, damage: str) -> None:
    private, public = rsakeys.private_pem(host_key), rsakeys.public_pem(host_key.public_key())
    assert "is damaged" in private_refusal(DAMAGES[damage](private))
    assert "is damaged" in public_refusal(DAMAGES[damage](public))


def test_no_message_has_a_part_of_the_key_in_it(host_key: PrivateKey) -> None:
    pem = rsakeys.private_pem(host_key)
    lines = pem.decode().splitlines()[1:-1]
    for message in (private_refusal(middle(pem, b"!")), public_refusal(pem), private_refusal(pem[:1000])):
        assert not any(line[:20] in message for line in lines)


@pytest.mark.parametrize("bits", [64, 65, 3070])
def test_a_public_exponent_that_makes_each_use_slow_is_refused(host_key: PrivateKey, bits: int) -> None:
    modulus = host_key.public_key().public_numbers().n
    pem = rsakeys.public_pem(rsa.RSAPublicNumbers(2 ** (bits - 1) + 1, modulus).public_key())
    if bits == 64:
        assert rsakeys.load_public(pem, "FILE").public_numbers().n == modulus
        return
    with pytest.raises(UnusableKey) as refused:
        rsakeys.load_public(pem, "FILE")
    assert str(refused.value) == f"FILE has a public exponent of {bits} bits; at most 64 are used"

"""Seals to an RSA key, opens, and signs.

A sealed seed is RSA-OAEP (SHA-256, MGF1-SHA-256, no label; RFC 8017 section 7.1) around the seed as
lowercase hex digits.
"""

import base64
import binascii
import codecs
import os
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from pki2fad.crypto import seedsizes
from pki2fad.crypto.rsakeys import PrivateKey, PublicKey, fingerprint, load_private
from pki2fad.errors import BadSeal, UnusableKey

MOST_BITS_TAKEN_UP = 8192  # of a key in a rotation: each use of a larger one would make all callers wait
_SEED_TEXT = re.compile(rb"(?:[0-9a-f]{2})+")
_OAEP_OVERHEAD = 66  # two SHA-256 digests and two bytes
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)


def new_seed() -> bytearray:
    """A random seed of 32 bytes."""
    return bytearray(os.urandom(seedsizes.USUAL))


def seed_from_hex(text: bytes, least: int = seedsizes.LEAST) -> bytearray:
    """A seed of `least` to 64 bytes from its hex digits. Raises `ValueError`, which does not show them."""
    if not least <= len(text) // 2 <= seedsizes.MOST or _SEED_TEXT.fullmatch(text) is None:
        raise ValueError(
            f"a seed is an even number of lowercase hex digits, {2 * least} to {2 * seedsizes.MOST}, and"
            " nothing else"
        )
    return bytearray(binascii.unhexlify(text))


def seal_seed(key: PublicKey, seed: bytearray) -> bytes:
    """The sealed seed: as many bytes as the key's modulus has."""
    return key.encrypt(binascii.hexlify(seed), oaep(None))


def open_seed(key: PrivateKey, sealed: bytes) -> bytearray:
    """The seed in a sealed seed, also a short one. Raises `BadSeal`, with one text for all reasons."""
    try:
        return seed_from_hex(key.decrypt(sealed, oaep(None)), seedsizes.SHORT)
    except ValueError:
        raise not_opened(key) from None


def not_opened(key: PrivateKey) -> BadSeal:
    """The one refusal for everything that the key in use does not open to a seed."""
    return BadSeal(
        "this does not open to a seed:"
        f" it was sealed to another key than {fingerprint(key.public_key())}, or is damaged"
    )


def sealed_from_text(text: bytes) -> bytes:
    """The bytes of a sealed seed, a batch or a proof, from base64. Raises `BadSeal`.

    White space may stand anywhere, since many programs break base64 into lines.
    """
    text = b"".join(text.removeprefix(codecs.BOM_UTF8).split())
    if not text:
        raise BadSeal("this is empty, where base64 is needed")
    try:
        sealed = base64.b64decode(text)
    except ValueError:
        sealed = b""
    if base64.b64encode(sealed) != text:  # Python's own strictness lets too much padding pass
        raise BadSeal("this is not base64")
    return sealed


def sealed_to_text(sealed: bytes) -> bytes:
    """A sealed seed, or a batch, as one line of base64."""
    return base64.b64encode(sealed) + b"\n"


def sign(key: PrivateKey, message: bytes) -> bytes:
    """RSA-PSS with SHA-256, MGF1-SHA-256 and the largest salt (RFC 8017 section 8.1)."""
    return key.sign(message, _PSS, hashes.SHA256())


def is_signed(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """True if `sign` made the signature of this message with the key's private half."""
    try:
        key.verify(signature, message, _PSS, hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def check_holds(key: PublicKey, size: int, path: str) -> None:
    """Raise `UnusableKey` if the key of the file `path` is too small to encrypt `size` bytes."""
    if key.key_size // 8 - _OAEP_OVERHEAD < size:
        raise UnusableKey(
            f"{path} has {key.key_size} bits; to encrypt {size} bytes at least {(size + _OAEP_OVERHEAD) * 8}"
            " are needed"
        )


def encrypt(key: PublicKey, data: bytes) -> bytes:
    """RSA-OAEP around any bytes for which the key is large enough."""
    return key.encrypt(data, oaep(None))


def decrypt(key: PrivateKey, encrypted: bytes) -> bytes | None:
    """The bytes that `encrypt` encrypted; None if they are for another key or damaged."""
    try:
        return key.decrypt(encrypted, oaep(None))
    except ValueError:
        return None


def oaep(label: bytes | None) -> padding.OAEP:
    """The OAEP that is used everywhere here (RFC 8017 section 7.1), with or without a label."""
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)


def load_new_private(pem: bytes, path: str) -> PrivateKey:
    """Do what `load_private` does, and check that the key opens what is sealed to it.

    Raises `UnusableKey`. With invented numbers in the key it may take seconds.
    """
    key = load_private(pem, path)
    if key.key_size > MOST_BITS_TAKEN_UP:
        raise UnusableKey(f"{path} has {key.key_size} bits; at most {MOST_BITS_TAKEN_UP} are allowed")
    probe = os.urandom(seedsizes.USUAL)
    try:
        opened = decrypt(key, encrypt(key.public_key(), probe))
    except Exception:  # whatever OpenSSL does with such numbers
        opened = None
    if opened != probe:
        raise UnusableKey(f"{path} is damaged: it does not open what is sealed to it")
    return key

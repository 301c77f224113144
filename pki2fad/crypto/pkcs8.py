"""Private keys under a passphrase: PKCS#8 (RFC 5958) with PBES2 (RFC 8018) and scrypt (RFC 7914 section 7).

cryptography reads this form but cannot write it. It also stops all other threads while it derives the key,
so `unprotect` opens it here.
"""

import hashlib
import os
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from pki2fad.crypto import der

_PBES2 = bytes.fromhex("2a864886f70d01050d")  # 1.2.840.113549.1.5.13
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")  # 1.2.840.113549.1.5.12
_SCRYPT = bytes.fromhex("2b06010401da47040b")  # 1.3.6.1.4.1.11591.4.11
_AES_256_CBC = bytes.fromhex("60864801650304012a")  # 2.16.840.1.101.3.4.1.42

# 31 MiB and four passes take .3 to .5 s of a core. OpenSSL allows at most 32 MiB.
_N, _R, _P = 16384, 15, 4
_MEMORY_LIMIT = 32 * 1024 * 1024

# What takes 200 ms of a core (measured): scrypt's N * r * p, and the iterations of PBKDF2-HMAC-SHA-256.
_ENOUGH_SCRYPT = 16384 * 8 * 3
_ENOUGH_PBKDF2 = 600_000

_SALT_BYTES = 16
_BLOCK_BYTES = 16
_KEY_BYTES = 32


class Form(NamedTuple):
    """How a key is protected."""

    is_cheap: bool  # a guess of the passphrase takes less than 200 ms of a core
    scrypt: tuple[bytes, int, int, int] | None  # salt, N, r and p, if `unprotect` can open it
    iv: bytes
    data: bytes


def protect(key: bytes, passphrase: bytes) -> bytes:
    """The EncryptedPrivateKeyInfo of a PrivateKeyInfo, both in DER."""
    salt, iv = os.urandom(_SALT_BYTES), os.urandom(_BLOCK_BYTES)
    padder = PKCS7(8 * _BLOCK_BYTES).padder()
    encryptor = Cipher(AES256(_derive(passphrase, salt, _N, _R, _P)), CBC(iv)).encryptor()
    data = encryptor.update(padder.update(key) + padder.finalize()) + encryptor.finalize()
    kdf = _algorithm(
        _SCRYPT,
        der.element(
            der.SEQUENCE,
            der.element(der.OCTET_STRING, salt),
            *map(der.integer, (_N, _R, _P)),
        ),
    )
    cipher = _algorithm(_AES_256_CBC, der.element(der.OCTET_STRING, iv))
    return der.element(
        der.SEQUENCE,
        _algorithm(_PBES2, der.element(der.SEQUENCE, kdf, cipher)),
        der.element(der.OCTET_STRING, data),
    )


def parse(protected: bytes) -> Form:
    """How an EncryptedPrivateKeyInfo in DER is protected. Raises `ValueError` for anything else."""
    (whole,) = der.contents(protected)
    algorithm, data = der.contents(whole)
    scheme, parameters = der.contents(algorithm)
    if scheme != _PBES2:
        return Form(True, None, b"", data)
    (kdf, kdf_parameters), (cipher, *iv) = map(der.contents, der.contents(parameters))
    salt, first, *more = der.contents(kdf_parameters)
    if kdf == _PBKDF2:
        return Form(_number(first) < _ENOUGH_PBKDF2, None, b"", data)
    if kdf != _SCRYPT:
        return Form(True, None, b"", data)
    n, r, p = map(_number, (first, *more[:2]))
    is_ours = cipher == _AES_256_CBC and 128 * r * (n + 2 + p) <= _MEMORY_LIMIT  # as OpenSSL counts it
    return Form(n * r * p < _ENOUGH_SCRYPT, (salt, n, r, p) if is_ours else None, b"".join(iv), data)


def unprotect(form: Form, passphrase: bytes) -> bytes:
    """The PrivateKeyInfo in DER; one wrong passphrase in 256 gives noise. Raises `ValueError`."""
    assert form.scrypt is not None
    decryptor = Cipher(AES256(_derive(passphrase, *form.scrypt)), CBC(form.iv)).decryptor()
    unpadder = PKCS7(8 * _BLOCK_BYTES).unpadder()
    return unpadder.update(decryptor.update(form.data) + decryptor.finalize()) + unpadder.finalize()


def _algorithm(identifier: bytes, parameters: bytes) -> bytes:
    """An AlgorithmIdentifier."""
    return der.element(der.SEQUENCE, der.element(der.OBJECT_IDENTIFIER, identifier), parameters)


def _derive(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(passphrase, salt=salt, n=n, r=r, p=p, maxmem=_MEMORY_LIMIT, dklen=_KEY_BYTES)


def _number(content: bytes) -> int:
    return int.from_bytes(content, "big")

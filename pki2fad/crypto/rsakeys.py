"""RSA key pairs: making, reading and writing them, and their fingerprints."""

import base64
import hashlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pki2fad.crypto import keyforms, pkcs8
from pki2fad.errors import ProtectedKey, UnusableKey, WrongPassphrase

PrivateKey = rsa.RSAPrivateKey
PublicKey = rsa.RSAPublicKey

DEFAULT_BITS = 4096
MINIMUM_BITS = 3072  # NIST SP 800-57: 128 bits of security
MAXIMUM_BITS = 16384  # OpenSSL's own limit for using a public key
# OpenSSL's own limit for keys of more than 3072 bits; with a longer exponent each use takes 30 ms.
_EXPONENT_BITS = 64


def generate_key(bits: int = DEFAULT_BITS) -> PrivateKey:
    """A new RSA key with e = 65537. Raises `UnusableKey` for a size out of range."""
    if not MINIMUM_BITS <= bits <= MAXIMUM_BITS:
        raise UnusableKey(f"a key has {MINIMUM_BITS} to {MAXIMUM_BITS} bits, not {bits}")
    return rsa.generate_private_key(65537, bits)


def private_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS#8 PEM. Without a passphrase only the file's mode protects it."""
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    if not passphrase:
        return key.private_bytes(serialization.Encoding.PEM, form, plain)
    return keyforms.protected_pem(
        pkcs8.protect(key.private_bytes(serialization.Encoding.DER, form, plain), passphrase)
    )


def public_pem(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_private(pem: bytes, path: str, passphrase: bytes | None = None) -> PrivateKey:
    """The RSA private key in a PEM file; `path` is for the message of `UnusableKey`.

    Raises `ProtectedKey` if a passphrase is needed, and `WrongPassphrase`. A passphrase for a key without
    one is ignored.

    The key's numbers are not checked: that takes a quarter of a second, and only its owner can write the
    file.
    """
    block = keyforms.private_key(pem, path)
    protection = _protection(block, path)
    if block.is_protected and passphrase is None:
        raise ProtectedKey(f"{path} is protected by a passphrase")
    try:
        if protection is not None and protection.scrypt is not None and passphrase is not None:
            key = serialization.load_der_private_key(
                pkcs8.unprotect(protection, passphrase), None, unsafe_skip_rsa_key_validation=True
            )
        else:
            key = serialization.load_pem_private_key(
                block.text, passphrase if block.is_protected else None, unsafe_skip_rsa_key_validation=True
            )
    except Exception:  # OpenSSL's reasons help nobody, and may depend on secret content
        if block.is_protected:
            raise WrongPassphrase(f"the passphrase does not open {path}, or it is damaged") from None
        raise keyforms.damaged(path) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UnusableKey(f"{path} is not an RSA key")
    _check_size(key.public_key(), path)
    return key


def is_cheap(pem: bytes, path: str) -> bool:
    """True if the private key has a passphrase that is cheap to guess at. Raises `UnusableKey`."""
    block = keyforms.private_key(pem, path)
    protection = _protection(block, path)
    return block.is_protected and (protection is None or protection.is_cheap)


def _protection(block: keyforms.Block, path: str) -> pkcs8.Form | None:
    """How PKCS#8 protects a key, None if it does not. Raises `UnusableKey`."""
    protected = block.protected_pkcs8
    try:
        return None if protected is None else pkcs8.parse(protected)
    except ValueError:
        raise keyforms.damaged(path) from None


def load_public(pem: bytes, path: str) -> PublicKey:
    """The one RSA public key in a PEM file; `path` is for the message of `UnusableKey`."""
    keys = load_publics(pem, path)
    if len(keys) > 1:
        raise UnusableKey(f"{path} has {len(keys)} public keys; one is needed here")
    return keys[0]


def load_publics(pem: bytes, path: str) -> list[PublicKey]:
    """The RSA public keys, at least one, in a PEM file; `path` is for the message of `UnusableKey`."""
    return [_load_public(block.text, path) for block in keyforms.public_keys(pem, path)]


def _load_public(text: bytes, path: str) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(text)
    except Exception:
        raise keyforms.damaged(path) from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise UnusableKey(f"{path} is not an RSA key")
    _check_size(key, path)
    return key


def _check_size(key: PublicKey, path: str) -> None:
    if key.key_size < MINIMUM_BITS:
        raise UnusableKey(f"{path} has {key.key_size} bits; at least {MINIMUM_BITS} are needed")
    exponent = key.public_numbers().e.bit_length()
    if exponent > _EXPONENT_BITS:
        raise UnusableKey(
            f"{path} has a public exponent of {exponent} bits; at most {_EXPONENT_BITS} are used"
        )


def fingerprint(key: PublicKey) -> str:
    """`SHA256:` and the base64 digest of the DER form of the public key."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")

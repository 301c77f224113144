"""RSA key pairs, sealing and opening, and AES-GCM. With `pkcs8` all that uses cryptography.

A sealed seed is RSA-OAEP (SHA-256, MGF1-SHA-256, no label; RFC 8017 section 7.1) around the seed as
lowercase hex digits. The master key, under which the state is sealed, is wrapped for the host's key
by the same with a label of its own, so that neither can pass for the other.
"""

import base64
import binascii
import codecs
import contextlib
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterator
from typing import Self

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pki2fad.crypto import keyforms, pkcs8
from pki2fad.crypto.memory import LockedPage, Wiping, wipe
from pki2fad.errors import BadSeal, ProtectedKey, UnusableKey, WrongPassphrase

PrivateKey = rsa.RSAPrivateKey
PublicKey = rsa.RSAPublicKey

DEFAULT_BITS = 4096
MINIMUM_BITS = 3072  # NIST SP 800-57: 128 bits of security
MAXIMUM_BITS = 16384  # OpenSSL's own limit for using a public key
_EXPONENT_BITS = (
    64  # OpenSSL's own limit for keys of more than 3072 bits; longer ones take 30 ms for each use
)
MOST_BITS_TAKEN_UP = 8192  # of a key in a rotation: each use of a larger one holds all callers up
SEED_BYTES = 32  # what issuers in use make

_SEED_TEXT = re.compile(rb"(?:[0-9a-f]{2}){16,64}")
_MASTER_LABEL = b"pki2fad master key"
_DIGEST_KEY = b"pki2fad digest key"
_MASTER_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_OAEP_OVERHEAD = 66  # two SHA-256 digests and two bytes
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)


def generate_key(bits: int = DEFAULT_BITS) -> PrivateKey:
    """A new RSA key with e = 65537. Raises `UnusableKey` for a size out of range."""
    if not MINIMUM_BITS <= bits <= MAXIMUM_BITS:
        raise UnusableKey(f"a key has {MINIMUM_BITS} to {MAXIMUM_BITS} bits, not {bits}")
    return rsa.generate_private_key(65537, bits)


def private_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS#8 PEM; without a passphrase the file's mode alone protects it."""
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

    Raises `ProtectedKey` where a passphrase is needed, and `WrongPassphrase`. One that is given for a key
    that needs none is left alone.

    The key's own consistency is not checked: that takes a quarter of a second, and only its owner
    can write the file.
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
    except Exception:  # OpenSSL's reasons help nobody, and may differ by content
        if block.is_protected:
            raise WrongPassphrase(f"the passphrase does not open {path}, or it is damaged") from None
        raise keyforms.damaged(path) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UnusableKey(f"{path} is not an RSA key")
    _check_size(key.public_key(), path)
    return key


def load_new_private(pem: bytes, path: str) -> PrivateKey:
    """What `load_private` gives, for a key that is to be used from now on: it opens what is sealed to it.

    Raises `UnusableKey` for any other. It takes seconds where the key's numbers are made up.
    """
    key = load_private(pem, path)
    if key.key_size > MOST_BITS_TAKEN_UP:
        raise UnusableKey(f"{path} has {key.key_size} bits; at most {MOST_BITS_TAKEN_UP} are allowed")
    probe = os.urandom(_MASTER_BYTES)
    try:
        opened = decrypt(key, encrypt(key.public_key(), probe))
    except Exception:  # as above
        opened = None
    if opened != probe:
        raise UnusableKey(f"{path} is damaged: it does not open what is sealed to it")
    return key


def is_cheap(pem: bytes, path: str) -> bool:
    """True if a passphrase protects the private key, and a guess of it costs little. Raises `UnusableKey`."""
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


def new_seed() -> bytearray:
    """A random seed of 32 bytes."""
    return bytearray(os.urandom(SEED_BYTES))


def seed_from_hex(text: bytes) -> bytearray:
    """A seed from its digits. Raises `ValueError`, which does not show them."""
    if _SEED_TEXT.fullmatch(text) is None:
        raise ValueError("a seed is 32 to 128 lowercase hex digits, an even number, and nothing else")
    return bytearray(binascii.unhexlify(text))


def seal_seed(key: PublicKey, seed: bytearray) -> bytes:
    """The sealed seed: as many bytes as the key's modulus has."""
    return key.encrypt(binascii.hexlify(seed), _oaep(None))


def open_seed(key: PrivateKey, sealed: bytes) -> bytearray:
    """The seed in a sealed seed. Raises `BadSeal`, with one text for all reasons."""
    try:
        return seed_from_hex(key.decrypt(sealed, _oaep(None)))
    except ValueError:
        raise not_opened(key) from None


def not_opened(key: PrivateKey) -> BadSeal:
    """The one text for whatever does not open with the key in use, or opens to no seed."""
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
        raise BadSeal("this is empty, and not base64")
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
    """Raise `UnusableKey` if so many bytes cannot be encrypted to the key of the file `path`."""
    if key.key_size // 8 - _OAEP_OVERHEAD < size:
        raise UnusableKey(
            f"{path} has {key.key_size} bits; to hold {size} bytes at least {(size + _OAEP_OVERHEAD) * 8}"
            " are needed"
        )


def encrypt(key: PublicKey, data: bytes) -> bytes:
    """RSA-OAEP around anything that the key holds; a seed is sealed by `seal_seed`."""
    return key.encrypt(data, _oaep(None))


def decrypt(key: PrivateKey, encrypted: bytes) -> bytes | None:
    """What `encrypt` encrypted, or None if it was not for this key or is not whole."""
    try:
        return key.decrypt(encrypted, _oaep(None))
    except ValueError:
        return None


def _oaep(label: bytes | None) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)


class MasterKey:
    """The key that seals every seed of the state: AES-256-GCM, in a locked page until `close`.

    With `with` it is closed at the end.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._page = LockedPage()
        self._key = self._page.buffer[:_MASTER_BYTES]
        self._key[:] = os.urandom(_MASTER_BYTES) if key is None else key
        # Digests outlive the master key: what they were keyed with first goes on to the next one.
        self._digest_key = self._page.buffer[_MASTER_BYTES : 2 * _MASTER_BYTES]
        self._digest_key[:] = self._key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @classmethod
    def unwrap(cls, private: PrivateKey, wrapped: bytes) -> "MasterKey":
        """Open a wrapped master key. Raises `UnusableKey` when it is not for this key."""
        try:
            return cls(private.decrypt(wrapped, _oaep(_MASTER_LABEL)))
        except ValueError:
            raise UnusableKey("the master key does not open with this key") from None

    def wrap(self, public: PublicKey) -> bytes:
        """The master key, sealed to a host's key."""
        return public.encrypt(bytes(self._key), _oaep(_MASTER_LABEL))

    def is_same(self, other: "MasterKey") -> bool:
        """True if both are the same key."""
        return hmac.compare_digest(self._key, other._key)  # noqa: SLF001 - of this class

    def adopt_digests(self, earlier: "MasterKey") -> None:
        """Make the digests that an earlier master key made."""
        self._digest_key[:] = earlier._digest_key  # noqa: SLF001 - of this class

    def sealed_digest_key(self) -> bytes:
        """What the digests are keyed with, sealed under the master key."""
        return self._seal(self._digest_key, _DIGEST_KEY)

    def open_digest_key(self, sealed: bytes) -> None:
        """Take up what `sealed_digest_key` gave. Raises `BadSeal`."""
        with self.opened(sealed, _DIGEST_KEY) as key:
            self._digest_key[:] = key

    @property
    def locked(self) -> bool:
        """False where the system granted no memory that cannot be swapped."""
        return self._page.locked

    def seal(self, seed: bytearray, associated: bytes) -> bytes:
        """Nonce and ciphertext of a seed, bound to `associated`."""
        return self._seal(seed, associated)

    def _seal(self, data: bytearray | memoryview, associated: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, data, associated)

    def opened(self, sealed: bytes, associated: bytes) -> Wiping:
        """The seed, in a buffer that is wiped at the end.

        Raises `BadSeal` if a byte of either was changed. The cipher is made anew each time (1 us), so
        that its key schedule is in ordinary memory no longer than the seed.
        """
        seed = _buffer_for(sealed)
        try:
            _open_into(seed, AESGCM(self._key), sealed, associated)
        except BaseException:
            wipe(seed)
            raise
        return Wiping(seed)

    def sealer(self, associated: bytes) -> "Sealer":
        """What makes the bytes of `seal` from a text that comes in parts."""
        return Sealer(self._key, associated)

    def opener(self, sealed: bytes | memoryview, associated: bytes) -> "Opener":
        """What opens such bytes in parts, so that nobody waits for all of them. Raises `BadSeal`."""
        return Opener(self._key, sealed, associated)

    @contextlib.contextmanager
    def checking(self) -> Iterator[Callable[[bytes, bytes], None]]:
        """What raises `BadSeal` where `opened` would, in half the time: for all seeds of a state.

        They have one cipher and, by their length, one buffer in common, in which the next seed overwrites
        the last. Both are wiped at the end, the cipher by OpenSSL.
        """
        cipher = AESGCM(self._key)
        buffers: dict[int, bytearray] = {}

        def check(sealed: bytes, associated: bytes) -> None:
            seed = buffers.get(len(sealed))
            if seed is None:
                seed = buffers[len(sealed)] = _buffer_for(sealed)
            _open_into(seed, cipher, sealed, associated)

        try:
            yield check
        finally:
            for seed in buffers.values():
                wipe(seed)

    def digest(self, seed: bytearray, associated: bytes) -> bytes:
        """16 bytes by which the same seed is known again, and which say nothing without the key."""
        keyed = hashlib.blake2b(digest_size=16, key=self._digest_key, person=b"pki2fad seed")
        keyed.update(len(associated).to_bytes(4, "big") + associated)
        keyed.update(seed)
        return keyed.digest()

    def close(self) -> None:
        """Wipe it."""
        self._key.release()
        self._digest_key.release()
        self._page.close()


class Sealer:
    """Seals a long text in parts, each of which may leave as soon as it is sealed."""

    def __init__(self, key: memoryview, associated: bytes) -> None:
        self.start = os.urandom(_NONCE_BYTES)  # what stands before the first part
        self._cipher = Cipher(algorithms.AES(key), modes.GCM(self.start)).encryptor()
        self._cipher.authenticate_additional_data(associated)

    def add(self, text: bytes) -> bytes:
        """The next part, sealed."""
        return self._cipher.update(text)

    def end(self) -> bytes:
        """What stands behind the last part."""
        return self._cipher.finalize() + self._cipher.tag


class Opener:
    """Opens what is sealed in parts; nothing of it may be believed before `end`."""

    def __init__(self, key: memoryview, sealed: bytes | memoryview, associated: bytes) -> None:
        view = memoryview(sealed)
        if len(view) < _NONCE_BYTES + _TAG_BYTES:
            raise BadSeal("what is sealed is cut short")
        nonce, tag = bytes(view[:_NONCE_BYTES]), bytes(view[-_TAG_BYTES:])
        self._sealed = view[_NONCE_BYTES:-_TAG_BYTES]
        self._cipher = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
        self._cipher.authenticate_additional_data(associated)

    def parts(self, size: int) -> Iterator[bytes]:
        """The text, in pieces of `size` bytes."""
        for begin in range(0, len(self._sealed), size):
            yield self._cipher.update(self._sealed[begin : begin + size])

    def end(self) -> None:
        """Raise `BadSeal` if a byte was changed."""
        try:
            self._cipher.finalize()
        except InvalidTag:
            raise BadSeal("what is sealed was changed") from None


def _buffer_for(sealed: bytes) -> bytearray:
    return bytearray(max(0, len(sealed) - _NONCE_BYTES - _TAG_BYTES))


def _open_into(seed: bytearray, cipher: AESGCM, sealed: bytes, associated: bytes) -> None:
    try:
        cipher.decrypt_into(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated, seed)
    except (InvalidTag, ValueError):
        raise BadSeal("a sealed seed of the state was changed") from None

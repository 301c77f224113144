"""The master key, which seals everything in the state: AES-256-GCM.

RSA-OAEP wraps it for a host's key, as it seals a seed, but with a label: neither can pass for the other.
"""

import contextlib
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pki2fad.crypto.memory import LockedPage, Wiping, wipe
from pki2fad.crypto.rsakeys import PrivateKey, PublicKey
from pki2fad.crypto.sealing import oaep
from pki2fad.errors import BadSeal, UnusableKey

_MASTER_LABEL = b"pki2fad master key"
_DIGEST_KEY = b"pki2fad digest key"
_MASTER_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16


class MasterKey:
    """The key that seals every seed of the state, in a locked page until `close`.

    It is a context manager, which closes it.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._page = LockedPage()
        self._key = self._page.buffer[:_MASTER_BYTES]
        self._key[:] = os.urandom(_MASTER_BYTES) if key is None else key
        # Digests outlive the master key: their key stays when the master key is replaced.
        self._digest_key = self._page.buffer[_MASTER_BYTES : 2 * _MASTER_BYTES]
        self._digest_key[:] = self._key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @classmethod
    def unwrap(cls, private: PrivateKey, wrapped: bytes) -> "MasterKey":
        """Open a wrapped master key. Raises `UnusableKey` if it was wrapped for another key."""
        try:
            return cls(private.decrypt(wrapped, oaep(_MASTER_LABEL)))
        except ValueError:
            raise UnusableKey("the master key does not open with this key") from None

    def wrap(self, public: PublicKey) -> bytes:
        """The master key, sealed to a host's key."""
        return public.encrypt(bytes(self._key), oaep(_MASTER_LABEL))

    def is_same(self, other: "MasterKey") -> bool:
        """True if both are the same key."""
        return hmac.compare_digest(self._key, other._key)  # noqa: SLF001 - of this class

    def adopt_digests(self, earlier: "MasterKey") -> None:
        """Make the same digests as an earlier master key."""
        self._digest_key[:] = earlier._digest_key  # noqa: SLF001 - of this class

    def sealed_digest_key(self) -> bytes:
        """The key of the digests, sealed under the master key."""
        return self._seal(self._digest_key, _DIGEST_KEY)

    def open_digest_key(self, sealed: bytes) -> None:
        """Use the key of the digests from `sealed_digest_key`. Raises `BadSeal`."""
        with self.opened(sealed, _DIGEST_KEY) as key:
            self._digest_key[:] = key

    @property
    def locked(self) -> bool:
        """False if the system granted no memory that is never swapped."""
        return self._page.locked

    def seal(self, seed: bytearray, associated: bytes) -> bytes:
        """Nonce and ciphertext of a seed, bound to `associated`."""
        return self._seal(seed, associated)

    def _seal(self, data: bytearray | memoryview, associated: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, data, associated)

    def opened(self, sealed: bytes, associated: bytes) -> Wiping:
        """The seed, in a buffer that is wiped at the end.

        Raises `BadSeal` if a byte of either argument was changed. The cipher is made anew each time (1 us),
        so that its key schedule is in ordinary memory no longer than the seed.
        """
        seed = _buffer_for(sealed)
        try:
            _open_into(seed, AESGCM(self._key), sealed, associated)
        except BaseException:
            wipe(seed)
            raise
        return Wiping(seed)

    def sealer(self, associated: bytes) -> "Sealer":
        """Do what `seal` does, for a text that comes in parts."""
        return Sealer(self._key, associated)

    def opener(self, sealed: bytes | memoryview, associated: bytes) -> "Opener":
        """Open sealed bytes in parts, so that others have their turn. Raises `BadSeal`."""
        return Opener(self._key, sealed, associated)

    @contextlib.contextmanager
    def checking(self) -> Iterator[Callable[[bytes, bytes], None]]:
        """A function that raises `BadSeal` if `opened` would, in half the time: for all seeds of a state.

        All seeds share one cipher. Seeds of one length share a buffer, in which each overwrites the one
        before. Both are wiped at the end, the cipher by OpenSSL.
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
        """16 bytes that are the same for the same seed, and tell nothing without the key."""
        keyed = hashlib.blake2b(digest_size=16, key=self._digest_key, person=b"pki2fad seed")
        keyed.update(len(associated).to_bytes(4, "big") + associated)
        keyed.update(seed)
        return keyed.digest()

    def close(self) -> None:
        """Wipe the key."""
        self._key.release()
        self._digest_key.release()
        self._page.close()


class Sealer:
    """Seals a long text in parts. Each may leave as soon as it is sealed."""

    def __init__(self, key: memoryview, associated: bytes) -> None:
        self.start = os.urandom(_NONCE_BYTES)  # goes before the first part
        self._cipher = Cipher(algorithms.AES(key), modes.GCM(self.start)).encryptor()
        self._cipher.authenticate_additional_data(associated)

    def add(self, text: bytes) -> bytes:
        """The next part, sealed."""
        return self._cipher.update(text)

    def end(self) -> bytes:
        """The bytes that go after the last part."""
        return self._cipher.finalize() + self._cipher.tag


class Opener:
    """Opens sealed bytes in parts. Trust nothing of them before `end`."""

    def __init__(self, key: memoryview, sealed: bytes | memoryview, associated: bytes) -> None:
        view = memoryview(sealed)
        if len(view) < _NONCE_BYTES + _TAG_BYTES:
            raise BadSeal("the sealed data is cut short")
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
            raise BadSeal("the sealed data was changed") from None


def _buffer_for(sealed: bytes) -> bytearray:
    return bytearray(max(0, len(sealed) - _NONCE_BYTES - _TAG_BYTES))


def _open_into(seed: bytearray, cipher: AESGCM, sealed: bytes, associated: bytes) -> None:
    try:
        cipher.decrypt_into(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], associated, seed)
    except (InvalidTag, ValueError):
        raise BadSeal("what is sealed in the state was changed") from None

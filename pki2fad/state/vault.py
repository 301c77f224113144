"""The keys, while they are unlocked: the host's private key here, the master key in the keyring."""

import contextlib
import math
from collections.abc import Callable
from functools import partial

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import (
    BadRequest,
    BadSeal,
    Locked,
    Pki2fadError,
    ProtectedKey,
    Refusal,
    Unavailable,
    UnusableKey,
    UnusablePath,
    UnusableState,
    WrongPassphrase,
)
from pki2fad.host import files, log
from pki2fad.rules.changes import KeyEdit, Rotation, Shred, Steps
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.pieces import Pieces
from pki2fad.state import hostkey
from pki2fad.state.database import damaged
from pki2fad.state.leases import safe_time
from pki2fad.state.store import Store
from pki2fad.transfer import backup, batch

# Keys that one backup is for: each costs a public operation, and its slot is in the backup.
_RECIPIENTS = 16

# With a new state, files of seeds.d older than this (seconds) may be of accounts whose codes were used under
# an old state; younger ones were made just now, for this start.
_SEED_FILE_IS_NEW = 120

_RENEWED_AT_START = "; the key is a copy of systemd's, which is renewed at a restart"


class Vault:
    """Opens the state with the host's key, and closes it again.

    `path` is the private key's file, which `key_group` may read. `oldest_seed` is the Unix time of the oldest
    file in `seeds.d`. `unlocked` is called after `unlock`.
    """

    def __init__(
        self,
        keyring: Keyring,
        store: Store,
        path: str,
        key_group: int | None = None,
        *,
        oldest_seed: float = math.inf,
        unlocked: Callable[[], None] = lambda: None,
    ) -> None:
        self._keyring = keyring
        self._store = store
        self._path = path
        self._key_group = key_group
        self._oldest_seed = oldest_seed
        self._unlocked = unlocked
        self._privates: list[PrivateKey] = []  # the host's; two while it is rotated, the new one first

    def open(self, private: PrivateKey) -> Steps[None]:
        """Open the state with the host's key; a new state is sealed to it.

        Raises `UnusableState`.
        """
        yield from self._opened(private, self._keyring.version)

    def _opened(self, private: PrivateKey, version: int) -> Steps[None]:
        """Open the state. Raises `Unavailable` if the keyring was locked or changed since this `version`."""
        try:
            master = yield from self._master_key(private)
            try:
                yield from self._keyring.checked(master)
                if self._keyring.version != version:
                    raise Unavailable("the daemon was locked meanwhile; try again", 1)
            except BaseException:
                master.close()
                raise
        except BadSeal as error:
            self.close()
            raise damaged(self._store.path, error) from None
        self._keyring.unlock(master)
        self._privates = [private]
        if not master.locked:
            log.warning("not_locked", reason="no memory could be locked; the master key may be swapped")

    def close(self) -> None:
        """Lock: no key and no code stays in memory."""
        self._privates = []
        self._keyring.lock()

    def unlock(self, passphrase: str | None) -> Steps[None]:
        """Read the host's key and open the state, for a peer: what goes wrong is a `Refusal`."""
        secret = None if passphrase is None else passphrase.encode("utf-8", "surrogateescape")
        version = self._keyring.version
        try:
            # To derive the key of a protected file takes long.
            private = yield partial(
                hostkey.read, self._path, self._store.path, secret, key_group=self._key_group
            )
            yield from self._opened(private, version)
        except ProtectedKey:
            raise Locked("the host's key is protected: its passphrase is needed") from None
        except WrongPassphrase:
            raise BadRequest("the passphrase does not open the host's key") from None
        except Refusal:
            raise
        except Pki2fadError as error:
            raise Unavailable(f"the daemon stays locked: {error}") from None
        self._unlocked()

    def is_cheap(self) -> bool:
        """True if the host's key, as its file is now, has a passphrase of which a guess costs little."""
        try:
            return rsakeys.is_cheap(files.read(self._path), self._path)
        except (UnusablePath, UnusableKey):
            return False

    def new_seed(self) -> bytearray:
        """A random seed."""
        return sealing.new_seed()

    def open_sealed(self, sealed: bytes) -> bytearray:
        """The seed in a sealed seed. Raises `BadSeal`."""
        # The key that is in use comes last: what its refusal says is of it.
        for private in self._privates[1:]:
            with contextlib.suppress(BadSeal):
                return sealing.open_seed(private, sealed)
        return sealing.open_seed(self._privates[0], sealed)

    def rotate(self, pem: bytes) -> Steps[str]:
        """Take up another host key with a new master key; returns the key's fingerprint.

        The key that was in use goes on opening the state until `finish_rotation`: whichever of both
        is in the key's file at a start will do. Raises `BadRequest` for what is no such key.
        """
        old = self._privates[-1].public_key()
        try:
            private = yield partial(sealing.load_new_private, pem, "the new key")
        except UnusableKey as error:
            raise BadRequest(str(error)) from None
        new = private.public_key()
        fingerprint = rsakeys.fingerprint(new)
        if fingerprint == rsakeys.fingerprint(old):
            raise BadRequest("this is the key that is in use already")
        master = MasterKey()
        try:
            master.adopt_digests(self._keyring.master)
            resealed = yield from self._keyring.all_resealed(master)
            slots = {rsakeys.fingerprint(key): master.wrap(key) for key in (old, new)}
            yield Rotation(master, slots, resealed, master.sealed_digest_key())
        except BaseException:
            master.close()
            raise
        if not self._keyring.locked:  # meanwhile: either key opens the state then
            self._privates = [private, self._privates[-1]]
            self._prove(private, fingerprint, self._keyring.master)
        return fingerprint

    def finish_rotation(self, fingerprint: str) -> Steps[list[str]]:
        """Let the host key in use, which this one has to be, alone open the state.

        Returns whose slots were dropped. Raises `BadRequest` if another key is in use.
        """
        private = self._privates[0]
        current = rsakeys.fingerprint(private.public_key())
        if fingerprint != current:
            raise BadRequest(f"the daemon uses {current}: it was started or unlocked with that key meanwhile")
        self._prove(private, fingerprint, self._keyring.master)
        slots = self._store.keyslots()
        dropped = [slot for slot in slots if slot != fingerprint]
        yield KeyEdit({fingerprint: slots[fingerprint]})
        del self._privates[1:]  # also if what follows fails
        yield Shred()
        return dropped

    def recipients(self) -> list[str]:
        """The fingerprints of the host keys that open the state, that in use first."""
        current = rsakeys.fingerprint(self._privates[0].public_key())
        return sorted(self._store.keyslots(), key=lambda slot: (slot != current, slot))

    def _prove(self, private: PrivateKey, fingerprint: str, master: MasterKey) -> None:
        """Read a slot back and open it. Raises `UnusableState` unless it holds this master key."""
        try:
            proven = MasterKey.unwrap(private, self._store.keyslots()[fingerprint])
        except (KeyError, UnusableKey):
            raise UnusableState(f"the slot of {fingerprint} in {self._store.path} does not open") from None
        with proven:
            if not proven.is_same(master):
                raise UnusableState(
                    f"the slot of {fingerprint} in {self._store.path} is of another master key"
                )

    def master_for(self, recipients: bytes) -> Pieces[tuple[MasterKey, dict[str, bytes]]]:
        """A new master key for a backup, and its slots for the public keys in a PEM text."""
        try:
            keys = rsakeys.load_publics(recipients, "the argument 'to'")
        except UnusableKey as error:
            raise BadRequest(str(error)) from None
        if len(keys) > _RECIPIENTS:
            raise BadRequest(f"a backup is for at most {_RECIPIENTS} keys, not {len(keys)}")
        master = MasterKey()
        slots = {}
        try:
            for key in keys:
                slots[rsakeys.fingerprint(key)] = master.wrap(key)
                yield
        except BaseException as error:
            master.close()
            if isinstance(error, ValueError):  # OpenSSL uses no key that is so large
                raise BadRequest(f"a key cannot be used: {error}") from None
            raise
        return master, slots

    def open_backup(self, data: bytearray) -> MasterKey:
        """The master key of a backup. Raises `BadSeal`."""
        private = self._privates[0]
        wrapped = backup.slot(data, rsakeys.fingerprint(private.public_key()))
        try:
            return MasterKey.unwrap(private, wrapped)
        except UnusableKey:
            raise BadSeal(backup.DAMAGED) from None

    def open_batch(self, data: bytes) -> MasterKey:
        """The key of a batch. Raises `BadSeal`."""
        wrapped = batch.wrapped_key(data)
        for private in self._privates:
            with contextlib.suppress(UnusableKey):
                return MasterKey.unwrap(private, wrapped)
        raise sealing.not_opened(self._privates[0])

    def _new_master_key(self, private: PrivateKey) -> Steps[MasterKey]:
        """That of a new state, which this host key opens from now on."""
        reading: Reading = yield None
        public, period = private.public_key(), Parameters().period
        fingerprint = rsakeys.fingerprint(public)
        was_in_use = self._oldest_seed < reading.wall - _SEED_FILE_IS_NEW
        floors = {period: safe_time(reading.wall, period)} if was_in_use else {}
        master = MasterKey()
        try:
            yield KeyEdit({fingerprint: master.wrap(public)}, floors)
            self._prove(private, fingerprint, master)
        except BaseException:
            master.close()
            raise
        self._keyring.raise_floors(floors)
        return master

    def _master_key(self, private: PrivateKey) -> Steps[MasterKey]:
        slots = self._store.keyslots()
        if not slots:
            return (yield from self._new_master_key(private))
        fingerprint = rsakeys.fingerprint(private.public_key())
        with contextlib.suppress(KeyError, UnusableKey):
            master = MasterKey.unwrap(private, slots[fingerprint])
            digest_key = self._store.digest_key()
            try:
                if digest_key is not None:
                    master.open_digest_key(digest_key)
            except BadSeal:
                master.close()
                raise
            return master
        raise UnusableState(
            f"the state file {self._store.path} is sealed to another key: {', '.join(slots)}; {self._path} is"
            f" {fingerprint}. It was left as it is; put that key back, or move the state away and restore a"
            " backup"
            f"{_RENEWED_AT_START if hostkey.is_credential(self._path) else ''}"
        )

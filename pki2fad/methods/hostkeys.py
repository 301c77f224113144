"""The host's keys, and the methods about them: lock, unlock, rotate, and who can open the state."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from pki2fad.methods.table import Arguments
from pki2fad.rules.access import Peer
from pki2fad.rules.changes import Answer, Steps, Work
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.pieces import Pieces

if TYPE_CHECKING:
    from pki2fad.crypto.masterkey import MasterKey


class Keys(Protocol):
    """The host's keys. The service has the real ones."""

    def open_sealed(self, sealed: bytes) -> bytearray:
        """The seed in a sealed seed. Raises `BadSeal`."""

    def new_seed(self) -> bytearray:
        """A random seed."""

    def unlock(self, passphrase: str | None) -> Steps[None]:
        """Load the keys into memory. Raises a `Refusal`."""

    def close(self) -> None:
        """Wipe the keys in memory."""

    def is_cheap(self) -> bool:
        """True if the host's key has a passphrase that is cheap to guess at."""

    def rotate(self, pem: bytes) -> Steps[str]:
        """Add another host key; returns its fingerprint."""

    def finish_rotation(self, fingerprint: str) -> Steps[list[str]]:
        """Let only this host key, which is in use, open the state; returns the fingerprints dropped.

        Raises `BadRequest` if another key is in use.
        """

    def recipients(self) -> list[str]:
        """The fingerprints of the host keys that open the state; the one in use comes first."""

    def master_for(self, recipients: bytes) -> "Pieces[tuple[MasterKey, dict[str, bytes]]]":
        """A new master key for a backup, and its slots for the public keys in a PEM text."""

    def open_backup(self, data: bytearray) -> "MasterKey":
        """The master key of a backup. Raises `BadSeal`."""

    def open_batch(self, data: bytes) -> "MasterKey":
        """The key of a batch. Raises `BadSeal`."""


class KeyMethods:
    """The methods for keys. `close` wipes the keys and codes in memory."""

    def __init__(self, keyring: Keyring, keys: Keys, close: Callable[[], None]) -> None:
        self._keyring = keyring
        self._keys = keys
        self._close = close

    def by_name(self) -> dict[str, Callable[[Arguments, Peer, Reading], Answer]]:
        """All of them, as the protocol calls them."""
        return {
            "lock": self.lock,
            "unlock": self.unlock,
            "rotate": self.rotate,
            "rotate_finish": self.rotate_finish,
            "recipients": self.recipients,
        }

    def lock(self, _args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Wipe the keys and codes in memory."""
        done = "unchanged" if self._keyring.locked else "locked"
        self._close()
        return Answer({"locked": True}, audit=done)

    def unlock(self, args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Load the keys into memory again."""

        def work() -> Work:
            if not self._keyring.locked:
                return Answer({"locked": False}, audit="unchanged")
            yield from self._keys.unlock(args.get("passphrase"))
            return Answer({"locked": False}, audit="unlocked")

        return Answer(work=work())

    def rotate(self, args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Add another host key to the one in use, with a new master key."""

        def work() -> Work:
            result = {"fingerprint": (yield from self._keys.rotate(args["private"]))}
            return Answer(result, audit="rotated", details=result)

        return Answer(work=work())

    def rotate_finish(self, args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Let only the host key in use open the state."""

        def work() -> Work:
            dropped = yield from self._keys.finish_rotation(args["fingerprint"])
            done = "dropped" if dropped else "unchanged"
            return Answer({"dropped": dropped}, audit=done, details={"dropped": " ".join(dropped)})

        return Answer(work=work())

    def recipients(self, _args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """The keys that open the state. It is work, since the state is read when no change is being kept."""

        def work() -> Work:
            first, *others = self._keys.recipients()
            slots = [{"fingerprint": first, "current": True}]
            return Answer([*slots, *({"fingerprint": other, "current": False} for other in others)])
            yield  # this is one piece

        return Answer(work=work())

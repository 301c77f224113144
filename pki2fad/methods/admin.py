"""The methods for administrators: load and remove accounts, lock, unlock and rotate keys.

A method changes no account itself: the `Edit` of its answer does, once it is kept and applied. `Keys` opens
and locks. `Bulk` has the methods that are about all accounts.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from pki2fad.crypto.memory import wipe
from pki2fad.errors import AccountExists, BadRequest, BadSeal
from pki2fad.rules.access import Peer
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import UNKNOWN, Successor
from pki2fad.rules.changes import PROMOTED, Answer, Edit, Steps, Work
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.pieces import Pieces
from pki2fad.times import moment
from pki2fad.transfer import batch
from pki2fad.transfer.entry import Entry
from pki2fad.transfer.restore import Upload

if TYPE_CHECKING:
    from pki2fad.crypto.masterkey import MasterKey

Arguments = dict[str, Any]

# Arguments that a batch of one account contains itself.
_SAID = ("account", "algorithm", "digits", "period")

_LAST_DEADLINE = 253_402_300_799  # the last second of the year 9999: later times have no date


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


class Admin:
    """The methods for one account, and for keys."""

    def __init__(
        self,
        keyring: Keyring,
        watch: Watch,
        keys: Keys,
    ) -> None:
        self._keyring = keyring
        self._watch = watch
        self._keys = keys
        self.upload = Upload()

    def load(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Load a sealed seed into an account."""
        deadline, cutover = args.get("deadline"), args.get("cutover", False)
        if args.get("successor", False):
            if cutover and deadline is None:
                raise BadRequest("a cutover needs a deadline")
            if deadline is not None and not reading.wall < deadline <= _LAST_DEADLINE:
                raise BadRequest("the deadline must be a Unix time after now and before the year 10000")
        elif cutover or deadline is not None:
            raise BadRequest("only a successor has a deadline or a cutover")
        given = {key: args[key] for key in _SAID if key in args}
        account = self._sealed_account(args["sealed"], given, reading)
        if args.get("successor", False):
            # A successor has no offset, but its seed may have left one behind.
            last_step = self._keyring.watermark(account)
            drift = UNKNOWN if last_step >= 0 else b""
            waiting = account.changed(last_step=last_step, drift=drift, offset=0)
            successor = Successor(waiting, deadline, cutover)
            return self._load_successor(successor, args.get("replace", False), reading)
        edit, done = self.edit_to_load(account, args.get("replace", False), reading)
        return Answer({"account": account.name, "changed": edit is not None}, change=edit, audit=done)

    def edit_to_load(self, account: Account, replace: bool, reading: Reading) -> tuple[Edit | None, str]:
        """The edit that gives an account this authenticator, None if it has it, and a word for the audit.

        Other authenticators stay. Raises `AccountExists`.
        """
        current = self._keyring.accounts.get(account.name)
        settled = current and current.settled(reading.wall)
        old = settled and settled.authenticator(account.label)
        if settled is not None and old is not None and old.is_like(account):
            if not replace or old.successor is None:
                return None, "unchanged"
            put = settled.replaced(old, old.changed(successor=None))
            return self._edit(account.name, put, current, reading), "dropped"
        if current is not None and not replace:
            raise AccountExists(f"account {account.name!r} has another seed or other parameters")
        return self._put(account, reading), "added" if current is None else "replaced"

    def _load_successor(self, successor: Successor, replace: bool, reading: Reading) -> Answer:
        """Load a seed that an authenticator gets later."""
        waiting = successor.authenticator
        current = self._keyring.account(waiting.name)
        settled = current.settled(reading.wall)
        followed = self._keyring.authenticator(settled, waiting.label)
        if waiting.digest in {one.digest for one in settled.authenticators}:
            raise BadRequest("the account has this seed already; a successor needs another one")
        known = followed.successor
        if known is not None and known.is_like(successor):
            return Answer({"account": current.name, "changed": False}, audit="unchanged")
        if known is not None and not replace:
            raise AccountExists(f"account {current.name!r} has a successor already")
        put = settled.replaced(followed, followed.changed(successor=successor))
        edit = self._edit(current.name, put, current, reading)
        result = {"account": current.name, "changed": True}
        deadline = successor.deadline and moment(successor.deadline)
        details = {"deadline": deadline, "cutover": successor.cutover}
        return Answer(result, change=edit, audit="successor", details=details)

    def due(self, reading: Reading) -> Iterator[tuple[Edit, str]]:
        """The edits for successors whose deadline has passed, and a word for the log.

        Each is made when it is asked for. The time must be believed: no seed is lost for good because the
        clock was wrong.
        """
        wall = self._watch.believed(reading.wall)
        for account in self._keyring.with_successor():
            put = account.settled(wall)
            if put is account or self._keyring.accounts.get(account.name) is not account:
                continue
            due = [one.successor for one in account.authenticators if not one.is_settled(wall)]
            what = [PROMOTED if successor and successor.cutover else "dropped" for successor in due]
            yield self._edit(account.name, put, account, reading), " ".join(what)

    def provision(self, name: str, sealed: bytes, file_digest: bytes, reading: Reading) -> Edit:
        """The edit for a file of `seeds.d`. Raises `BadSeal`, or `BadRequest` if it names another account."""
        return self._put(self._sealed_account(sealed, {"account": name}, reading), reading, file_digest)

    def remove(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Remove an account, or an enrolment. Its codes stay spent."""
        if self._keyring.enrolments.pop(args["account"], None) is not None:
            return Answer({"account": args["account"]}, audit="removed")
        account = self._keyring.account(args["account"])
        edit = self._edit(account.name, None, account, reading)
        return Answer({"account": account.name}, change=edit, audit="removed")

    def close(self) -> None:
        """Wipe the keys and codes in memory."""
        self.upload.drop()
        self._keys.close()

    def lock(self, _args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Wipe the keys and codes in memory."""
        done = "unchanged" if self._keyring.locked else "locked"
        self.close()
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

    def _sealed_account(self, sealed: bytes, given: Arguments, reading: Reading) -> Account:
        """The account of a sealed seed. `given` are those arguments of `_SAID` that the request has.

        A batch of one account contains all of them. Raises `BadSeal`, and `BadRequest` if an argument is
        wrong or contradicts the batch.
        """
        if batch.is_batch(sealed):
            return self._account_of_batch(sealed, given, reading)
        name, parameters = given["account"], {key: given[key] for key in given if key != "account"}
        try:
            of = Parameters(**parameters)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        seed = self._keys.open_sealed(sealed)
        try:
            return self._keyring.seal(name, seed, of, made=int(reading.wall))
        finally:
            wipe(seed)

    def _account_of_batch(self, sealed: bytes, given: Arguments, reading: Reading) -> Account:
        with self._keys.open_batch(sealed) as master:
            entries = batch.unpack(sealed, master)
            if len(entries) != 1:
                raise BadRequest(
                    f"this is a batch of {len(entries)} accounts; load it with: pki2factl load-batch FILE"
                )
            entry = entries[0]
            for key, said in {"account": entry.name, **entry.parameters.fields}.items():
                if given.get(key, said) != said:
                    raise BadRequest(
                        f"the sealed seed is for {key} {said}, not {given[key]};"
                        f" seal it again with --{key} {given[key]}"
                    )
            return self.sealed_elsewhere(entry, master, reading)

    def sealed_elsewhere(self, entry: Entry, master: "MasterKey", reading: Reading) -> Account:
        """The account of an entry of a batch or a backup, with this master key. Raises `BadSeal`."""
        try:
            opened = master.opened(entry.sealed, entry.associated)
        except BadSeal:
            raise BadSeal(f"the seed of account {entry.name!r} is damaged") from None
        with opened as seed:
            return self._keyring.seal(entry.name, seed, entry.parameters, made=int(reading.wall))

    def _put(self, account: Account, reading: Reading, file_digest: bytes | None = None) -> Edit:
        """The edit that gives an account this authenticator. Others stay."""
        current = self._keyring.accounts.get(account.name)
        settled = current and current.settled(reading.wall)
        put = account
        if settled is not None:
            old = settled.authenticator(account.label)
            is_same = old is not None and old.is_like(account)  # the live authenticator stays
            put = settled if is_same else settled.with_authenticator(account)
        return self._edit(account.name, put, current, reading, file_digest)

    def _edit(
        self,
        name: str,
        put: Account | None,
        current: Account | None,
        reading: Reading,
        file_digest: bytes | None = None,
    ) -> Edit:
        gone = self._keyring.ended(current, put)
        return Edit(name, self._watch.believed(reading.wall), put, gone, file_digest)

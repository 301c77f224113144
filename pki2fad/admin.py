"""What administrators do: load and remove accounts, bring the clock back into step.

Each method is one of the protocol. It changes no account itself: the `Edit` of its answer does, once it
is kept and applied. What opens and locks is done by `Keys`, at once.
"""

from typing import TYPE_CHECKING, Any, Protocol

from pki2fad import backup, batch, otp, restore
from pki2fad.access import Peer
from pki2fad.account import UNKNOWN, Account, Successor
from pki2fad.backup import Content, Record
from pki2fad.changes import Answer, ClockEdit, Edit, Edits, in_the_way, listed, take_up_watermarks
from pki2fad.clock import Reading, Watch
from pki2fad.errors import AccountExists, BadRequest
from pki2fad.keyring import Keyring
from pki2fad.memory import wipe
from pki2fad.otp import Parameters
from pki2fad.restore import Upload
from pki2fad.times import moment

if TYPE_CHECKING:
    from pki2fad.envelope import MasterKey

Arguments = dict[str, Any]

# A code that is accepted may be of so many steps before the one that the clock shows: the window, a step
# before it with the same code, and a prover that is behind.
_STEPS_BEFORE = otp.WINDOW + 1 + otp.MAX_OFFSET

# What a batch of one account says itself, and of any other sealed seed the arguments say.
_SAID = ("account", "algorithm", "digits", "period")

_NAMES_LOGGED = 200  # in one line: the journal cuts lines at 48 KiB

_LAST_DEADLINE = 253_402_300_799  # the last second of the year 9999: what comes after has no date


class Keys(Protocol):
    """What opens and locks; the service has the real ones."""

    def open_sealed(self, sealed: bytes) -> bytearray:
        """The seed in a sealed seed. Raises `BadSeal`."""

    def new_seed(self) -> bytearray:
        """A random seed."""

    def unlock(self, passphrase: str | None) -> None:
        """Take the keys into memory. Raises a `Refusal`."""

    def close(self) -> None:
        """Let no key stay in memory."""

    def is_cheap(self) -> bool:
        """True if the host's key has a passphrase of which a guess costs little."""

    def rotate(self, pem: bytes) -> str:
        """Take up another host key; returns its fingerprint."""

    def finish_rotation(self, fingerprint: str) -> list[str]:
        """Let this host key, which is in use, alone open the state; returns the fingerprints of the others.

        Raises `BadRequest` if another one is in use.
        """

    def recipients(self) -> list[str]:
        """The fingerprints of the host keys that open the state, that in use first."""

    def master_for(self, recipients: bytes) -> "tuple[MasterKey, dict[str, bytes]]":
        """A new master key for a backup, and its slots for the public keys in a PEM text."""

    def open_backup(self, data: bytes) -> "MasterKey":
        """The master key of a backup. Raises `BadSeal`."""

    def open_batch(self, data: bytes) -> "MasterKey":
        """The key of a batch. Raises `BadSeal`."""


class Admin:
    """The administrator's methods."""

    def __init__(
        self,
        keyring: Keyring,
        watch: Watch,
        keys: Keys,
    ) -> None:
        self._keyring = keyring
        self._watch = watch
        self._keys = keys
        self._upload = Upload()

    def load(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """An account for a sealed seed."""
        deadline, cutover = args.get("deadline"), args.get("cutover", False)
        if args.get("successor", False):
            if cutover and deadline is None:
                raise BadRequest("a cutover needs a deadline")
            if deadline is not None and not reading.wall < deadline <= _LAST_DEADLINE:
                raise BadRequest("the deadline has to be a Unix time after now and before the year 10000")
        elif cutover or deadline is not None:
            raise BadRequest("a deadline and a cutover are for a successor alone")
        account = self._sealed_account(args["sealed"], {key: args[key] for key in _SAID if key in args})
        if args.get("successor", False):
            # A successor has no offset; the seed may be one that is going, and have one still.
            account = account.moved(0, self._keyring.watermark(account))
            account.drift = UNKNOWN if account.last_step >= 0 else b""
            successor = Successor(account, deadline, cutover)
            return self._load_successor(successor, args.get("replace", False), reading)
        edit, done = self._edit_to_load(account, args.get("replace", False), reading)
        return Answer({"account": account.name, "changed": edit is not None}, change=edit, audit=done)

    def load_batch(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Accounts for all seeds of a batch, or none."""
        with self._keys.open_batch(args["batch"]) as master:
            accounts = [
                self._keyring.sealed_elsewhere(entry.name, entry.sealed, entry.parameters, master)
                for entry in batch.unpack(args["batch"], master)
            ]
        done: dict[str, list[str]] = {}
        edits, others = [], []
        for account in accounts:
            try:
                edit, what = self._edit_to_load(account, args.get("replace", False), reading)
            except AccountExists:
                others.append(account.name)
                continue
            if edit is not None:
                edits.append(edit)
                done.setdefault(what, []).append(account.name)
        if others:
            raise in_the_way(others)
        take_up_watermarks(edits)
        return Answer(
            {"accounts": len(accounts), "changed": [edit.account for edit in edits]},
            change=Edits(tuple(edits)) if edits else None,
            audit="loaded" if edits else "unchanged",
            details={
                "accounts": len(accounts),
                **{what: listed(names, _NAMES_LOGGED) for what, names in done.items()},
            },
        )

    def _edit_to_load(self, account: Account, replace: bool, reading: Reading) -> tuple[Edit | None, str]:
        """The edit that gives an account this seed, None if it has it already, and a word for what is done.

        Raises `AccountExists`.
        """
        current = self._keyring.accounts.get(account.name)
        settled = current and current.settled(reading.wall)
        if settled is not None and settled.is_like(account):
            if not replace or settled.successor is None:
                return None, "unchanged"
            return self._edit(account.name, settled.with_successor(None), current, reading), "dropped"
        if current is not None and not replace:
            raise AccountExists(f"account {account.name!r} has another seed or other parameters")
        return self._put(account, reading), "added" if current is None else "replaced"

    def _load_successor(self, successor: Successor, replace: bool, reading: Reading) -> Answer:
        """A seed that the account gets later."""
        current = self._keyring.account(successor.account.name)
        settled = current.settled(reading.wall)
        if settled.digest == successor.account.digest:
            raise BadRequest("the account has this seed already; a successor needs another one")
        known = settled.successor
        if known is not None and known.is_like(successor):
            return Answer({"account": current.name, "changed": False}, audit="unchanged")
        if known is not None and not replace:
            raise AccountExists(f"account {current.name!r} has a successor already")
        gone = None if current.successor is None else current
        edit = self._edit(current.name, settled.with_successor(successor), gone, reading)
        result = {"account": current.name, "changed": True}
        deadline = successor.deadline and moment(successor.deadline)
        details = {"deadline": deadline, "cutover": successor.cutover}
        return Answer(result, change=edit, audit="successor", details=details)

    def due(self, reading: Reading) -> list[Edit]:
        """The edits that make permanent what deadlines did.

        Only once the time is believed: what was the wrong time takes no seed away for good.
        """
        wall = self._watch.believed(reading.wall)
        waiting = [account for account in self._keyring.accounts.values() if account.successor is not None]
        settled = [(account, account.settled(wall)) for account in waiting]
        return [self._edit(one.name, put, one, reading) for one, put in settled if put is not one]

    def provision(self, name: str, sealed: bytes, file_digest: bytes, reading: Reading) -> Edit:
        """The edit that a file of `seeds.d` asks for. Raises `BadSeal`, and `BadRequest` for another's."""
        return self._put(self._sealed_account(sealed, {"account": name}), reading, file_digest)

    def remove(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Take an account away, or one that waits for its first code; its codes stay spent."""
        if self._keyring.enrolments.pop(args["account"], None) is not None:
            return Answer({"account": args["account"]}, audit="removed")
        account = self._keyring.account(args["account"])
        edit = self._edit(account.name, None, account, reading)
        return Answer({"account": account.name}, change=edit, audit="removed")

    def clock_accept(self, _args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """The wall clock is right now: what was spent while it was ahead comes down to its window."""
        wall, ends = reading.wall, self._beyond(reading.wall)
        spent = None
        if ends:
            slack, ahead = _STEPS_BEFORE * self._longest_period(), self._watch.first_ahead(wall)
            until, since = max(ends), wall - slack if ahead is None else ahead - slack
            # Without a record of when the clock was there, it may have been at any time.
            spent = (since if since < until else wall - slack, float(until))
        data = {
            "time": int(wall),
            "spent_from": spent and int(max(wall, spent[0])),
            "spent_until": spent and int(spent[1]),
        }
        stays = {name: value and moment(value) for name, value in data.items() if name != "time"}
        details = {"accepted_time": moment(wall), **stays}
        return Answer(data, change=ClockEdit(wall, spent), audit="accepted", details=details)

    def backup(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """All accounts as they are now, for whoever has one of these keys."""
        master, slots = self._keys.master_for(args["to"])
        with master:
            settled = [account.settled(reading.wall) for account in self._keyring.accounts.values()]
            records = [self._record(account, master) for account in settled]
            content = Content(int(reading.wall), records, self._keyring.floors, self._watch.spent)
            data = backup.pack(content, slots, master)
        if len(data) > backup.MADE_LIMIT:
            raise BadRequest(f"there are too many accounts for a backup: {len(records)}")
        details = {"accounts": len(records), "to": " ".join(slots)}
        return Answer({"backup": data, "accounts": len(records)}, audit="copied", details=details)

    def restore(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Take a part of a backup; with the last one, take its accounts."""
        received = self._upload.add(args["upload"], args["offset"], args["part"])
        if not args.get("last", False):
            return Answer({"received": received}, quiet=True)
        data = self._upload.take()
        with self._keys.open_backup(data) as master:
            content = backup.unpack(data, master)
            change = restore.plan(
                content, master, self._keyring, self._watch, reading, replace=args.get("replace", False)
            )
        changed = [edit.account for edit in change.edits]
        result = {"accounts": len(content.records), "changed": changed}
        details = {"accounts": len(content.records), "changed": listed(changed, _NAMES_LOGGED)}
        return Answer(result, change=change, audit="restored", details=details)

    def close(self) -> None:
        """Let no key and no code stay in memory."""
        self._upload.drop()
        self._keys.close()

    def lock(self, _args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Let no key and no code stay in memory."""
        done = "unchanged" if self._keyring.locked else "locked"
        self.close()
        return Answer({"locked": True}, audit=done)

    def unlock(self, args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Take the keys into memory again."""
        if not self._keyring.locked:
            return Answer({"locked": False}, audit="unchanged")
        self._keys.unlock(args.get("passphrase"))
        return Answer({"locked": False}, audit="unlocked")

    def rotate(self, args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Take up another host key beside the one in use, with a new master key."""
        result = {"fingerprint": self._keys.rotate(args["private"])}
        return Answer(result, audit="rotated", details=result)

    def rotate_finish(self, args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Let the host key that is in use alone open the state."""
        dropped = self._keys.finish_rotation(args["fingerprint"])
        done = "dropped" if dropped else "unchanged"
        return Answer({"dropped": dropped}, audit=done, details={"dropped": " ".join(dropped)})

    def recipients(self, _args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Who can open the state."""
        first, *others = self._keys.recipients()
        slots = [{"fingerprint": first, "current": True}]
        return Answer([*slots, *({"fingerprint": other, "current": False} for other in others)])

    def _record(self, account: Account, master: "MasterKey") -> Record:
        return Record(
            account.name,
            account.parameters,
            self._keyring.resealed(account, master),
            account.last_step,
            account.offset,
            account.drift,
        )

    def _sealed_account(self, sealed: bytes, given: Arguments) -> Account:
        """The account of a sealed seed, of which these of `_SAID` were given.

        A batch of one account says all of them itself. Raises `BadSeal`, and `BadRequest` for what is given
        and is wrong or contradicts the batch.
        """
        if batch.is_batch(sealed):
            return self._account_of_batch(sealed, given)
        name, parameters = given["account"], {key: given[key] for key in given if key != "account"}
        try:
            made = Parameters(**parameters)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        seed = self._keys.open_sealed(sealed)
        try:
            return self._keyring.seal(name, seed, made)
        finally:
            wipe(seed)

    def _account_of_batch(self, sealed: bytes, given: Arguments) -> Account:
        with self._keys.open_batch(sealed) as master:
            entries = batch.unpack(sealed, master)
            if len(entries) != 1:
                raise BadRequest(f"this is a batch of {len(entries)} accounts, which load_batch loads")
            entry = entries[0]
            for key, said in {"account": entry.name, **entry.parameters.fields}.items():
                if given.get(key, said) != said:
                    raise BadRequest(f"the sealed seed is of {key} {said}, and {given[key]} was given")
            return self._keyring.sealed_elsewhere(entry.name, entry.sealed, entry.parameters, master)

    def _put(self, account: Account, reading: Reading, file_digest: bytes | None = None) -> Edit:
        current = self._keyring.accounts.get(account.name)
        settled = current and current.settled(reading.wall)
        if settled is not None and settled.is_like(account):
            account = settled  # the same seed: the live account stays, and nothing is taken away
        elif current is not None:
            account.tally = current.tally  # another seed gives who guesses no new budget
        gone = None if account is current else current
        return self._edit(account.name, account, gone, reading, file_digest)

    def _edit(
        self,
        name: str,
        put: Account | None,
        gone: Account | None,
        reading: Reading,
        file_digest: bytes | None = None,
    ) -> Edit:
        leaving = None if gone is None else self._keyring.leaving(gone)
        return Edit(name, self._watch.believed(reading.wall), put, leaving, file_digest)

    def _beyond(self, wall: float) -> list[float]:
        """The ends of what is spent beyond this time's window, and so would come down to its end."""
        keyring = self._keyring
        ends = [self._watch.forgotten]
        ends += [floor for period, floor in keyring.floors.items() if floor > otp.window_end(wall, period)]
        for seed in self._keyring.seeds():
            step, period = keyring.watermark(seed), seed.parameters.period
            if step > otp.step_at(wall, period) + otp.WINDOW + seed.offset:
                ends.append((step + 1 - min(seed.offset, 0)) * period)  # the code of one behind comes late
        for step, period in keyring.gone.values():
            if step > otp.step_at(wall, period) + otp.WINDOW + otp.MAX_OFFSET:
                ends.append((step + 1) * period)
        return [end for end in ends if end > wall]

    def _longest_period(self) -> int:
        periods = [seed.parameters.period for seed in self._keyring.seeds()]
        periods += [period for _, period in self._keyring.gone.values()]
        return max([*periods, *self._keyring.floors], default=otp.LONGEST_PERIOD)

"""The methods for administrators that are about many accounts: batches, backups, restores, and the clock.

Each method gives a `Work`, so that other requests have their turn between its pieces. Seeds are opened and
sealed first, which takes longest. Then the accounts are held: their watermarks do not move while the change
is planned, kept and applied.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pki2fad.errors import AccountExists
from pki2fad.methods.admin import Admin
from pki2fad.methods.hostkeys import Keys
from pki2fad.methods.sealed import SealedSeeds
from pki2fad.methods.table import Arguments
from pki2fad.rules import otp
from pki2fad.rules.access import Peer
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import Authenticator
from pki2fad.rules.changes import (
    Answer,
    ClockEdit,
    Edit,
    Edits,
    Work,
    in_the_way,
    listed,
    take_up_watermarks,
)
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.pieces import Pieces, in_pieces, let_go
from pki2fad.times import moment
from pki2fad.transfer import backup, batch, entry, restore
from pki2fad.transfer.content import Content, Record
from pki2fad.transfer.entry import Entry, version_for
from pki2fad.wire import messages
from pki2fad.wire.messages import Encoded

if TYPE_CHECKING:
    from pki2fad.crypto.masterkey import MasterKey

# How many steps an accepted code may be behind the clock: the window, a step before it with the same code,
# and a prover that is behind.
_STEPS_BEFORE = otp.WINDOW + 1 + otp.MAX_OFFSET

_NAMES_LOGGED = 200  # in one line: the journal cuts lines at 48 KiB


class _Everything:
    """A container of every name."""

    def __contains__(self, _name: object) -> bool:
        return True


class Bulk:
    """The methods for many accounts."""

    def __init__(self, keyring: Keyring, watch: Watch, keys: Keys, admin: Admin) -> None:
        self._keyring = keyring
        self._watch = watch
        self._keys = keys
        self._admin = admin
        self._seeds = SealedSeeds(keyring, keys)

    def load_batch(self, args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Load all seeds of a batch, or none."""
        return Answer(work=self._load_batch(args["batch"], replace=args.get("replace", False)))

    def _load_batch(self, data: bytes, *, replace: bool) -> Work:
        with self._keys.open_batch(data) as master:
            made = int((yield None).wall)
            accounts = yield from self._sealed_here(batch.unpack(data, master), master, made)
        with self._keyring.holds.held({account.name for account in accounts}):
            reading = yield None
            edits, done = self._edits_to_load(accounts, reading, replace=replace)
            yield from take_up_watermarks(edits)
            if edits:
                yield Edits(edits)
        count = len({account.name for account in accounts})
        return Answer(
            {"accounts": count, "changed": [edit.account for edit in edits]},
            audit="loaded" if edits else "unchanged",
            details={
                "accounts": count,
                **{what: listed([*names], _NAMES_LOGGED) for what, names in done.items()},
            },
        )

    def _edits_to_load(
        self, accounts: Iterable[Account], reading: Reading, *, replace: bool
    ) -> tuple[list[Edit], dict[str, dict[str, None]]]:
        """The edits of a batch, and the names of their accounts by what is done: so few that it is one piece.

        Raises `AccountExists`.
        """
        edits: dict[str, Edit] = {}  # one for all authenticators of an account
        done: dict[str, dict[str, None]] = {}
        others: dict[str, None] = {}
        for account in accounts:
            self._keyring.take_up(account)
            before = edits.get(account.name)
            try:
                edit, what = self._admin.edit_to_load(account, replace, reading, before and before.put)
            except AccountExists:
                others[account.name] = None
                continue
            if edit is not None:
                edits[account.name] = edit
                done.setdefault(what, {})[account.name] = None
        if others:
            raise in_the_way([*others])
        return [*edits.values()], done

    def backup(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Back up all accounts as they are now, for the owners of these keys."""
        return Answer(work=self._backup(args["to"], reading))

    def _backup(self, to: bytes, reading: Reading) -> Work:
        master, slots = yield from self._keys.master_for(to)
        accounts = [*self._keyring.accounts.values()]
        with master:
            version = yield from self._version_for(accounts, reading.wall)
            content = Content(int(reading.wall), [], self._keyring.floors, self._watch.spent, version)
            records = (
                self._record(one, master, version)
                for account in accounts
                for one in account.settled(reading.wall).authenticators
            )
            parts = yield from backup.pack(content, slots, master, records)
        size = sum(map(len, parts))
        start = messages.encode_map_start(2) + messages.encode("backup") + messages.encode_bytes_start(size)
        end = messages.encode("accounts") + messages.encode(len(accounts))
        details = {"accounts": len(accounts), "to": " ".join(slots)}
        return Answer(Encoded([start, *parts, end]), audit="copied", details=details)

    def restore(self, args: Arguments, _peer: Peer, reading: Reading) -> Answer:
        """Take a part of a backup; with the last part, restore its accounts."""
        received = self._admin.upload.add(args["upload"], args["offset"], args["part"], reading)
        if not args.get("last", False):
            return Answer({"received": received}, quiet=True)
        return Answer(work=self._restore(args["upload"], reading, replace=args.get("replace", False)))

    def _restore(self, upload: str, reading: Reading, *, replace: bool) -> Work:
        data = self._admin.upload.take(upload)
        try:
            return (yield from self._restore_all(data, reading, replace=replace))
        finally:
            self._admin.upload.end()

    def _restore_all(self, data: bytearray, reading: Reading, *, replace: bool) -> Work:
        with self._keys.open_backup(data) as master:
            content = yield from backup.unpack(data, master)
            restore.check_time(content, reading)
            accounts = yield from self._sealed_here(content.records, master, 0)
        names = {account.name for account in accounts}
        with self._keyring.holds.held(names):
            reading = yield None
            plan = restore.Plan(content, self._keyring, self._watch, reading)
            change = yield from plan.edits(accounts, replace=replace)
            yield change
        changed = [edit.account for edit in change.edits]
        result: dict[str, Any] = {"accounts": len(names), "changed": changed}
        if plan.lost:
            result["inactive"] = [{"account": name, "label": label} for name, label in plan.lost]
        details = {"accounts": len(names), "changed": listed(changed, _NAMES_LOGGED)}
        for used in (content.records, accounts, change.edits):
            yield from let_go(used)
        return Answer(result, audit="restored", details=details)

    def clock_accept(self, _args: Arguments, _peer: Peer, _reading: Reading) -> Answer:
        """Accept the wall clock as right: watermarks beyond its window come down to it."""
        return Answer(work=self._clock_accept())

    def _clock_accept(self) -> Work:
        with self._keyring.holds.held(_Everything()):
            reading = yield None
            wall = reading.wall
            until, longest = yield from self._beyond(wall)
            spent = None
            if until > wall:
                slack, ahead = _STEPS_BEFORE * longest, self._watch.first_ahead(wall)
                since = wall - slack if ahead is None else ahead - slack
                # Without a record of the clock, it may have been there at any time.
                spent = (since if since < until else wall - slack, float(until))
            yield ClockEdit(wall, spent)
        data = {
            "time": int(wall),
            "spent_from": spent and int(max(wall, spent[0])),
            "spent_until": spent and int(spent[1]),
        }
        stays = {name: value and moment(value) for name, value in data.items() if name != "time"}
        details = {"accepted_time": moment(wall), **stays}
        return Answer(data, audit="accepted", details=details)

    def _beyond(self, wall: float) -> Pieces[tuple[float, int]]:
        """The Unix time until which codes beyond the window are spent, and the longest period (seconds)."""
        keyring = self._keyring
        until, longest = self._watch.forgotten, max(keyring.floors, default=0)
        for period, floor in keyring.floors.items():
            if floor > otp.window_end(wall, period):
                until = max(until, floor)
        for some in in_pieces([seed for seed in keyring.seeds() if not seed.is_hotp]):
            for seed in some:
                step, period = keyring.watermark(seed), seed.parameters.period
                longest = max(longest, period)
                if step > otp.step_at(wall, period) + otp.WINDOW + seed.offset:
                    # The codes of a prover that is behind come late.
                    until = max(until, (step + 1 - min(seed.offset, 0)) * period)
            yield None
        for gone in in_pieces([gone for gone in keyring.gone.values() if gone.period]):
            for step, period in gone:
                longest = max(longest, period)
                if step > otp.step_at(wall, period) + otp.WINDOW + otp.MAX_OFFSET:
                    until = max(until, (step + 1) * period)
            yield None
        return until, longest or otp.LONGEST_PERIOD

    def _sealed_here(self, entries: Iterable[Entry], master: "MasterKey", made: int) -> Pieces[list[Account]]:
        """Accounts with these seeds, which are sealed under another master key. Raises `BadSeal`.

        `made` is the Unix time for those that do not say when they were made.
        """
        accounts: list[Account] = []
        last: Account | None = None
        for some in in_pieces(entries):
            for one in some:
                beside = last if last is not None and last.name == one.name else None
                since = one.made if isinstance(one, Record) else made
                last = self._seeds.of_entry(one, master, since, beside=beside)
                accounts.append(last)
            yield None
        return accounts

    def _version_for(self, accounts: Iterable[Account], wall: float) -> Pieces[int]:
        """The version of a backup that can hold these accounts."""
        for some in in_pieces(accounts):
            for one in (one for account in some for one in account.settled(wall).authenticators):
                if version_for(one.label, one.parameters, one.seed_bytes) > 1:
                    return 2
            yield None
        return 1

    def _record(self, one: Authenticator, master: "MasterKey", version: int) -> Record:
        bound = entry.associated(one.name, one.parameters, one.label, version)
        return Record(
            one.name,
            one.parameters,
            self._keyring.resealed(one, master, bound),
            one.last_step,
            one.label,
            version,
            offset=one.offset,
            drift=b"" if one.is_hotp else one.drift,
            made=one.made or 0,
        )

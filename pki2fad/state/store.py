"""Accounts on disk, and what else of them has to outlive the process.

Every seed in it is sealed under the master key, and the master key under the host's key. How much a
change is worth: an `Edit` and a raised lease are synced to the disk before they count (FULL); a
`Spend` survives the death of the process (NORMAL), and its lease that of the machine: accepting step
s of a prover that is o steps ahead is covered when (s-o+1)*X <= lease, and at the start of another boot
the floor rises to the lease, so that nothing accepted before can be accepted again.
"""

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pki2fad.errors import UnusableState
from pki2fad.rules import otp
from pki2fad.rules.account import UNKNOWN, Account, Successor, reach
from pki2fad.rules.changes import Change, ClockEdit, Edit, Edits, Failure, LargeChange, Rotation, Spend
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.keyring import Gone, first_remembered
from pki2fad.rules.otp import Parameters
from pki2fad.rules.tally import EMPTY, NO_TALLY, Level, Tally
from pki2fad.state.database import StateFile, damaged

T = TypeVar("T")

# Steps beyond the current one that a lease covers: a prover one step ahead, and one more for the
# step in which the lease is raised.
_LEASE_STEPS = 2

# What the rows of accounts and of successors begin with.
_SEED_TYPES = (str, str, int, int, bytes, bytes, int)
_ACCOUNT_TYPES = (*_SEED_TYPES, int, bytes, float, float, bytes, int, bytes)
_SUCCESSOR_TYPES = (*_SEED_TYPES, int)

# If the clock is so many seconds from where it was when a lease was raised last, that is noted as a
# stretch of it: it may be set back before the timekeeper looks.
_JUMP = 600.0

_FORGET_PERIOD = 60.0  # seconds between two looks at the watermarks of seeds that are gone


class Store:
    """The state file. Raises `UnusableState` from the constructor and from `keep`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._raised_at: float | None = None  # where the wall clock was when leases were raised last
        self._forgotten_at: float | None = None  # and when it was seen last which watermarks are too old
        self._file = StateFile(path)
        self._database = self._file.database
        self._database.create_function("reach", 2, reach, deterministic=True)
        self._leases = self._kept_leases()
        self._given_up = False

    def tell(self, stored: Callable[[UnusableState | None], None]) -> None:
        """Call this whenever a change was stored, or with the failure where it could not be."""
        self._file.stored = stored

    def keyslots(self) -> dict[str, bytes]:
        """The master key as wrapped for each host key, by the key's fingerprint."""
        return dict(self._file.rows("SELECT fingerprint, wrapped FROM keyslots"))

    def add_keyslot(
        self, fingerprint: str, wrapped: bytes, distrusted: Iterable[int] = (), wall: float = 0
    ) -> None:
        """Let a host key open the master key.

        In the same transaction the floors of the `distrusted` periods rise as after a crash: for
        accounts that may have been in use before this state file was made.
        """
        with self._file.transaction(durable=True):
            self._database.execute("INSERT INTO keyslots VALUES (?, ?)", (fingerprint, wrapped))
            for period in distrusted:
                self._use_period(period)
                self._raise_floor(wall, period)

    def drop_keyslots(self, kept: str) -> None:
        """Let no other key than this one open the master key."""
        with self._file.transaction(durable=True):
            self._database.execute("DELETE FROM keyslots WHERE fingerprint <> ?", (kept,))

    def digest_key(self) -> bytes | None:
        """What digests are keyed with, sealed under the master key; None: they are with that itself."""
        ((sealed,),) = self._file.rows("SELECT (SELECT value FROM secrets WHERE name = 'digest')")
        return sealed  # type: ignore[no-any-return]  # SQLite has no types

    def accounts(self) -> Iterator[Account]:
        """Every account, its seed sealed. Raises `UnusableState` for a row that cannot be one."""
        successors = {successor.account.name: successor for successor in self._successors()}
        for row in self._file.rows(
            "SELECT name, algorithm, digits, period,"
            " sealed, digest, last_step, offset, drift, failed_units, failed_at, marks, resets, reset_at"
            " FROM accounts"
        ):
            name, algorithm, digits, period, sealed, digest, last_step, offset, drift, *counted = row
            try:
                if tuple(map(type, row)) != _ACCOUNT_TYPES:
                    raise ValueError("a value is of the wrong type")
                parameters = _parameters(algorithm, digits, period)
                tally = _tally(*counted)
            except ValueError as error:
                raise damaged(self.path, f"account {name!r}: {error}") from None
            yield Account(
                name,
                parameters,
                sealed,
                digest,
                last_step,
                tally=tally,
                offset=offset,
                drift=drift,
                successor=successors.get(name),
            )

    def _successors(self) -> Iterator[Successor]:
        for *row, deadline in self._file.rows(
            "SELECT name, algorithm, digits, period,"
            " sealed, digest, last_step, cutover, deadline FROM successors"
        ):
            name, algorithm, digits, period, sealed, digest, last_step, cutover = row
            try:
                if tuple(map(type, row)) != _SUCCESSOR_TYPES:
                    raise ValueError("a value is of the wrong type")
                if type(deadline) not in (int, type(None)):
                    raise ValueError("a deadline is of the wrong type")
                parameters = _parameters(algorithm, digits, period)
            except ValueError as error:
                raise damaged(self.path, f"successor of account {name!r}: {error}") from None
            # A successor that was used before is a seed that came back.
            drift = UNKNOWN if last_step >= 0 else b""
            account = Account(name, parameters, sealed, digest, last_step, drift=drift)
            yield Successor(account, deadline, bool(cutover))

    def throttle_secret(self) -> bytes:
        """The key of the hashes by which the throttle knows who failed."""
        ((secret,),) = self._file.rows("SELECT value FROM secrets WHERE name = 'throttle'")
        return bytes(secret)

    def throttle_slots(self) -> Iterator[tuple[int, Level]]:
        """The throttle's table."""
        for slot, units, at in self._file.rows("SELECT slot, units, at FROM slots"):
            yield slot, Level(units, at)

    def gone(self) -> dict[bytes, Gone]:
        """The watermarks of seeds that are gone, and their periods, by the seeds' digests."""
        return {
            digest: (last_step, period)
            for digest, last_step, period in self._file.rows("SELECT digest, last_step, period FROM gone")
        }

    def watch(self, reading: Reading) -> Watch:
        """What is known of the wall clock."""
        ((mark,),) = self._file.rows("SELECT (SELECT value FROM meta WHERE name = 'clock_mark')")
        stretches = self._file.rows("SELECT start, until FROM stretches ORDER BY rowid")
        spent = self._file.rows("SELECT since, until FROM spent")
        return Watch(None if mark is None else float(mark), stretches, spent, reading)

    def keep_watch(self, watch: Watch) -> None:
        """Keep what is known of the wall clock."""
        with self._file.transaction(durable=True):
            last = watch.last
            self._set_meta(clock_mark=repr(watch.mark), looked_at=f"{last.wall!r} {last.boot!r}")
            self._database.execute("DELETE FROM stretches")
            self._database.executemany("INSERT INTO stretches VALUES (?, ?)", watch.stretches)

    def file_digests(self) -> dict[str, bytes]:
        """The digest of what the file of `seeds.d` that was last applied held, by account."""
        return dict(self._file.rows("SELECT name, digest FROM seed_files"))

    def keep_file_digest(self, account: str, digest: bytes) -> None:
        """Keep another digest of a file that was applied already."""
        with self._file.transaction(durable=True):
            self._set_file_digest(account, digest)

    def begin_boot(self, boot_id: str | None, reading: Reading) -> float:
        """In another boot than the last one the floors rise to the leases.

        Returns the throttle's time in seconds. In one boot it goes as CLOCK_BOOTTIME does, and between
        two boots as the wall clock; a clock that is set while the daemon runs does not move it.
        """
        meta = dict(self._file.rows("SELECT name, value FROM meta"))
        same = boot_id is not None and boot_id == meta.get("boot_id")
        if same and "throttle_epoch" in meta:
            return float(meta["throttle_epoch"]) + reading.boot
        now = reading.wall
        if "throttle_epoch" in meta and "looked_at" in meta:
            wall, boot = map(float, meta["looked_at"].split())
            now = float(meta["throttle_epoch"]) + boot + max(0.0, reading.wall - wall)
        with self._file.transaction(durable=True):
            self._set_meta(boot_id=boot_id, throttle_epoch=repr(now - reading.boot))
            if not same:
                for period in self._leases:
                    self._raise_floor(reading.wall, period)
        return now

    def floors(self) -> dict[int, int]:
        """The Unix times before which codes may have been used, by period."""
        return dict(self._file.rows("SELECT period, floor FROM periods WHERE floor > 0"))

    def keep(self, changes: Sequence[Change]) -> list[bool]:
        """Keep all changes in one transaction: one verdict for each.

        False means that a Spend was refused, since its step is spent in the state already. Raises
        `UnusableState` if nothing could be kept.
        """
        leases = self._raised_leases(changes)
        durable = bool(leases) or any(isinstance(change, Edit | LargeChange) for change in changes)
        with self._file.transaction(durable=durable):
            self._database.executemany(
                "UPDATE periods SET lease = ? WHERE period = ?",
                [(lease, period) for period, lease in leases.items()],
            )
            if leases:
                self._note_jump(max(change.wall for change in changes if isinstance(change, Spend)))
            verdicts = [self._keep(change) for change in changes]
            kept = self._kept_leases() if durable else self._leases
        self._leases = kept
        with contextlib.suppress(sqlite3.Error, OSError, RuntimeError):  # kept it is, whatever comes
            self._file.checkpoint_if_due(sum(map(_size, changes)))
        return verdicts

    def give_up(self) -> None:
        """Have what another thread keeps fail soon, unless it is kept already: the daemon stops."""
        self._given_up = True
        self._file.interrupt()

    def empty_log(self) -> None:
        """Let what was replaced leave the files."""
        self._file.empty_log()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _while_wanted(self, items: Iterable[T]) -> Iterator[T]:
        """The items, until what is done with them is given up."""
        for item in items:
            if self._given_up:
                raise UnusableState("the daemon stops")
            yield item

    def _keep(self, change: Change) -> bool:
        if isinstance(change, Edit):
            return self._edit_all(Edits([change]))
        if isinstance(change, ClockEdit):
            return self._accept_clock(change)
        if isinstance(change, Edits):
            return self._edit_all(change)
        if isinstance(change, Rotation):
            return self._rotate(change)
        if isinstance(change, Failure):
            self._fail(change)
            return True
        return self._spend(change)

    def _fail(self, failure: Failure) -> None:
        self._database.executemany(
            "INSERT OR REPLACE INTO slots VALUES (?, ?, ?)",
            [(slot, level.units, level.at) for slot, level in failure.slots.items()],
        )
        if failure.tally is not None:
            level, marks = failure.tally.level, failure.tally.marks
            self._database.execute(
                "UPDATE accounts SET failed_units = ?, failed_at = ?, marks = ? WHERE name = ?",
                (level.units, level.at, marks, failure.account),
            )

    def _spend(self, spend: Spend) -> bool:
        if spend.tally is None:
            row = self._database.execute(
                "UPDATE accounts SET last_step = ?, drift = ? WHERE name = ? AND last_step < ?",
                (spend.step, spend.drift, spend.account, spend.step),
            )
        else:
            level, marks = spend.tally.level, spend.tally.marks
            row = self._database.execute(
                "UPDATE accounts SET last_step = ?, drift = ?, failed_units = ?, failed_at = ?, marks = ?"
                " WHERE name = ? AND last_step < ?",
                (spend.step, spend.drift, level.units, level.at, marks, spend.account, spend.step),
            )
        return row.rowcount == 1

    def _rotate(self, rotation: Rotation) -> bool:
        """Put another master key's slots, and every seed sealed under it, in the place of what is there."""
        self._database.execute("DELETE FROM keyslots")
        self._database.executemany("INSERT INTO keyslots VALUES (?, ?)", rotation.slots.items())
        for table, resealed in (("accounts", rotation.accounts), ("successors", rotation.successors)):
            self._database.executemany(
                f"UPDATE {table} SET sealed = ? WHERE name = ?",  # noqa: S608 - one of these two names
                ((sealed, account.name) for account, sealed in self._while_wanted(resealed)),
            )
        self._database.execute("INSERT OR REPLACE INTO secrets VALUES ('digest', ?)", (rotation.digest_key,))
        return True

    def _accept_clock(self, edit: ClockEdit) -> bool:
        """Let what is beyond the window around the time come down to its end."""
        for period in self._leases:
            end = otp.window_end(edit.wall, period)
            last = end // period - 1
            self._database.execute(
                "UPDATE accounts SET last_step = min(last_step, ? + reach(offset, drift)) WHERE period = ?",
                (last, period),
            )
            self._database.execute(
                "UPDATE successors SET last_step = min(last_step, ?) WHERE period = ?",
                (last + otp.MAX_OFFSET, period),
            )
            self._database.execute(
                "UPDATE gone SET last_step = min(last_step, ?) WHERE period = ?",
                (last + otp.MAX_OFFSET, period),
            )
            self._database.execute(
                "UPDATE periods SET lease = min(lease, ?), floor = min(floor, ?) WHERE period = ?",
                (end, end, period),
            )
        if edit.spent is not None:
            self._database.execute("INSERT INTO spent VALUES (?, ?)", edit.spent)
        self._set_meta(clock_mark=repr(edit.wall))
        return True

    def _edit_all(self, edits: Edits) -> bool:
        for edit in self._while_wanted(edits.edits):
            self._edit(edit)
        if edits.edits:
            self._forget(edits.edits[-1].wall)
        for period, floor in edits.floors.items():
            self._use_period(period)
            self._database.execute(
                "UPDATE periods SET floor = max(floor, ?) WHERE period = ?", (floor, period)
            )
        self._database.executemany("INSERT INTO spent VALUES (?, ?)", edits.spent)
        return True

    def _edit(self, edit: Edit) -> None:
        if edit.gone is not None:
            self._database.executemany(
                "INSERT INTO gone VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_step = max(last_step, excluded.last_step)",
                [(seed.digest, seed.parameters.period, seed.last_step) for seed in edit.gone.seeds],
            )
        self._database.execute("DELETE FROM successors WHERE name = ?", (edit.account,))
        if edit.put is None:
            self._database.execute("DELETE FROM accounts WHERE name = ?", (edit.account,))
        else:
            put, tally = edit.put, edit.put.tally
            self._database.execute(
                "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *_row(put),
                    *tally.level,
                    tally.marks,
                    put.offset,
                    put.drift,
                    tally.resets,
                    tally.reset_at,
                ),
            )
            if put.successor is not None:
                self._database.execute(
                    "INSERT INTO successors VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*_row(put.successor.account), put.successor.deadline, put.successor.cutover),
                )
            for seed in put.seeds:
                self._use_period(seed.parameters.period)
        if edit.file_digest is not None:
            self._set_file_digest(edit.account, edit.file_digest)

    def _set_file_digest(self, account: str, digest: bytes) -> None:
        self._database.execute("INSERT OR REPLACE INTO seed_files VALUES (?, ?)", (account, digest))

    def _forget(self, wall: float) -> None:
        """Forget watermarks that are too old, but not soon again.

        All of them are looked at, by SQLite itself: that takes a tenth of what calls of Python would.
        """
        if self._forgotten_at is None or not 0 <= wall - self._forgotten_at < _FORGET_PERIOD:
            for period in self._leases:
                first = first_remembered(period, wall)
                self._database.execute("DELETE FROM gone WHERE period = ? AND last_step < ?", (period, first))
            self._forgotten_at = wall

    def _note_jump(self, wall: float) -> None:
        """Note where the clock is if it came there in one go: it may be set back before it is looked at."""
        if self._raised_at is None or not 0 <= wall - self._raised_at < _JUMP:
            self._database.execute("INSERT INTO stretches VALUES (?, ?)", (wall, wall))
        self._raised_at = wall

    def _set_meta(self, **values: str | None) -> None:
        self._database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def _kept_leases(self) -> dict[int, int]:
        return dict(self._file.rows("SELECT period, lease FROM periods"))

    def _use_period(self, period: int) -> None:
        self._database.execute("INSERT OR IGNORE INTO periods (period) VALUES (?)", (period,))

    def _raised_leases(self, changes: Sequence[Change]) -> dict[int, int]:
        """All leases, raised, if one of the changes is not covered by its own; else none."""
        spends = [change for change in changes if isinstance(change, Spend)]
        needed: dict[int, int] = {}
        for spend in spends:
            end = (spend.step - spend.offset + 1) * spend.period
            if end > max(self._leases.get(spend.period, 0), needed.get(spend.period, 0)):
                needed[spend.period] = end
        if not needed:
            return {}
        wall = max(spend.wall for spend in spends)
        return {
            period: max(lease, needed.get(period, 0), _safe_time(wall, period))
            for period, lease in self._leases.items()
        }

    def _raise_floor(self, wall: float, period: int) -> None:
        self._database.execute(
            "UPDATE periods SET floor = max(floor, lease, ?) WHERE period = ?",
            (_safe_time(wall, period), period),
        )


def _size(change: Change) -> int:
    """How many rows a change is about, more or less."""
    if isinstance(change, Edits):
        return len(change.edits)
    return len(change.accounts) if isinstance(change, Rotation) else 1


def _row(seed: Account) -> tuple[Any, ...]:
    """What is kept of an account's seed, and of a successor's."""
    of = seed.parameters
    return (seed.name, of.algorithm, of.digits, of.period, seed.sealed, seed.digest, seed.last_step)


def _safe_time(wall: float, period: int) -> int:
    """The end of the last step that can be accepted now, and one period more."""
    return (otp.step_at(wall, period) + _LEASE_STEPS) * period


# What most accounts have in common is there once, and not once for each of a million.


@functools.cache
def _parameters(algorithm: str, digits: int, period: int) -> Parameters:
    return Parameters(algorithm, digits, period)


def _tally(units: float, at: float, marks: bytes, resets: int, reset_at: bytes) -> Tally:
    if units or at:
        return Tally(Level(units, at), marks, resets, reset_at)
    return Tally(EMPTY, marks, resets, reset_at) if marks or resets else NO_TALLY

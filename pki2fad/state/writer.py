"""Writes changes into the tables, inside a transaction of the store."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pki2fad.errors import UnusableState
from pki2fad.rules import otp
from pki2fad.rules.account import Account, reach
from pki2fad.rules.changes import (
    Change,
    ClockEdit,
    Edit,
    Edits,
    Failure,
    FileEdit,
    KeyEdit,
    Rotation,
    Spend,
    WatchEdit,
)
from pki2fad.rules.gone import first_remembered
from pki2fad.rules.outcomes import KEPT, SPENT, Outcome
from pki2fad.state.database import StateFile
from pki2fad.state.leases import Leases

T = TypeVar("T")

_FORGET_PERIOD = 60.0  # seconds between two looks at the watermarks of seeds that are gone


class Writer:
    """Writes one change at a time. A large one can be given up from another thread."""

    def __init__(self, file: StateFile, leases: Leases) -> None:
        self._database = file.database
        self._database.create_function("reach", 2, reach, deterministic=True)
        self._leases = leases
        self._forgotten_at: float | None = None  # the wall clock when old watermarks were deleted last
        self._given_up = False
        # What each returns is the outcome, None for the usual one.
        self._writers: dict[type[Any], Callable[[Any], Outcome | None]] = {
            Spend: self._spend,
            Failure: self._fail,
            Edit: lambda edit: self._edit_all(Edits([edit])),
            Edits: self._edit_all,
            ClockEdit: self._accept_clock,
            Rotation: self._rotate,
            KeyEdit: self._edit_keys,
            WatchEdit: self._note_clock,
            FileEdit: self._note_file,
        }

    def give_up(self) -> None:
        """Have `write` raise `UnusableState` soon, in whatever thread it runs."""
        self._given_up = True

    def write(self, change: Change) -> Outcome:
        """Write a change, and say what comes of it once the transaction is committed."""
        return self._writers[type(change)](change) or KEPT

    def _while_wanted(self, items: Iterable[T]) -> Iterator[T]:
        """The items, until what is done with them is given up."""
        for item in items:
            if self._given_up:
                raise UnusableState("the daemon stops")
            yield item

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

    def _spend(self, spend: Spend) -> Outcome:
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
        return KEPT if row.rowcount == 1 else SPENT

    def _rotate(self, rotation: Rotation) -> None:
        """Put another master key's slots, and every seed sealed under it, in the place of what is there."""
        self._set_slots(rotation.slots)
        for table, resealed in (("accounts", rotation.accounts), ("successors", rotation.successors)):
            self._database.executemany(
                f"UPDATE {table} SET sealed = ? WHERE name = ?",  # noqa: S608 - one of these two names
                ((sealed, account.name) for account, sealed in self._while_wanted(resealed)),
            )
        self._database.execute("INSERT OR REPLACE INTO secrets VALUES ('digest', ?)", (rotation.digest_key,))

    def _edit_keys(self, edit: KeyEdit) -> None:
        self._set_slots(edit.slots)
        for period, floor in edit.floors.items():
            self._leases.raise_floor(period, floor)

    def _set_slots(self, slots: Mapping[str, bytes]) -> None:
        self._database.execute("DELETE FROM keyslots")
        self._database.executemany("INSERT INTO keyslots VALUES (?, ?)", slots.items())

    def _note_clock(self, edit: WatchEdit) -> None:
        last = edit.last
        self.set_meta(clock_mark=repr(edit.mark), looked_at=f"{last.wall!r} {last.boot!r}")
        self._database.execute("DELETE FROM stretches")
        self._database.executemany("INSERT INTO stretches VALUES (?, ?)", edit.stretches)

    def _note_file(self, edit: FileEdit) -> None:
        self._database.execute("INSERT OR REPLACE INTO seed_files VALUES (?, ?)", (edit.account, edit.digest))

    def _accept_clock(self, edit: ClockEdit) -> None:
        """Let what is beyond the window around the time come down to its end."""
        for period in self._leases.periods:
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
        self.set_meta(clock_mark=repr(edit.wall))

    def _edit_all(self, edits: Edits) -> None:
        for edit in self._while_wanted(edits.edits):
            self._edit(edit)
        if edits.edits:
            self._forget(edits.edits[-1].wall)
        for period, floor in edits.floors.items():
            self._leases.raise_floor(period, floor)
        self._database.executemany("INSERT INTO spent VALUES (?, ?)", edits.spent)

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
                self._leases.add(seed.parameters.period)
        if edit.file_digest is not None:
            self._note_file(FileEdit(edit.account, edit.file_digest))

    def _forget(self, wall: float) -> None:
        """Forget watermarks that are too old, but not soon again.

        All of them are looked at, by SQLite itself: that takes a tenth of what calls of Python would.
        """
        if self._forgotten_at is None or not 0 <= wall - self._forgotten_at < _FORGET_PERIOD:
            for period in self._leases.periods:
                first = first_remembered(period, wall)
                self._database.execute("DELETE FROM gone WHERE period = ? AND last_step < ?", (period, first))
            self._forgotten_at = wall

    def set_meta(self, **values: str | None) -> None:
        """Write values of the table `meta`."""
        self._database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def _row(seed: Account) -> tuple[Any, ...]:
    """What is kept of an account's seed, and of a successor's."""
    of = seed.parameters
    return (seed.name, of.algorithm, of.digits, of.period, seed.sealed, seed.digest, seed.last_step)

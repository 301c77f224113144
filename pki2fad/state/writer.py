"""Writes changes into the tables, inside a transaction of the store."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pki2fad.errors import UnusableState
from pki2fad.rules import otp
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import Authenticator, reach
from pki2fad.rules.changes import (
    Change,
    ClockEdit,
    Edit,
    Edits,
    Failure,
    FileEdit,
    KeyEdit,
    RecoverySpend,
    Rotation,
    Spend,
    WatchEdit,
)
from pki2fad.rules.gone import first_remembered
from pki2fad.rules.outcomes import KEPT, SPENT, Outcome
from pki2fad.rules.recovery import Recovery
from pki2fad.rules.tally import Tally
from pki2fad.state.database import StateFile
from pki2fad.state.leases import Leases

T = TypeVar("T")

_PUT_ACCOUNT = "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_OTHER = "INSERT INTO authenticators VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_SUCCESSOR = "INSERT INTO successors VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# How many steps codes may be spent ahead of the window. What has no column for its offset may have had any.
_REACHED = {
    "accounts": "reach(offset, drift)",
    "authenticators": "reach(offset, drift)",
    "successors": f"{otp.MAX_OFFSET}",
    "gone": f"{otp.MAX_OFFSET}",
}

# The id of an account that is removed, and behind it the name by which version 0.1.0 knew it.
_REMEMBER_ID = (
    "INSERT OR REPLACE INTO ids"
    " SELECT name, CAST(substr(fixed, 1, 16) || substr(fixed, 55) AS BLOB) FROM accounts WHERE name = ?"
)

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
            RecoverySpend: self._spend_recovery,
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
            "INSERT OR REPLACE INTO slots (slot, units, at, cost) VALUES (?, ?, ?, ?)",
            [(slot, *level) for slot, level in failure.slots.items()],
        )
        self._count(failure.account, failure.tally)

    def _count(self, account: str, tally: Tally | None) -> None:
        if tally is not None:
            self._database.execute(
                "UPDATE accounts SET failed_units = ?, failed_at = ?, marks = ? WHERE name = ?",
                (tally.level.units, tally.level.at, tally.marks, account),
            )

    def _spend_recovery(self, spend: RecoverySpend) -> Outcome:
        row = self._database.execute(
            "UPDATE recovery SET used = used | ? WHERE name = ? AND used & ? = 0",
            (spend.bits, spend.account, spend.bits),
        )
        self._count(spend.account, spend.tally)
        return KEPT if row.rowcount == 1 else SPENT

    def _spend(self, spend: Spend) -> Outcome:
        outcome = self._spend_one(spend)
        for other in spend.also:
            if self._spend_one(other) is not KEPT:
                outcome = SPENT
        return outcome

    def _spend_one(self, spend: Spend) -> Outcome:
        changed, values = "last_step = ?, drift = ?", [spend.step, spend.drift]
        if not spend.period:  # of HOTP
            changed, values = f"{changed}, used = ?", [*values, int(spend.wall)]
        if spend.label is not None:
            of = f"authenticators SET {changed} WHERE label = ? AND"
            outcome = self._spend_of(of, [*values, spend.label], spend)
            if outcome is KEPT:
                self._count(spend.account, spend.tally)
            return outcome
        if spend.tally is not None:
            level, marks = spend.tally.level, spend.tally.marks
            changed += ", failed_units = ?, failed_at = ?, marks = ?"
            values += [level.units, level.at, marks]
        return self._spend_of(f"accounts SET {changed} WHERE", values, spend)

    def _spend_of(self, what: str, values: list[Any], spend: Spend) -> Outcome:
        row = self._database.execute(
            f"UPDATE {what} name = ? AND last_step < ?",
            (*values, spend.account, spend.step),
        )
        return KEPT if row.rowcount == 1 else SPENT

    def _rotate(self, rotation: Rotation) -> None:
        """Put another master key's slots, and what it seals, in the place of what is there.

        Nothing tells which table has a seed: it is the one that has its `fixed`.
        """
        self._set_slots(rotation.slots)
        for table in ("accounts", "authenticators", "successors"):
            self._database.executemany(
                f"UPDATE {table} SET sealed = ? WHERE name = ? AND label = ? AND fixed = ?",  # noqa: S608 - one of these names
                (
                    (sealed, one.name, one.label, one.fixed)
                    for one, sealed in self._while_wanted(rotation.resealed)
                    if isinstance(one, Authenticator)
                ),
            )
        self._database.executemany(
            "UPDATE recovery SET key = ? WHERE name = ?",
            ((sealed, one.name) for one, sealed in rotation.resealed if isinstance(one, Recovery)),
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
            for table, reached in _REACHED.items():
                self._database.execute(
                    f"UPDATE {table} SET last_step = min(last_step, ? + {reached}) WHERE period = ?",  # noqa: S608 - one of these names
                    (last, period),
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
        if edit.gone:
            self._database.executemany(
                "INSERT INTO gone VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_step = max(last_step, excluded.last_step)",
                [(seed.digest, seed.parameters.period, seed.last_step) for seed in edit.gone],
            )
        name = (edit.account,)
        self._database.execute("DELETE FROM authenticators WHERE name = ?", name)
        self._database.execute("DELETE FROM successors WHERE name = ?", name)
        self._database.execute("DELETE FROM recovery WHERE name = ?", name)
        if edit.put is None:
            self._database.execute(_REMEMBER_ID, name)
            self._database.execute("DELETE FROM accounts WHERE name = ?", name)
        else:
            self._put(edit.put)
        if edit.file_digest is not None:
            self._note_file(FileEdit(edit.account, edit.file_digest))

    def _put(self, put: Account) -> None:
        tally = put.tally
        self._database.execute(
            _PUT_ACCOUNT,
            (*_row(put), *_moving(put), *tally.level[:2], tally.marks, tally.resets, tally.reset_at),
        )
        self._database.execute("DELETE FROM ids WHERE name = ?", (put.name,))
        self._database.executemany(
            _PUT_OTHER,
            [(*_row(one), *_moving(one), position) for position, one in enumerate(put.others)],
        )
        self._database.executemany(
            _PUT_SUCCESSOR,
            [
                (*_row(one.successor.authenticator), one.successor.deadline, one.successor.cutover)
                for one in put.authenticators
                if one.successor is not None
            ],
        )
        if put.recovery is not None:
            of = put.recovery
            self._database.execute(
                "INSERT INTO recovery VALUES (?, ?, ?, ?, ?)",
                (of.name, of.sealed, of.hashes, of.used, of.made),
            )
        for seed in put.seeds:
            if not seed.is_hotp:
                self._leases.add(seed.parameters.period)

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


def _row(seed: Authenticator) -> tuple[Any, ...]:
    """What is kept of every authenticator, also of one that waits."""
    of = seed.parameters
    kept = (of.algorithm, of.digits, of.period, seed.sealed, seed.fixed, seed.last_step)
    return (seed.name, seed.label, *kept)


def _moving(one: Authenticator) -> tuple[Any, ...]:
    """What is kept only of those that are active."""
    return (one.offset, one.drift, one.used)

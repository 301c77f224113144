"""The state: accounts on disk, and what else of them has to outlive the process.

Every seed in it is sealed under the master key, and the master key under the host's key. An `Edit` and a
raised lease are synced to the disk before they count (FULL). A `Spend` survives the death of the process
(NORMAL), and its lease that of the machine (see `leases`).
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from pki2fad.errors import UnusableState
from pki2fad.rules.account import Account
from pki2fad.rules.changes import Change, Edits, Failure, Rotation, Shred, Spend
from pki2fad.rules.clock import Reading, Watch
from pki2fad.rules.gone import Watermark
from pki2fad.rules.outcomes import KEPT, NotKept, Outcome, Settle
from pki2fad.rules.tally import Level
from pki2fad.state import rows
from pki2fad.state.database import StateFile, damaged
from pki2fad.state.leases import Leases
from pki2fad.state.writer import Writer


class Store:
    """The state, in the database `file`. Raises `UnusableState` from the constructor and wherever it reads.

    `stored` is called whenever a change was stored, or with the failure where it could not be.
    """

    def __init__(self, path: str, stored: Callable[[UnusableState | None], None] = lambda _: None) -> None:
        self.path = path
        self.file = StateFile(path, stored)
        self._leases = Leases(self.file)
        self._writer = Writer(self.file, self._leases)

    def keyslots(self) -> dict[str, bytes]:
        """The master key as wrapped for each host key, by the key's fingerprint."""
        return dict(self.file.rows("SELECT fingerprint, wrapped FROM keyslots"))

    def digest_key(self) -> bytes | None:
        """What digests are keyed with, sealed under the master key; None: they are with that itself."""
        ((sealed,),) = self.file.rows("SELECT (SELECT value FROM secrets WHERE name = 'digest')")
        return sealed  # type: ignore[no-any-return]  # SQLite has no types

    def accounts(self) -> Iterator[Account]:
        """Every account, its seed sealed. Raises `UnusableState` for a row that cannot be one."""
        return rows.accounts(self.file)

    def throttle_secret(self) -> bytes:
        """The key of the hashes by which the throttle knows who failed."""
        ((secret,),) = self.file.rows("SELECT value FROM secrets WHERE name = 'throttle'")
        return bytes(secret)

    def throttle_slots(self) -> Iterator[tuple[int, Level]]:
        """The throttle's table. Raises `UnusableState` for a row that cannot be one."""
        for slot, *level in self.file.rows("SELECT slot, units, at, cost FROM slots"):
            if tuple(map(type, level)) != (float, float, int) or level[-1] < 1:
                raise damaged(self.path, f"slot {slot!r}: a value is of the wrong type or range")
            yield slot, Level(*level)

    def gone(self) -> dict[bytes, Watermark]:
        """The watermarks of seeds that are gone, and their periods, by the seeds' digests."""
        return {
            digest: Watermark(last_step, period)
            for digest, last_step, period in self.file.rows("SELECT digest, last_step, period FROM gone")
        }

    def ids(self) -> dict[str, bytes]:
        """The ids of accounts that were removed, by name, as `Keyring.identity` gives them."""
        return dict(self.file.rows("SELECT name, id FROM ids"))

    def watch(self, reading: Reading) -> Watch:
        """What is known of the wall clock."""
        ((mark,),) = self.file.rows("SELECT (SELECT value FROM meta WHERE name = 'clock_mark')")
        stretches = self.file.rows("SELECT start, until FROM stretches ORDER BY rowid")
        spent = self.file.rows("SELECT since, until FROM spent")
        return Watch(None if mark is None else float(mark), stretches, spent, reading)

    def file_digests(self) -> dict[str, bytes]:
        """The digest of what the file of `seeds.d` that was last applied held, by account."""
        return dict(self.file.rows("SELECT name, digest FROM seed_files"))

    def begin_boot(self, boot_id: str | None, reading: Reading) -> float:
        """In another boot than the last one the floors rise to the leases.

        Returns the throttle's time in seconds. In one boot it goes as CLOCK_BOOTTIME does, and between
        two boots as the wall clock; a clock that is set while the daemon runs does not move it.
        """
        meta = dict(self.file.rows("SELECT name, value FROM meta"))
        same = boot_id is not None and boot_id == meta.get("boot_id")
        if same and "throttle_epoch" in meta:
            return float(meta["throttle_epoch"]) + reading.boot
        now = reading.wall
        if "throttle_epoch" in meta and "looked_at" in meta:
            wall, boot = map(float, meta["looked_at"].split())
            now = float(meta["throttle_epoch"]) + boot + max(0.0, reading.wall - wall)
        with self.file.transaction(durable=True):
            self._writer.set_meta(boot_id=boot_id, throttle_epoch=repr(now - reading.boot))
            if not same:
                self._leases.raise_floors_after_crash(reading.wall)
        return now

    def floors(self) -> dict[int, int]:
        """The Unix times before which codes may have been used, by period."""
        return self._leases.floors()

    def keep(self, changes: Sequence[Change], settle: Settle) -> None:
        """Keep all changes in one transaction, and settle all of them before this returns.

        A Spend whose step is spent in the state already is settled as `SPENT`.
        """
        outcomes: list[Outcome]
        try:
            outcomes = self._kept(changes)
        except UnusableState as error:
            outcomes = [NotKept(error)] * len(changes)
        settle(list(enumerate(outcomes)))

    def _kept(self, changes: Sequence[Change]) -> list[Outcome]:
        if isinstance(changes[0], Shred):  # it comes alone, and is no transaction
            self.file.empty_log()
            return [KEPT]
        spends = [
            spend for change in changes if isinstance(change, Spend) for spend in (change, *change.also)
        ]
        raised = self._leases.raised(spends)
        durable = bool(raised) or any(map(_is_synced, changes))
        with self.file.transaction(durable=durable):
            if raised:
                self._leases.write(raised, max(spend.wall for spend in spends))
            outcomes = [self._writer.write(change) for change in changes]
            stored = self._leases.stored() if durable else None
        if stored is not None:
            self._leases.use(stored)
        with contextlib.suppress(sqlite3.Error, OSError, RuntimeError):  # kept it is, whatever comes
            self.file.checkpoint_if_due(sum(map(_size, changes)))
        return outcomes

    def give_up(self) -> None:
        """Have what another thread keeps fail soon, unless it is kept already: the daemon stops."""
        self._writer.give_up()
        self.file.interrupt()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _is_synced(change: Change) -> bool:
    """True for what no lease covers."""
    if isinstance(change, Spend):
        return not change.period or any(not other.period for other in change.also)
    return not isinstance(change, Failure)


def _size(change: Change) -> int:
    """How many rows a change is about, more or less."""
    if isinstance(change, Edits):
        return len(change.edits)
    return len(change.resealed) if isinstance(change, Rotation) else 1

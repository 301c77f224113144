"""Accounts on disk: one SQLite file, written by one process.

Every seed in it is sealed under the master key, and the master key under the host's key. How much a
change is worth: an `Edit` and a raised lease are synced to the disk before they count (FULL); a
`Spend` survives the death of the process (NORMAL), and its lease that of the machine: accepting step
s is covered when (s+1)*X <= lease, and at the start of another boot the floor rises to the lease, so
that nothing accepted before can be accepted again.
"""

import contextlib
import os
import sqlite3
import threading
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pki2fad import files, otp
from pki2fad.agent import Edit, Spend
from pki2fad.errors import UnusableState
from pki2fad.keyring import Account
from pki2fad.otp import Parameters

_APPLICATION_ID = 0x70326661  # "p2fa": tells our file from any other database

# Steps beyond the current one that a lease covers: a prover one step ahead, and one more for the
# step in which the lease is raised.
_LEASE_STEPS = 2

# The watermark of a seed that is gone is forgotten so many seconds after the last moment at which a
# code could have been accepted: a day, should the clock be set back meanwhile.
_REMEMBER_GONE = 86_400

# After so many changes, of about a page of 4 KiB each, the write-ahead log is copied into the database,
# off the serving loop: a start reads what is in the log.
_CHECKPOINT_CHANGES = 1000

# A checkpoint beside writes that never pause cannot empty the log; above 64 MiB the loop waits for one.
_LOG_LIMIT = 64 * 1024 * 1024

# Migrations in order; the schema's version is how many were applied.
_MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
    CREATE TABLE keyslots (fingerprint TEXT PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE accounts (
        name TEXT PRIMARY KEY, algorithm TEXT NOT NULL, digits INTEGER NOT NULL,
        period INTEGER NOT NULL, sealed BLOB NOT NULL, digest BLOB NOT NULL, last_step INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE gone (
        digest BLOB PRIMARY KEY, period INTEGER NOT NULL, last_step INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE seed_files (name TEXT PRIMARY KEY, digest BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE periods (
        period INTEGER PRIMARY KEY, lease INTEGER NOT NULL DEFAULT 0, floor INTEGER NOT NULL DEFAULT 0
    );
    """,
)


class Store:
    """The state file. Raises `UnusableState` from the constructor and from `keep`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._changes = 0  # since the last checkpoint
        self._checkpoint: threading.Thread | None = None
        _check(path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.PRIVATE))
            files.sync_directory(os.path.dirname(path))
            self._database = _connect(path)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None
        try:
            self._migrate()
        except UnusableState:
            self._database.close()
            raise
        self._leases: dict[int, int] = dict(self._rows("SELECT period, lease FROM periods"))

    def keyslots(self) -> dict[str, bytes]:
        """The master key as wrapped for each host key, by the key's fingerprint."""
        return dict(self._rows("SELECT fingerprint, wrapped FROM keyslots"))

    def add_keyslot(
        self, fingerprint: str, wrapped: bytes, distrusted: Iterable[int] = (), wall: float = 0
    ) -> None:
        """Let a host key open the master key.

        In the same transaction the floors of the `distrusted` periods rise as after a crash: for
        accounts that may have been in use before this state file was made.
        """
        with self._transaction(durable=True):
            self._database.execute("INSERT INTO keyslots VALUES (?, ?)", (fingerprint, wrapped))
            for period in distrusted:
                self._use_period(period)
                self._raise_floor(wall, period)

    def accounts(self) -> Iterator[Account]:
        """Every account, its seed sealed. Raises `UnusableState` for a row that cannot be one."""
        for name, algorithm, digits, period, *rest in self._rows(
            "SELECT name, algorithm, digits, period, sealed, digest, last_step FROM accounts"
        ):
            try:
                parameters = Parameters(algorithm, digits, period)
                if [type(value) for value in (name, *rest)] != [str, bytes, bytes, int]:
                    raise ValueError("a value is of the wrong type")
            except (ValueError, TypeError) as error:
                raise UnusableState(f"{self._path} is damaged: account {name!r}: {error}") from None
            yield Account(name, parameters, *rest)

    def gone(self) -> dict[bytes, int]:
        """The watermarks of seeds that are gone, by the seeds' digests."""
        return dict(self._rows("SELECT digest, last_step FROM gone"))

    def file_digests(self) -> dict[str, bytes]:
        """The digest of the file of `seeds.d` that was last applied, by account."""
        return dict(self._rows("SELECT name, digest FROM seed_files"))

    def begin_boot(self, boot_id: str | None, wall: float) -> dict[int, int]:
        """The floors, by period. In another boot than the last one they first rise to the leases."""
        ((known,),) = list(self._rows("SELECT (SELECT value FROM meta WHERE name = 'boot_id')"))
        if boot_id is None or boot_id != known:
            with self._transaction(durable=True):
                self._database.execute("INSERT OR REPLACE INTO meta VALUES ('boot_id', ?)", (boot_id,))
                for period in self._leases:
                    self._raise_floor(wall, period)
        return dict(self._rows("SELECT period, floor FROM periods WHERE floor > 0"))

    def keep(self, changes: Sequence[Spend | Edit]) -> list[bool]:
        """Keep all changes in one transaction: one verdict for each.

        False means that a Spend was refused, since its step is spent in the state already. Raises
        `UnusableState` if nothing could be kept.
        """
        leases = self._raised_leases(changes)
        durable = bool(leases) or any(isinstance(change, Edit) for change in changes)
        with self._transaction(durable=durable):
            self._database.executemany(
                "UPDATE periods SET lease = ? WHERE period = ?",
                [(lease, period) for period, lease in leases.items()],
            )
            verdicts = [
                self._edit(change) if isinstance(change, Edit) else self._spend(change) for change in changes
            ]
        self._leases.update(leases)
        for change in changes:
            if isinstance(change, Edit) and change.put is not None:
                self._leases.setdefault(change.put.parameters.period, 0)
        with contextlib.suppress(sqlite3.Error, OSError, RuntimeError):  # kept it is, whatever comes
            self._checkpoint_if_due(len(changes))
        return verdicts

    def close(self) -> None:
        """Copy the write-ahead log into the database and close it."""
        if self._checkpoint is not None:
            self._checkpoint.join()
        self._database.close()

    def _spend(self, spend: Spend) -> bool:
        row = self._database.execute(
            "UPDATE accounts SET last_step = ?1 WHERE name = ?2 AND last_step < ?1",
            (spend.step, spend.account),
        )
        return row.rowcount == 1

    def _edit(self, edit: Edit) -> bool:
        if edit.gone is not None:
            period = edit.gone.parameters.period
            self._database.execute(
                "INSERT INTO gone VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_step = max(last_step, excluded.last_step)",
                (edit.gone.digest, period, edit.gone.last_step),
            )
            self._database.execute(
                "DELETE FROM gone WHERE (last_step + 1 + ?) * period < ?",
                (otp.WINDOW, edit.wall - _REMEMBER_GONE),
            )
        if edit.put is None:
            self._database.execute("DELETE FROM accounts WHERE name = ?", (edit.account,))
        else:
            put, of = edit.put, edit.put.parameters
            self._database.execute(
                "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (put.name, of.algorithm, of.digits, of.period, put.sealed, put.digest, put.last_step),
            )
            self._use_period(of.period)
        if edit.file_digest is not None:
            self._database.execute(
                "INSERT OR REPLACE INTO seed_files VALUES (?, ?)", (edit.account, edit.file_digest)
            )
        return True

    def _use_period(self, period: int) -> None:
        self._database.execute("INSERT OR IGNORE INTO periods (period) VALUES (?)", (period,))

    def _raised_leases(self, changes: Sequence[Spend | Edit]) -> dict[int, int]:
        """All leases, raised, if one of the changes is not covered by its own; else none."""
        spends = [change for change in changes if isinstance(change, Spend)]
        needed: dict[int, int] = {}
        for spend in spends:
            end = (spend.step + 1) * spend.period
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

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[None]:
        """All or nothing; with `durable`, on the disk when it ends."""
        try:
            # `PRAGMA synchronous` is ignored inside a transaction.
            self._database.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _rows(self, query: str) -> Iterator[Any]:
        try:
            yield from self._database.execute(query)
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _migrate(self) -> None:
        ((version,),) = self._rows("PRAGMA user_version")
        if version == len(_MIGRATIONS):
            return
        with self._transaction(durable=True):
            for migration in _MIGRATIONS[version:]:
                for statement in migration.split(";"):
                    self._database.execute(statement)
            self._database.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            self._database.execute(f"PRAGMA user_version={len(_MIGRATIONS)}")

    def _unusable(self, error: Exception) -> UnusableState:
        return UnusableState(f"cannot use the state file {self._path}: {error}")

    def _checkpoint_if_due(self, changes: int) -> None:
        self._changes += changes
        running = self._checkpoint is not None and self._checkpoint.is_alive()
        if self._changes < _CHECKPOINT_CHANGES or running:
            return
        self._changes = 0
        if os.path.getsize(self._path + "-wal") > _LOG_LIMIT:
            self._database.execute("PRAGMA busy_timeout=0")  # somebody who looks on holds nothing up
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            self._checkpoint = threading.Thread(target=_checkpoint, args=(self._path,), daemon=True)
            self._checkpoint.start()


def _safe_time(wall: float, period: int) -> int:
    """The end of the last step that can be accepted now, and one period more."""
    return (otp.step_at(wall, period) + _LEASE_STEPS) * period


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _checkpoint(path: str) -> None:
    """Copy the write-ahead log into the database, beside the connection that goes on writing."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(path)) as database:
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _check(path: str) -> None:
    """Refuse a file that is damaged, newer or not ours, and leave it untouched: only read it."""
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return
    try:
        with contextlib.closing(_connect_to_look(path)) as database:
            ((application,),) = database.execute("PRAGMA application_id")
            ((version,),) = database.execute("PRAGMA user_version")
            ((tables,),) = database.execute("SELECT count(*) FROM sqlite_schema")
            ((check,),) = database.execute("PRAGMA quick_check(1)")
    except sqlite3.OperationalError as error:
        raise UnusableState(f"cannot use the state file {path}: {error}") from None
    except sqlite3.DatabaseError as error:
        raise UnusableState(f"the state file {path} is damaged ({error}); it was left as it is") from None
    if check != "ok":
        damage = " ".join(check.split())
        raise UnusableState(f"the state file {path} is damaged ({damage}); it was left as it is")
    if application != _APPLICATION_ID and tables:  # without tables: we were killed while making it
        raise UnusableState(f"{path} is not a state file of pki2fad; it was left as it is")
    if version > len(_MIGRATIONS):
        raise UnusableState(
            f"the state file {path} is of a newer version of pki2fad (schema {version}, this one knows"
            f" {len(_MIGRATIONS)}); it was left as it is"
        )


def _connect_to_look(path: str) -> sqlite3.Connection:
    """Read-only, but where we were killed while making the file, which SQLite has to take back first."""
    mode = "rw" if os.path.exists(path + "-journal") else "ro"
    return sqlite3.connect(f"file:{urllib.parse.quote(os.fsencode(path))}?mode={mode}", uri=True)

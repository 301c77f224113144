"""The state's file: one SQLite database, opened by one process; its schema, transactions and log.

It is used by one thread at a time, whichever that is.
"""

import contextlib
import os
import sqlite3
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from pki2fad.errors import UnusableState
from pki2fad.host import files, locks, log
from pki2fad.state.schema import MIGRATIONS

APPLICATION_ID = 0x70326661  # "p2fa": tells our file from any other database

# After so many changes, of about a page of 4 KiB each, the write-ahead log is copied into the database,
# off the serving loop: a start reads what is in the log.
_CHECKPOINT_CHANGES = 1000

# A checkpoint beside writes that never pause cannot empty the log; above 64 MiB the loop waits for one.
_LOG_LIMIT = 64 * 1024 * 1024

_BUSY_TIMEOUT = 2  # seconds to wait for another process that has locked the file, before it is named

_LINKED = (
    "the state file has another name (a hard link). Another program may open it by that name and damage it:"
    " look for it with find -samefile, and remove it"
)


class StateFile:
    """The database and its write-ahead log. Every method raises `UnusableState`.

    `stored` is called after each transaction, with the failure if there was one.
    """

    def __init__(self, path: str, stored: Callable[[UnusableState | None], None]) -> None:
        self.path = path
        self._changes = 0  # since the last checkpoint
        self._checkpoint: threading.Thread | None = None
        self._stored = stored
        _check(path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.PRIVATE))
            files.sync_directory(os.path.dirname(path))
            names = os.stat(path).st_nlink
            if names > 1:
                log.warning("state_linked", path=path, names=names, reason=_LINKED)
            self.database = _connect(path)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None
        try:
            self._migrate()
        except UnusableState:
            self.database.close()
            raise

    @contextlib.contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """All or nothing; with `durable`, on the disk when it ends."""
        try:
            # `PRAGMA synchronous` is ignored inside a transaction.
            self.database.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.database.execute("COMMIT")
            except BaseException:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            failure = self._unusable(error)
            self._stored(failure)
            raise failure from None
        self._stored(None)

    def rows(self, query: str) -> Iterator[Any]:
        """What a query gives."""
        try:
            yield from self.database.execute(query)
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def checkpoint_if_due(self, changes: int) -> None:
        """Copy the log into the database from time to time; so many changes were kept now."""
        self._changes += changes
        running = self._checkpoint is not None and self._checkpoint.is_alive()
        if self._changes < _CHECKPOINT_CHANGES or running:
            return
        self._changes = 0
        if os.path.getsize(self.path + "-wal") > _LOG_LIMIT:
            self.database.execute("PRAGMA busy_timeout=0")  # somebody who looks on holds nothing up
            try:
                self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self.database.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT * 1000}")
        else:
            self._checkpoint = threading.Thread(target=_checkpoint, args=(self.path,), daemon=True)
            self._checkpoint.start()

    def interrupt(self) -> None:
        """Have the statement fail that another thread carries out."""
        self.database.interrupt()

    def empty_log(self) -> None:
        """Write the database anew, and truncate the write-ahead log: what was replaced leaves the files.

        `secure_delete` alone leaves pieces of rows behind when pages are rearranged.
        """
        if self._checkpoint is not None:
            self._checkpoint.join()
        try:
            self.database.execute("VACUUM")
            ((busy, _, _),) = self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        if busy:
            raise UnusableState(
                f"cannot empty the log of the state file {self.path}: {_holder(self.path)} reads it"
            )

    def close(self) -> None:
        """Copy the write-ahead log into the database and close it."""
        if self._checkpoint is not None:
            self._checkpoint.join()
        self.database.close()

    def _migrate(self) -> None:
        ((version,),) = self.rows("PRAGMA user_version")
        if version == len(MIGRATIONS):
            return
        with self.transaction(durable=True):
            for migration in MIGRATIONS[version:]:
                for statement in migration.split(";"):
                    self.database.execute(statement)
            self.database.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self.database.execute(f"PRAGMA user_version={len(MIGRATIONS)}")

    def _unusable(self, error: Exception) -> UnusableState:
        return _unusable(self.path, error)


def _unusable(path: str, error: Exception) -> UnusableState:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return UnusableState(
            f"cannot use the state file {path}: {_holder(path)} has locked it for more than"
            f" {_BUSY_TIMEOUT} s; end that process"
        )
    return UnusableState(f"cannot use the state file {path}: {error}")


def _holder(path: str) -> str:
    return locks.sqlite_holder(path) or "another process"


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_TIMEOUT, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten
    except sqlite3.Error:
        database.close()
        raise
    return database


def _checkpoint(path: str) -> None:
    """Copy the write-ahead log into the database, beside the connection that goes on writing."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(path)) as database:
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")


def damaged(path: str, why: object) -> UnusableState:
    """What is raised for a state file that is damaged, with the next step."""
    return UnusableState(
        f"the state file {path} is damaged ({why}); it was left as it is: move {path}* away, start, and"
        " restore a backup"
    )


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
        raise _unusable(path, error) from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from None
    if check != "ok":
        raise damaged(path, " ".join(check.split()))
    if application != APPLICATION_ID and tables:  # without tables: we were killed while making it
        raise UnusableState(f"{path} is not a state file of pki2fad; it was left as it is: move it away")
    if version > len(MIGRATIONS):
        raise UnusableState(
            f"the state file {path} is of a newer version of pki2fad (schema {version}, this one knows"
            f" {len(MIGRATIONS)}); it was left as it is: install that version again"
        )


def _connect_to_look(path: str) -> sqlite3.Connection:
    """Read-only, but where we were killed while making the file, which SQLite has to take back first."""
    mode = "rw" if os.path.exists(path + "-journal") else "ro"
    return sqlite3.connect(
        f"file:{urllib.parse.quote(os.fsencode(path))}?mode={mode}", timeout=_BUSY_TIMEOUT, uri=True
    )

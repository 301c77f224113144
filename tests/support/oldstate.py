"""States that a daemon of version 0.1.0 made, and what it and its clients know of them.

`vectors/state-0.1.0` has its state file, its host's key, and `made.json`: the seeds, the codes that were
used, the callers (of uid 5001) that had to wait at the end, and the last answer to `accounts`. `locked` has
the same of a daemon whose key has a passphrase, and was rotated.
"""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pki2fad.crypto import rsakeys
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer, Rule
from pki2fad.rules.clock import Reading
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.throttle import Throttle
from pki2fad.state.database import APPLICATION_ID
from pki2fad.state.schema import MIGRATIONS
from pki2fad.state.store import Store
from support.agents import filled, make_agent, reference_code

OLD_SCHEMA = 5  # of version 0.1.0

VECTORS = Path(__file__).parents[1] / "vectors" / "state-0.1.0"
LOCKED = VECTORS / "locked"

CALLER = Peer(1, 5001, frozenset())
RULES = (Rule("verify", (5001,)), Rule("relay", (5001,)))

Seed = dict[str, Any]  # as `made.json` has it: `seed` in hex, `algorithm`, `digits`, `period`


class Run(NamedTuple):
    """One run of an agent, and what it stands on."""

    agent: Agent
    store: Store
    keyring: Keyring


class OldState:
    """A copy of such a state, and what is on record about it."""

    def __init__(self, directory: Path, vector: Path = VECTORS) -> None:
        self.vector = vector
        self.path = directory / "state.db"
        shutil.copy(vector / "state.db", self.path)
        self.path.chmod(0o600)
        made = json.loads((vector / "made.json").read_text())
        self.boot_id: str = made["boot_id"]
        self.accounts: dict[str, Seed] = made["accounts"]
        self.gone: list[Seed] = made["gone"]  # with `account`
        self.used: list[Seed] = made["used"]  # with `account`, and the `step` whose code was good
        self.waits: list[dict[str, Any]] = made["waits"]  # the `seconds` that an `origin` had to wait
        self.listed: list[dict[str, Any]] = made.get("listed", [])
        self.passphrase: str | None = made.get("passphrase")
        self._ended: float = made["ended"]
        ((looked_at,),) = query(self.path, "SELECT value FROM meta WHERE name = 'looked_at'")
        wall, boot = map(float, looked_at.split())
        self._boot = boot + self._ended - wall

    def reading(self, seconds: float = 0.0) -> Reading:
        """So long after the daemon stopped, in the same boot."""
        return Reading(self._ended + seconds, self._boot + seconds)

    def private(self) -> PrivateKey:
        """The host's key."""
        passphrase = None if self.passphrase is None else self.passphrase.encode()
        return rsakeys.load_private((self.vector / "host.pem").read_bytes(), "host.pem", passphrase)

    def master(self, store: Store) -> MasterKey:
        """The master key, opened with the host's."""
        (wrapped,) = store.keyslots().values()
        master = MasterKey.unwrap(self.private(), wrapped)
        digest_key = store.digest_key()
        if digest_key is not None:
            master.open_digest_key(digest_key)
        return master

    @contextlib.contextmanager
    def running(self) -> Iterator[Run]:
        """An agent that throttles, filled from the state file as the service does it."""
        reading = self.reading()
        with contextlib.closing(Store(str(self.path))) as store, self.master(store) as master:
            counted = Reading(store.begin_boot(self.boot_id, reading), reading.boot)
            throttle = Throttle(store.throttle_secret(), store.throttle_slots(), counted)
            keyring = filled(store, master, reading, self.boot_id)
            for account in keyring.accounts.values():
                account.count(throttle.as_loaded(account.tally))
            agent = make_agent(keyring, RULES, throttle=throttle, watch=store.watch(reading))
            yield Run(agent, store, keyring)


def code(of: Seed, step: int) -> str:
    """The code that this seed has in a step."""
    return reference_code(bytes.fromhex(of["seed"]), step, parameters(of))


def parameters(of: Seed) -> Parameters:
    """Those of a seed."""
    return Parameters(of["algorithm"], of["digits"], of["period"])


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """What a query gives, also in a file that another version made."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(statement).fetchall()


def make_old(path: Path, rows: list[tuple[str, bytes, bytes]]) -> None:
    """A state file with the schema of version 0.1.0, and accounts by name, sealed seed and digest."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for migration in MIGRATIONS[:OLD_SCHEMA]:
            database.executescript(migration)
        database.execute("BEGIN")
        database.executemany(
            "INSERT INTO accounts VALUES (?, 'SHA1', 6, 30, ?, ?, 7, 0, 0, x'', 0, x'00', 0, x'')",
            rows,
        )
        database.execute("COMMIT")
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute(f"PRAGMA user_version={OLD_SCHEMA}")

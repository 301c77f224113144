"""pki2fad as it is installed, over a state with any number of accounts."""

import os
import sys
from pathlib import Path

from benchmarks import accounts
from benchmarks.accounts import PERIOD, States
from benchmarks.generator import Failed, Load, pin
from benchmarks.peers import SERVERS
from support.daemon import Daemon, wait_until

_PATIENCE = 300.0  # seconds for a daemon with a million accounts to be ready

IN_MEMORY = [sys.executable, "-P", str(SERVERS / "inmemory.py")]


class Pki2fad:
    """A daemon; `command` goes before the installed one, and `settings` are its pki2fad.toml."""

    def __init__(
        self,
        root: Path,
        states: States,
        count: int,
        *,
        settings: str = "",
        period: int = PERIOD,
        command: list[str] | None = None,
    ) -> None:
        self.root = root
        self.count = count
        self.address = str(root / "socket")
        self.daemon = Daemon(root)
        self._states = states
        self._settings = settings
        self._period = period
        self._command = command

    def prepare(self) -> None:
        """Everything but the start."""
        self.root.mkdir()
        self.daemon.install_key(self._states.pem)
        self.daemon.configure(self._settings)
        self._bring_state()

    def _bring_state(self) -> None:
        self._states.copy(self.daemon.state_dir, self.count, self._period)

    def start(self) -> None:
        """Start it, and wait until it is ready. Raises `Failed`."""
        if not self.root.exists():
            self.prepare()
        self.daemon.spawn(command=self._command)
        try:
            self.daemon.wait_for("READY=1", _PATIENCE)
        except AssertionError as error:
            raise Failed(str(error)) from None

    def pin(self, load: Load) -> None:
        """Keep it on its core."""
        pin(self.daemon.pid, load.cores[0])

    def tidy(self) -> None:
        """Empty its log, which has a line for each decision."""
        os.truncate(self.daemon.stderr, 0)

    def settle(self) -> None:
        """Wait until it has seen that those who measured it are gone."""
        with self.daemon.client() as client:
            wait_until(lambda: client.metrics()["connections"] == 1, "connections stay open")

    def stop(self) -> None:
        self.daemon.close()

    @property
    def memory(self) -> int:
        """Bytes of memory that are its own: no files, and nothing shared."""
        with open(f"/proc/{self.daemon.pid}/status", encoding="ascii") as file:
            (line,) = (line for line in file if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024

    @property
    def descriptors(self) -> int | None:
        """How many it has open; None where only root could see that."""
        try:
            return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))
        except PermissionError:
            return None


class Older(Pki2fad):
    """The version that another interpreter has, with a state that it makes itself: ours may be too new."""

    def __init__(self, root: Path, states: States, count: int, python: str) -> None:
        super().__init__(root, states, count, command=[python, "-P"])
        self._key = states.key.public_key()

    def start(self) -> None:
        super().start()
        with self.daemon.client() as client:
            for _, batch in accounts.batches(self._key, 0, self.count):
                client.load_batch(batch)

    def _bring_state(self) -> None:
        """It makes a new one."""

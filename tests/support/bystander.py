"""A normal client among hostile ones, and what the daemon holds meanwhile."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pki2fad.client import Client
from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey
from support.daemon import Daemon, short_directory, wait_until
from support.peers import require_root
from support.raw import Seed

# Memory may grow by so much where nothing is kept: what 128 of the largest messages would occupy.
MARGIN = 8 * 1024 * 1024


class Bystander:
    """A normal client, connected all the time, whose answers have to stay right."""

    def __init__(self, daemon: Daemon, client: Client, key: PrivateKey) -> None:
        self.daemon = daemon
        self._client = client
        self._key = key

    def check(self) -> None:
        """Load a seed, and use it."""
        seed = Seed()
        self._client.load(seed.sealed(self._key), "bystander", replace=True)
        code = self._client.generate("bystander")
        assert code.code == seed.code(code.step)
        assert self._client.verify(code.code, "bystander") is True
        assert self._client.verify(code.code, "bystander") is False

    def settle(self) -> None:
        """Let the daemon see what others have done: answers of three turns of its loop."""
        for _ in range(3):
            self._client.status()

    def memory(self) -> int:
        """What the daemon has in memory, in bytes."""
        self.settle()
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def descriptors(self) -> int:
        """How many descriptors the daemon has open."""
        require_root()  # it is closed to ptrace, and its descriptors to all others
        self.settle()
        return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

    def wait_for_descriptors(self, count: int) -> None:
        """Wait until no more are open; what clients left behind may take the daemon some turns to see."""
        wait_until(lambda: self.descriptors() <= count, "connections are left open")


@contextlib.contextmanager
def besieged(key: PrivateKey, toml: str = "") -> Iterator[Daemon]:
    """A daemon that has to live to the end of the block, and to end in order."""
    with short_directory() as path:
        path.chmod(0o755)  # for other users
        daemon = Daemon(path)
        daemon.install_key(rsakeys.private_pem(key))
        daemon.configure(toml)
        daemon.start()
        try:
            yield daemon
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log(), daemon.log()
            assert "loop_failed" not in daemon.log()
        finally:
            daemon.close()


@contextlib.contextmanager
def standing_by(daemon: Daemon, key: PrivateKey) -> Iterator[Bystander]:
    """A client that gets right answers before, and also at the end of the block."""
    with daemon.client() as client:
        bystander = Bystander(daemon, client, key)
        bystander.check()
        yield bystander
        bystander.check()

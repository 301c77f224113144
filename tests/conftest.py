"""Fixtures for tests of every kind."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import clones, preload
from support.daemon import Daemon, short_directory

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey

os.umask(0o022)  # files of tests are the same under another umask, as users of Ubuntu have

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let SIGINT end what the tests start: a shell has a command in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def host_key() -> PrivateKey:
    """A host's key; 3072 bits, the least that is taken, since making it is the slowest part."""
    return rsakeys.generate_key(3072)


@pytest.fixture(scope="session")
def other_key() -> PrivateKey:
    """The key of another host."""
    return rsakeys.generate_key(3072)


@pytest.fixture(scope="session")
def rfc() -> dict[str, list[dict[str, object]]]:
    """The vectors of RFC 4226 appendix D and RFC 6238 appendix B."""
    return json.loads((VECTORS / "rfc.json").read_text())


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary directory with a short path, for sockets."""
    with short_directory() as path:
        yield path


@pytest.fixture
def daemon(short_path: Path, host_key: PrivateKey) -> Iterator[Daemon]:
    """A daemon with a key and no account, not started yet."""
    daemon = Daemon(short_path)
    daemon.install_key(rsakeys.private_pem(host_key))
    yield daemon
    daemon.close()


@pytest.fixture
def seal(host_key: PrivateKey) -> Callable[[bytes], bytes]:
    """Seals a seed to the host's key."""
    public = host_key.public_key()
    return lambda seed: sealing.seal_seed(public, bytearray(seed))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled shims are."""
    return tmp_path_factory.mktemp("shims")


@pytest.fixture
def clock(tmp_path: Path, built: Path) -> Iterator[preload.Clock]:
    """A wall clock for a daemon that is started with `preload.environment(clock)`."""
    clock = preload.Clock(tmp_path / "clock", preload.library("clock_shift", built))
    yield clock
    clock.close()


@pytest.fixture
def synced(tmp_path: Path, built: Path, daemon: Daemon) -> preload.SyncedCopy:
    """What would be left of the daemon's state after a crash of the machine."""
    return preload.SyncedCopy(daemon.state_dir, tmp_path / "synced", preload.library("keep_synced", built))


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """What pip needs to install a clone where there is no network."""
    base = tmp_path_factory.getbasetemp()
    return clones.wheels(base if worker_id == "master" else base.parent)


@pytest.fixture
def clone(packages: Path) -> Iterator[clones.Cloned]:
    """A booted host with a clone, on which nothing is installed."""
    with clones.Cloned(packages) as host:
        yield host

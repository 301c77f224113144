"""Fixtures for tests in a booted system, and for examples of the documents."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bystander import Bystander, besieged, standing_by
from support.clients import Clients
from support.daemon import Daemon, short_directory
from support.documents import run
from support.installed import SEED, Installed, software
from support.oldservice import BASE, OldService
from support.peers import require_root
from support.preload import Clock, environment

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make all cases of a test but the first slow: they start daemons and commands to show the same again."""
    here, shown = Path(__file__).parent, set()
    for item in items:
        if here in item.path.parents:
            test = item.nodeid.partition("[")[0]
            if test in shown:
                item.add_marker(pytest.mark.slow)
            shown.add(test)


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The installed software, which all hosts have over their files."""
    require_root()  # nobody else can boot what this is for
    base = tmp_path_factory.getbasetemp()
    return software(base if worker_id == "master" else base.parent)


@pytest.fixture
def host(layer: Path, host_key: PrivateKey) -> Iterator[Installed]:
    """A booted host on which the daemon is ready to be started, with the account default."""
    with Installed("host", layer) as host:
        host.prepare(host_key, default=SEED)
        yield host


@pytest.fixture
def shell(daemon: Daemon) -> Daemon:
    """A running daemon with the account default, as `init` makes it, and `host.pub.pem` beside it."""
    (daemon.config_dir / "host.pem").unlink()
    run(f"pki2factl init --config-dir {daemon.config_dir}; cp config/host.pub.pem .", daemon.root)
    daemon.start()
    return daemon


@pytest.fixture
def home(tmp_path: Path, host_key: PrivateKey) -> Path:
    """A directory with the host's public key, and nothing else."""
    (tmp_path / "host.pub.pem").write_bytes(rsakeys.public_pem(host_key.public_key()))
    return tmp_path


@pytest.fixture
def loadable(daemon: Daemon, host_key: PrivateKey, other_key: PrivateKey) -> Daemon:
    """A running daemon without accounts, and the public keys of two hosts beside it."""
    for name, key in (("host", host_key), ("other", other_key)):
        (daemon.root / f"{name}.pub.pem").write_bytes(rsakeys.public_pem(key.public_key()))
    return daemon.start()


@pytest.fixture
def elsewhere(other_key: PrivateKey) -> Iterator[Daemon]:
    """A daemon on another host, not started."""
    with short_directory() as path:
        elsewhere = Daemon(path)
        elsewhere.install_key(rsakeys.private_pem(other_key))
        (path / "config" / "host.pub.pem").write_bytes(rsakeys.public_pem(other_key.public_key()))
        yield elsewhere
        elsewhere.close()


@pytest.fixture(scope="module")
def lasting(host_key: PrivateKey) -> Iterator[Daemon]:
    """One running daemon for all tests of a module that leave it running."""
    with short_directory() as path:
        daemon = Daemon(path)
        daemon.install_key(rsakeys.private_pem(host_key))
        yield daemon.start()
        daemon.close()


@pytest.fixture(scope="module")
def besieged_daemon(host_key: PrivateKey) -> Iterator[Daemon]:
    """One daemon with the usual caps, which must outlive all tests of a module."""
    with besieged(host_key) as daemon:
        yield daemon


@pytest.fixture
def bystander(besieged_daemon: Daemon, host_key: PrivateKey) -> Iterator[Bystander]:
    """A client that is answered all the while."""
    with standing_by(besieged_daemon, host_key) as bystander:
        yield bystander


@pytest.fixture
def old(daemon: Daemon, host_key: PrivateKey) -> OldService:
    """The old service's files; the daemon is not started."""
    return OldService(daemon, host_key)


@pytest.fixture
def beside(old: OldService) -> OldService:
    """The old service's files beside a running daemon."""
    return old.start()


@pytest.fixture
def timed(old: OldService, clock: Clock) -> OldService:
    """The same with the daemon started at 20 seconds after BASE."""
    clock.set(BASE + 20)
    return old.start(**environment(clock))


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """The clients in other languages."""
    return Clients(tmp_path_factory.mktemp("clients"))

"""Fixtures for tests in a booted system, and for examples of the documents."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.documents import run
from support.installed import SEED, Installed, software
from support.peers import require_root

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

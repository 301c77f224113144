"""Fixtures for tests of single modules."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.peers import require_root
from support.sites import Site

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey

# A slow example is no failure: other programs use the processor too.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="module")
def master() -> Iterator[MasterKey]:
    """The key that seals a state."""
    key = MasterKey()
    yield key
    key.close()


@pytest.fixture
def roots() -> Iterator[Path]:
    """A directory in which nobody but root can write, from / on."""
    require_root()
    with tempfile.TemporaryDirectory(dir="/root") as directory:
        yield Path(directory)


@pytest.fixture
def site(tmp_path: Path, host_key: PrivateKey) -> Iterator[Site]:
    """A host with a key of its own, whose accounts can be backed up and restored."""
    with Site(tmp_path / "site.db", host_key) as site:
        yield site

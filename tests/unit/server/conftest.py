"""Fixtures for tests of long requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.longwork import Slow, other_seeds, slow_site

from pki2fad.crypto.rsakeys import PrivateKey


@pytest.fixture
def slow(tmp_path: Path, host_key: PrivateKey) -> Iterator[Slow]:
    """A site whose long requests take many pieces."""
    with slow_site(tmp_path, host_key) as slow:
        yield slow


@pytest.fixture
def replacing(slow: Slow, tmp_path: Path, host_key: PrivateKey, other_key: PrivateKey) -> bytes:
    """A backup that has other seeds for the accounts of the site."""
    return other_seeds(slow, tmp_path, host_key, other_key)

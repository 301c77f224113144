"""Fixtures for tests of single modules."""

from collections.abc import Iterator

import pytest

from pki2fad.crypto.masterkey import MasterKey


@pytest.fixture(scope="module")
def master() -> Iterator[MasterKey]:
    """The key that seals a state."""
    key = MasterKey()
    yield key
    key.close()

"""Fixtures for tests of single modules."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from pki2fad.crypto.masterkey import MasterKey

# A slow example is no failure: other programs use the processor too.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="module")
def master() -> Iterator[MasterKey]:
    """The key that seals a state."""
    key = MasterKey()
    yield key
    key.close()

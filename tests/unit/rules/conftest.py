"""Fixtures for tests of the throttle."""

import pytest
from support.throttles import Account, make_throttle

from pki2fad.rules.throttle import Throttle


@pytest.fixture
def throttle() -> Throttle:
    """A throttle that has counted nothing."""
    return make_throttle()


@pytest.fixture
def account(throttle: Throttle) -> Account:
    """An account without a failure."""
    return Account(throttle)

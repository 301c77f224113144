"""Fixtures for tests of the throttle."""

import pytest
from support.callers import fresh_agent
from support.throttles import Account, make_throttle

from pki2fad.methods.agent import Agent
from pki2fad.rules.throttle import Throttle


@pytest.fixture
def throttle() -> Throttle:
    """A throttle that has counted nothing."""
    return make_throttle()


@pytest.fixture
def account(throttle: Throttle) -> Account:
    """An account without a failure."""
    return Account(throttle)


@pytest.fixture
def agent() -> Agent:
    """An agent that throttles, with callers of each role."""
    return fresh_agent()

"""Fixtures for tests of methods."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import SEED, STEP, at_step, make_agent, make_keyring
from support.host import Host

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.methods.agent import Agent


@pytest.fixture
def agent() -> Agent:
    """An agent with the account default, which does not throttle."""
    return make_agent(make_keyring({"default": SEED}))


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    """A host with an account that has no successor yet."""
    with Host(tmp_path / "state.db", master, at_step(STEP).wall) as host:
        host.load()
        yield host

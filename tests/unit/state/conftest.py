"""Fixtures for tests of what is stored."""

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state file is to be."""
    return tmp_path / "state.db"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty `seeds.d`."""
    path = tmp_path / "seeds.d"
    path.mkdir(mode=0o755)
    return path

"""Fixtures for tests of the daemon's parts."""

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the minute log is to be."""
    return tmp_path / "codes.log"

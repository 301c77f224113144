"""Files of `seeds.d`, and which of them are taken."""

import re
from pathlib import Path

from pki2fad.crypto import sealing
from pki2fad.state.seedfiles import read_all
from support.agents import logged

SOMEBODY = 12345  # a uid that is neither root's nor ours


def put(directory: Path, name: str, sealed: bytes = b"sealed", mode: int = 0o644) -> Path:
    """A file of `seeds.d`; returns its path."""
    path = directory / name
    path.write_bytes(sealing.sealed_to_text(sealed))
    path.chmod(mode)
    return path


def taken(directory: Path) -> list[str]:
    """The accounts whose files are taken."""
    return [file.account for file in read_all(str(directory), [])]


def assert_only_it_is_refused(directory: Path, bad: Path, told: str) -> None:
    with logged() as lines:
        assert taken(directory) == ["0first", "zlast"]
    (line,) = lines
    assert line.startswith("seed_ignored ")
    assert told in line
    assert re.split("[^ -~]", str(bad))[0] in line  # what is not ASCII is escaped


def assert_directory_is_refused(directory: Path, told: str) -> None:
    with logged() as lines:
        assert taken(directory) == []
    (line,) = lines
    assert line.startswith(f"seeds_ignored path={directory} ")
    assert told in line

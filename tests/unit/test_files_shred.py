"""Destroying a file: its bytes are overwritten under every name, and nothing else is touched."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import small_disk

from pki2fad import files
from pki2fad.errors import UnusablePath

SEED = b"3132333435363738393031323334353637383930313233343536373839303132\n"


@pytest.mark.parametrize("size", [0, 16, 65536, 65552, 1_000_000])
def test_every_byte_is_overwritten_before_the_file_is_gone(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    with path.open("rb") as reader:
        files.shred(str(path))
        after = reader.read()
    assert not path.exists()
    assert len(after) == size
    # Sixteen random bytes are not all zero by chance.
    assert bytes(16) not in {after[start : start + 16] for start in range(0, size, 16)}


def test_no_two_files_are_overwritten_with_the_same_bytes(tmp_path: Path) -> None:
    after = set()
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(SEED)
        os.link(tmp_path / name, tmp_path / f"{name}2")
        files.shred(str(tmp_path / name))
        after.add((tmp_path / f"{name}2").read_bytes())
    assert len(after | {SEED}) == 3


def test_other_names_of_the_file_stay_and_show_nothing_of_it(tmp_path: Path) -> None:
    path, other = tmp_path / "seed.txt", tmp_path / "other"
    path.write_bytes(SEED)
    os.link(path, other)
    files.shred(str(path))
    assert os.listdir(tmp_path) == ["other"]
    assert len(other.read_bytes()) == len(SEED)
    assert SEED[:16] not in other.read_bytes()


def test_a_relative_path_is_destroyed_where_it_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed.txt").write_bytes(SEED)
    files.shred("seed.txt")
    assert os.listdir(tmp_path) == []


def test_a_symbolic_link_is_not_followed_and_what_it_leads_to_is_named(tmp_path: Path) -> None:
    path, link = tmp_path / "seed.txt", tmp_path / "link"
    path.write_bytes(SEED)
    link.symlink_to(path)
    with pytest.raises(UnusablePath, match=rf"cannot destroy {link}: it is a symbolic link; .* {path}"):
        files.shred(str(link))
    assert link.is_symlink()
    assert path.read_bytes() == SEED


def put_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (Path.mkdir, "Is a directory"),
    "a fifo": (os.mkfifo, "No such device"),
    "a socket": (put_socket, "No such device"),
    "nothing": (lambda _: None, "No such file"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_by_name_and_stays(kind: str, short_path: Path) -> None:
    put, reason = NO_FILES[kind]
    path = short_path / "thing"
    put(path)
    before = path.lstat() if kind != "nothing" else None
    with pytest.raises(UnusablePath, match=rf"cannot destroy {path}: {reason}"):
        files.shred(str(path))
    assert (path.lstat() if kind != "nothing" else None) == before


def test_a_fifo_that_somebody_reads_gets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        with pytest.raises(UnusablePath, match="not a regular file"):
            files.shred(str(path))
        assert reader.read(1) == b""
    assert path.is_fifo()


def test_a_file_that_cannot_be_written_stays_as_it_is(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        path = tmp_path / "seed.txt"
        path.write_bytes(SEED)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with pytest.raises(UnusablePath, match=f"cannot destroy {path}: Read-only file system"):
            files.shred(str(path))
        assert path.read_bytes() == SEED

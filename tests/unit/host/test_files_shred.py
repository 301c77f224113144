"""Destroying a file: its bytes are overwritten under every name, and nothing else is touched."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import small_disk
from support.daemon import wait_until
from support.paths import put_socket
from support.peers import missing, require, require_root

from pki2fad.errors import UnusablePath
from pki2fad.host import files

SEED = b"3132333435363738393031323334353637383930313233343536373839303132\n"


def shred(path: Path) -> None:
    """Destroy what is there now."""
    files.shred(str(path), path.lstat() if os.path.lexists(path) else path.parent.stat())


@pytest.mark.parametrize("size", [0, 16, 65536, 65552, 1_000_000])
def test_every_byte_is_overwritten_before_the_file_is_gone(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    with path.open("rb") as reader:
        shred(path)
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
        shred(tmp_path / name)
        after.add((tmp_path / f"{name}2").read_bytes())
    assert len(after | {SEED}) == 3


def test_other_names_of_the_file_stay_and_show_nothing_of_it(tmp_path: Path) -> None:
    path, other = tmp_path / "seed.txt", tmp_path / "other"
    path.write_bytes(SEED)
    os.link(path, other)
    shred(path)
    assert os.listdir(tmp_path) == ["other"]
    assert len(other.read_bytes()) == len(SEED)
    assert SEED[:16] not in other.read_bytes()


def test_a_relative_path_is_destroyed_where_it_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed.txt").write_bytes(SEED)
    shred(Path("seed.txt"))
    assert os.listdir(tmp_path) == []


def test_a_symbolic_link_is_not_followed_and_what_it_leads_to_is_named(tmp_path: Path) -> None:
    path, link = tmp_path / "seed.txt", tmp_path / "link"
    path.write_bytes(SEED)
    link.symlink_to(path)
    with pytest.raises(UnusablePath, match=rf"cannot destroy {link}: it is a symbolic link; .* {path}"):
        shred(link)
    assert link.is_symlink()
    assert path.read_bytes() == SEED


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
        shred(path)
    assert (path.lstat() if kind != "nothing" else None) == before


def test_a_fifo_that_somebody_reads_gets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        with pytest.raises(UnusablePath, match="not a regular file"):
            shred(path)
        assert reader.read(1) == b""
    assert path.is_fifo()


def test_a_file_that_cannot_be_written_stays_as_it_is(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        path = tmp_path / "seed.txt"
        path.write_bytes(SEED)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with pytest.raises(UnusablePath, match=f"cannot destroy {path}: Read-only file system"):
            shred(path)
        assert path.read_bytes() == SEED


def rewrite(path: Path) -> None:
    """Other bytes of the same length, in the same file."""
    before = path.stat().st_mtime_ns
    wait_until(
        lambda: path.write_bytes(SEED[::-1]) and path.stat().st_mtime_ns != before, "time stands still"
    )


def exchange(path: Path) -> None:
    """Another file that looks the same."""
    status = path.stat()
    path.rename(path.with_suffix(".old"))
    path.write_bytes(SEED)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def append(path: Path) -> None:
    """A line more, and a clock that is too coarse to show it."""
    status = path.stat()
    path.write_bytes(SEED + SEED)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [rewrite, exchange, append])
def test_what_has_changed_since_it_was_read_is_not_destroyed(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "seed.txt"
    path.write_bytes(SEED)
    _, status = files.read_with_status(str(path))
    change(path)
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(
        UnusablePath, match=rf"{path} has changed since it was read; nothing .* run this again"
    ):
        files.shred(str(path), status)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == after


def test_another_file_that_gets_the_name_meanwhile_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "seed.txt"
    path.write_bytes(SEED)
    status, sync = path.stat(), os.fsync

    def exchange_and_sync(descriptor: int) -> None:
        exchange(path)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", exchange_and_sync)
    with pytest.raises(UnusablePath, match="another file has its name now"):
        files.shred(str(path), status)
    assert path.read_bytes() == SEED
    assert SEED[:16] not in path.with_suffix(".old").read_bytes()


def test_a_file_that_cannot_be_removed_is_overwritten_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "seed.txt"
    path.write_bytes(SEED)
    require_root()
    if subprocess.run([require("mount"), "--bind", path, path], check=False, capture_output=True).returncode:
        missing("the right to mount (root in a container may not have it)")
    try:
        with pytest.raises(UnusablePath, match=f"{path} is overwritten, but not removed: Device"):
            shred(path)
        assert SEED[:16] not in path.read_bytes()
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)

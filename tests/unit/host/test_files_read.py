"""What is read whole has to be a file of a sensible size, and what is trusted has to be in safe hands."""

import os
from pathlib import Path

import pytest
from support.paths import no_descriptor_stays_open, put_socket

from pki2fad.errors import UnusablePath
from pki2fad.host import files

MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, MEGABYTE])
def test_a_file_of_at_most_a_megabyte_is_read(size: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    assert files.read(str(tmp_path / "file")) == b"x" * size


def test_the_status_is_that_of_the_file_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    data, status = files.read_with_status(str(tmp_path / "link"))
    assert data == b"data"
    assert os.path.samestat(status, path.stat())
    assert status.st_mode == path.stat().st_mode  # not the link's, and no time of access: reading moves it


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MEGABYTE + 1)


def put_huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # one hole: reading it whole would take all memory there is


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def put_nothing(path: Path) -> None:
    assert not path.exists()


UNREADABLE = {
    "a fifo": (put_fifo, "is not a regular file"),
    "a device": (put_device, "is not a regular file"),
    "a directory": (Path.mkdir, "is not a regular file"),
    "a socket": (put_socket, "cannot read"),
    "a file a byte too large": (put_large_file, "larger than a megabyte"),
    "a file of a terabyte": (put_huge_file, "larger than a megabyte"),
    "a dangling link": (put_dangling_link, "No such file"),
    "nothing": (put_nothing, "No such file"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_readable_file_is_refused_at_once_and_by_name(kind: str, short_path: Path) -> None:
    put, reason = UNREADABLE[kind]
    path = short_path / "thing"
    put(path)
    with pytest.raises(UnusablePath, match=reason) as caught:
        files.read(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_refused_file_leaves_no_descriptor_open(kind: str, short_path: Path) -> None:
    put, _ = UNREADABLE[kind]
    put(short_path / "thing")
    with no_descriptor_stays_open(), pytest.raises(UnusablePath):
        files.read(str(short_path / "thing"))


def test_a_link_is_not_followed_where_that_is_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert files.read_with_status(str(tmp_path / "file"), follow_links=False)[0] == b"data"
    with pytest.raises(UnusablePath, match="link"):
        files.read_with_status(str(tmp_path / "link"), follow_links=False)

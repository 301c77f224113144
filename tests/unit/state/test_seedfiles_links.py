"""`seeds.d` with links that stay beneath it, as Kubernetes mounts a Secret."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import logged
from support.paths import no_descriptor_stays_open
from support.peers import missing, require, require_root
from support.seeds import SOMEBODY, assert_directory_is_refused, assert_only_it_is_refused, put, taken

from pki2fad.state.seedfiles import read_all


def mounted(directory: Path, *names: str) -> Path:
    """Files as Kubernetes mounts a Secret; returns the directory that they are in."""
    data = directory / "..2026_01_31_12_34_56.123456789"
    data.mkdir(mode=0o755)
    (directory / "..data").symlink_to(data.name)
    for name in names:
        put(data, name, name.encode())
        (directory / name).symlink_to(f"..data/{name}")
    return data


def test_files_are_taken_as_kubernetes_mounts_a_secret(directory: Path) -> None:
    mounted(directory, "ann.sealed", "ben.sealed")
    with logged() as lines:
        found = [(file.path, file.account, file.sealed) for file in read_all(str(directory), [])]
    assert found == [
        (str(directory / "ann.sealed"), "ann", b"ann.sealed"),
        (str(directory / "ben.sealed"), "ben", b"ben.sealed"),
    ]
    assert lines == []


def test_a_secret_that_is_exchanged_meanwhile_is_read_from_the_new_directory(directory: Path) -> None:
    old = mounted(directory, "ann.sealed", "ben.sealed")
    with contextlib.closing(read_all(str(directory), [])) as files:
        assert next(files).sealed == b"ann.sealed"
        new = directory / "..2026_02_01_00_00_00.987654321"
        new.mkdir(mode=0o755)
        put(new, "ben.sealed", b"renewed")
        (directory / "..data_tmp").symlink_to(new.name)
        (directory / "..data_tmp").rename(directory / "..data")
        for path in (*old.iterdir(), old):
            path.unlink() if path != old else path.rmdir()
        assert next(files).sealed == b"renewed"


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """The directory as it is, mounted read-only on itself."""
    mount = require("mount")
    for options in (["--bind", str(directory)], ["-o", "remount,bind,ro"]):
        if subprocess.run([mount, *options, str(directory)], check=False, capture_output=True).returncode:
            missing("the right to mount (root in a container may not have it)")
    try:
        yield
    finally:
        subprocess.run([require("umount"), "--lazy", str(directory)], check=True)


def test_a_secrets_directory_may_have_kubernetes_mode_where_it_is_mounted_read_only(directory: Path) -> None:
    require_root()
    data = mounted(directory, "ann.sealed", "ben.sealed")
    os.lchown(directory / "ben.sealed", SOMEBODY, SOMEBODY)
    directory.chmod(0o1777)
    assert_directory_is_refused(directory, "mode 1777")
    with read_only(directory):
        with logged() as lines:
            assert taken(directory) == ["ann"]
        assert [f"uid {SOMEBODY}" in line for line in lines] == [True]
    directory.chmod(0o777)
    with read_only(directory):
        assert_directory_is_refused(directory, "mode 0777")
    assert data.is_dir()


@pytest.mark.parametrize(
    "target", ["../other.sealed", "..data/../../other.sealed", "{outside}", "up/other.sealed"]
)
def test_a_link_that_leads_out_is_refused(tmp_path: Path, directory: Path, target: str) -> None:
    outside = put(tmp_path, "other.sealed")
    mounted(directory)
    (directory / "up").symlink_to("..")
    put(directory, "0first.sealed")
    put(directory, "zlast.sealed")
    bad = directory / "bad.sealed"
    bad.symlink_to(target.format(outside=outside))
    assert bad.read_bytes() == outside.read_bytes()
    assert_only_it_is_refused(directory, bad, "leads out of the directory")


def test_a_link_may_go_up_as_long_as_it_stays_beneath(directory: Path) -> None:
    mounted(directory)
    put(directory / "..data", "real")
    (directory / "ann.sealed").symlink_to("..data/../..data/./real")
    assert taken(directory) == ["ann"]


@pytest.mark.parametrize(("links", "accounts"), [(8, ["ann"]), (9, [])])
def test_at_most_eight_links_are_followed(directory: Path, links: int, accounts: list[str]) -> None:
    put(directory, "0")
    for number in range(1, links):
        (directory / str(number)).symlink_to(str(number - 1))
    (directory / "ann.sealed").symlink_to(str(links - 1))
    with logged() as lines:
        assert taken(directory) == accounts
    assert len(lines) == 1 - len(accounts)


@pytest.mark.parametrize("part", ["ann.sealed", "..data", "directory", "file"])
def test_each_part_on_the_way_has_to_be_roots_or_ours(directory: Path, part: str) -> None:
    require_root()
    data = mounted(directory, "ann.sealed")
    assert taken(directory) == ["ann"]
    spoilt = {"directory": data, "file": data / "ann.sealed"}.get(part, directory / part)
    os.lchown(spoilt, SOMEBODY, 0)
    with logged() as lines:
        assert taken(directory) == []
    (line,) = lines
    assert f"uid {SOMEBODY}" in line


@pytest.mark.parametrize("part", ["directory", "file"])
def test_a_part_on_the_way_that_others_may_write_is_refused(directory: Path, part: str) -> None:
    data = mounted(directory, "ann.sealed")
    (data if part == "directory" else data / "ann.sealed").chmod(0o775)
    with logged() as lines:
        assert taken(directory) == []
    (line,) = lines
    assert "mode 0775" in line
    assert f"..2026_01_31_12_34_56.123456789{'/ann.sealed' if part == 'file' else ''} must belong" in line


def test_no_descriptor_stays_open(directory: Path) -> None:
    mounted(directory, "ann.sealed", "ben.sealed")
    (directory / "ben.sealed").unlink()
    (directory / "ben.sealed").symlink_to("..data/../../x")
    with no_descriptor_stays_open(), logged():
        assert taken(directory) == ["ann"]

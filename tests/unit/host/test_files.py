"""Files: modes whatever the umask, nothing overwritten, replaced or half written by accident."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import peers
from support.paths import mode

from pki2fad.errors import UnusablePath
from pki2fad.host import files

WRITERS = {"create": files.create, "replace": files.replace}

Writer = Callable[[str, bytes, int], None]


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=lambda umask: f"umask {umask:03o}")
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    assert tmp_path.is_dir()  # made before, so that the umask does not change its mode
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def run(script: str, *arguments: str, command: tuple[str, ...] = ()) -> str:
    """What a script prints in a process of its own."""
    done = subprocess.run(
        [*command, sys.executable, "-P", "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("wanted", [0o600, 0o644, 0o640])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_has_its_mode_whatever_the_umask(write: Writer, wanted: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(str(path), b"data", wanted)
    assert path.read_bytes() == b"data"
    assert mode(path) == wanted
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("wanted", [0o700, 0o755, 0o711])
def test_a_directory_has_its_mode_and_its_parents_the_usual_one_whatever_the_umask(
    wanted: int, tmp_path: Path
) -> None:
    made = files.make_directory(str(tmp_path / "a" / "b" / "c"), wanted)
    expected = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert made == [str(path) for path in expected]
    usual = 0o755 if os.geteuid() == 0 else 0o700
    assert [mode(path) for path in expected] == [usual, usual, wanted]


@pytest.mark.parametrize(("uid", "expected"), [(0, 0o755), (1000, 0o700)])
def test_directories_of_root_may_be_entered_and_those_of_users_not(
    uid: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    files.make_directory(str(tmp_path / "new"))
    assert mode(tmp_path / "new") == expected


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o711)
    assert files.make_directory(str(there), 0o700) == []
    assert files.make_directory(str(there / "new") + "/", 0o700) == [str(there / "new")]
    assert (mode(there), mode(there / "new")) == (0o711, 0o700)


def test_what_is_no_directory_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "dangling"):
        with pytest.raises(UnusablePath, match=rf"{name} is in the way: it is not a directory"):
            files.make_directory(str(tmp_path / name))
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusablePath, match="cannot make the directory /proc/nowhere: "):
        files.make_directory("/proc/nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UnusablePath, match="file is in the way"):
        files.make_directory(str(tmp_path / "file" / "below"))


def test_a_created_file_never_overwrites_one(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"old")
    (tmp_path / "link").symlink_to(there)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "directory").mkdir()
    before = sorted(os.listdir(tmp_path))
    for name in ("there", "link", "dangling", "directory"):
        with pytest.raises(UnusablePath, match=rf"{name} exists already"):
            files.create(str(tmp_path / name), b"new", files.PRIVATE)
    assert there.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == before


def test_what_must_be_absent_is_named_where_it_is_there(tmp_path: Path) -> None:
    files.require_absent(str(tmp_path / "new"), None, str(tmp_path / "missing" / "new"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for there in (tmp_path, tmp_path / "dangling"):
        with pytest.raises(UnusablePath, match=f"{there} exists already"):
            files.require_absent(str(tmp_path / "new"), None, str(there))


def test_a_replaced_file_is_another_one_so_that_no_reader_sees_half(tmp_path: Path) -> None:
    path, old = tmp_path / "file", tmp_path / "old"
    files.replace(str(path), b"old", files.PUBLIC)
    os.link(path, old)
    with path.open("rb") as reader:
        files.replace(str(path), b"new", files.PRIVATE)
        assert reader.read() == b"old"
    assert (path.read_bytes(), mode(path)) == (b"new", files.PRIVATE)
    assert (old.read_bytes(), mode(old)) == (b"old", files.PUBLIC)


def test_a_replaced_link_is_the_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_bytes(b"victim")
    link.symlink_to(victim)
    files.replace(str(link), b"new", files.PRIVATE)
    assert victim.read_bytes() == b"victim"
    assert (link.is_symlink(), link.read_bytes()) == (False, b"new")


def test_a_directory_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(UnusablePath, match=r"cannot write .*directory: Is a directory"):
        files.replace(str(tmp_path / "directory"), b"new", files.PRIVATE)
    assert os.listdir(tmp_path) == ["directory"]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_that_cannot_be_written_is_named_with_the_reason(write: Writer, tmp_path: Path) -> None:
    with pytest.raises(UnusablePath, match=r"cannot write .*/missing/file: No such file or directory"):
        write(str(tmp_path / "missing" / "file"), b"new", files.PRIVATE)
    (tmp_path / "file").touch()
    with pytest.raises(UnusablePath, match=r"cannot write .*/file/below: Not a directory"):
        write(str(tmp_path / "file" / "below"), b"new", files.PRIVATE)


@pytest.mark.parametrize("name", WRITERS)
def test_a_relative_path_is_written_where_it_points(name: str, tmp_path: Path) -> None:
    script = f"from pki2fad.host import files\nfiles.{name}('file', b'data', 0o600)"
    run(f"import os; os.chdir({str(tmp_path)!r})\n{script}")
    assert (tmp_path / "file").read_bytes() == b"data"


def test_a_file_is_replaced_only_if_it_is_the_expected_one(tmp_path: Path) -> None:
    path, renamed = tmp_path / "file", tmp_path / "file.1"
    path.write_bytes(b"old")
    before = path.stat()
    path.rename(renamed)
    with pytest.raises(UnusablePath, match="cannot write"):
        files.replace(str(path), b"new", files.PRIVATE, before)
    path.write_bytes(b"after the rotation")
    with pytest.raises(UnusablePath, match="was replaced by another file"):
        files.replace(str(path), b"new", files.PRIVATE, before)
    assert path.read_bytes() == b"after the rotation"
    files.replace(str(path), b"new", files.PRIVATE, path.stat())
    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["file", "file.1"]


WRITE_TOO_MUCH = """
import resource, sys
from pki2fad.host import files
from pki2fad.errors import UnusablePath
_, name, path, limit = sys.argv
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), limits[1]))
try:
    getattr(files, name)(path, bytes(1024 * 1024), 0o600)
except UnusablePath as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
"""


@pytest.mark.parametrize("limit", [0, 4096, 600_000])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_may_grow_no_further_leaves_everything_as_it_was(
    name: str, limit: int, tmp_path: Path
) -> None:
    (tmp_path / "there").write_bytes(b"old")
    path = tmp_path / ("there" if name == "replace" else "new")
    assert run(WRITE_TOO_MUCH, name, str(path), str(limit)) == f"cannot write {path}: File too large\n"
    assert (tmp_path / "there").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["there"]


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    peers.require_root()
    script = f"""
import os, subprocess
from pki2fad.host import files
from pki2fad.errors import UnusablePath
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", {str(tmp_path)!r}], check=True)
path = {str(tmp_path / "file")!r}
files.replace(path, b"old", 0o600)
try:
    files.replace(path, bytes(1024 * 1024), 0o600)
except UnusablePath as error:
    print(error)
print(files.read(path), os.listdir({str(tmp_path)!r}))
"""
    said = run(script, command=(peers.require("unshare"), "--mount", "--"))
    assert said == f"cannot write {tmp_path}/file: No space left on device\nb'old' ['file']\n"

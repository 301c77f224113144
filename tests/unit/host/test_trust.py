"""Who may write what a path names: one rule, in one place, for all that is believed, executed or followed."""

import ast
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import logged, open_below

import pki2factl
import pki2fad
from pki2factl.login import accountmap
from pki2factl.takeover import asowner
from pki2fad.daemon import config, lifetime
from pki2fad.errors import Pki2fadError, UnusablePath
from pki2fad.host import trust
from pki2fad.state import hostkey, seedfiles

UID, GID = 4711, 4712


@pytest.mark.parametrize(
    ("uid", "mode", "expected"),
    [
        (0, 0o644, False),
        (0, 0o600, False),
        (0, 0o4755, False),
        (1000, 0o644, False),
        (1000, 0o400, False),
        (1001, 0o600, True),
        (1001, 0o444, True),
        (65534, 0o400, True),
        (0, 0o664, True),
        (0, 0o646, True),
        (0, 0o602, True),
        (1000, 0o620, True),
        (1000, 0o1777, True),
    ],
)
def test_only_root_and_ourselves_may_write_what_is_trusted(
    uid: int, mode: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, 5, 0, 0, 0, 0))
    assert trust.others_may_write(status) == expected


def test_what_only_root_can_decide_on_is_roots() -> None:
    assert trust.owners("/proc/version") == {0}
    with pytest.raises(FileNotFoundError):
        trust.owners("/proc/there is no such/socket")


def test_below_a_directory_that_all_may_write_nothing_is_safe(short_path: Path) -> None:
    (short_path / "there").touch()
    for name in ("there", "is not there"):
        with pytest.raises(UnusablePath, match="others than its owner may write to /tmp"):
            trust.owners(str(short_path / name))


@pytest.mark.parametrize("path", ["", "socket", "/run/../socket", "./socket", "/run/./socket"])
def test_a_path_has_to_be_whole(path: str) -> None:
    with pytest.raises(UnusablePath, match="not a full path"):
        trust.owners(path)


def load_settings(path: Path) -> None:
    config.load(str(path), {})


def take_seed(path: Path) -> None:
    with logged() as lines:
        assert list(seedfiles.read_all(str(path.parent), [])) == []
    raise UnusablePath("".join(lines))


def use_state(path: Path) -> None:
    lifetime._check_state_dir(str(path))


def open_key(path: Path) -> None:
    hostkey.read(str(path), "")


def read_map(path: Path) -> None:
    accountmap.read(str(path))


def go_to_socket(path: Path) -> None:
    trust.owners(str(path / "socket"))


def write_minute_log(path: Path) -> None:
    with asowner.as_owner_of(str(path / "codes.log")):
        pass


def install_programs(path: Path) -> None:
    trust.require_roots(str(path / "pki2fad"))


ON_FILES = [load_settings, take_seed, open_key, read_map]
ON_DIRECTORIES = [use_state, go_to_socket, write_minute_log, install_programs]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o660, 0o620], ids=oct)
@pytest.mark.parametrize("believe", [*ON_FILES, *ON_DIRECTORIES])
def test_what_a_foreign_group_or_anybody_may_write_is_believed_nowhere(
    roots: Path, believe: Callable[[Path], None], mode: int
) -> None:
    path = roots / "ann.sealed"
    if believe in ON_FILES:
        path.touch()
    else:
        path.mkdir()
        mode |= 0o111
    os.chown(path, 0, GID)
    path.chmod(mode)
    with pytest.raises(Pki2fadError, match=r"writ|can be read by others"):
        believe(path)


def test_no_other_module_looks_at_write_bits() -> None:
    """Of all that is read of a file, these bits decide who may write it."""
    looking = set()
    for package in (pki2fad, pki2factl):
        assert package.__file__ is not None
        for path in Path(package.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                masked = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd)
                bits = {
                    leaf.value
                    for leaf in ast.walk(node)
                    if masked and isinstance(leaf, ast.Constant) and isinstance(leaf.value, int)
                }
                named = isinstance(node, ast.Attribute) and node.attr in ("S_IWGRP", "S_IWOTH")
                if named or bits & {0o002, 0o020, 0o022}:
                    looking.add(path.stem)
    assert looking == {"trust"}


def write(path: Path) -> None:
    path.write_text("mine\n")


@pytest.mark.parametrize(
    ("put", "told"),
    [
        (lambda _path: None, "No such file"),
        (Path.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/proc/version"), "log is a symbolic link"),
    ],
    ids=["nothing", "directory", "fifo", "link"],
)
def test_only_a_regular_file_is_opened_by_its_owner(
    tmp_path: Path, put: Callable[[Path], None], told: str
) -> None:
    put(tmp_path / "log")
    with pytest.raises(UnusablePath, match=f"cannot read {tmp_path}/log: .*{told}"):
        trust.open_owned(str(tmp_path / "log"), {os.geteuid()})
    assert open_below(tmp_path) == []


def test_a_file_of_another_owner_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "log")
    with pytest.raises(UnusablePath, match=f"not a regular file of uid {UID} or {UID + 1}"):
        trust.open_owned(str(tmp_path / "log"), {UID, UID + 1})
    assert open_below(tmp_path) == []
    with open(trust.open_owned(str(tmp_path / "log"), {UID, os.geteuid()})) as file:
        assert file.read() == "mine\n"


def test_a_file_behind_a_linked_directory_is_not_opened_by_its_owner(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    write(tmp_path / "there" / "log")
    (tmp_path / "link").symlink_to("there")
    with pytest.raises(UnusablePath, match=f"{tmp_path}/link is a symbolic link"):
        trust.open_owned(str(tmp_path / "link" / "log"), {os.geteuid()})

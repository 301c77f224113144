"""Root acts as whoever owns the place of a file, and not at all where that cannot be told."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.peers import require_root

from pki2factl.takeover.asowner import as_owner_of
from pki2fad.errors import UnusablePath

UID, GID, OTHER = 4711, 4712, 4713


@pytest.fixture
def place(short_path: Path) -> Iterator[Path]:
    """A directory of the user's below one of root's, which has a file of root's too."""
    require_root()
    short_path.chmod(0o755)
    place = short_path / "theirs"
    place.mkdir(0o755)
    os.chown(place, UID, GID)
    (short_path / "own").mkdir(0o755)
    yield place
    assert (os.geteuid(), os.getegid()) == (0, 0)


def ids(path: Path) -> tuple[int, int]:
    """As whom the file would be written."""
    groups = os.getgroups()
    with as_owner_of(str(path)):
        own = os.geteuid(), os.getegid()
        if own != (0, 0):
            assert os.getgroups() == []
    assert os.getgroups() == groups
    return own


def test_below_a_users_directory_it_is_the_user_whose_file_it_becomes(place: Path) -> None:
    (place / "sub").mkdir()  # root's, where the user may put another one
    for path in (place / "file", place / "sub" / "file"):
        assert ids(path) == (UID, GID)
    with as_owner_of(str(place / "file")):
        (place / "file").write_text("data")
    status = (place / "file").stat()
    assert (status.st_uid, status.st_gid) == (UID, GID)


def test_what_the_user_may_not_do_fails_also_if_the_place_leads_there_by_now(place: Path) -> None:
    (place / "sub").mkdir()
    with as_owner_of(str(place / "sub" / "file")):
        (place / "sub").rmdir()
        (place / "sub").symlink_to("../own")
        with pytest.raises(PermissionError):
            (place / "sub" / "file").write_text("data")
    assert os.listdir(place.parent / "own") == []


def test_in_roots_own_directories_it_is_root(place: Path) -> None:
    assert ids(place.parent / "own" / "file") == (0, 0)


def test_the_user_whose_file_is_there_rules_over_it(place: Path) -> None:
    path = place.parent / "own" / "file"
    path.touch()
    os.chown(path, UID, GID)
    assert ids(path) == (UID, GID)


def test_a_users_link_counts_as_the_users_and_so_does_what_is_between(place: Path) -> None:
    own = place.parent / "own"
    (place / "link").symlink_to(own)
    (own / "across").symlink_to("../theirs/link")
    for path in (place / "link" / "file", own / "across" / "file", own / "across" / ".." / "own" / "file"):
        assert ids(path) == (UID, GID)
    (own / "link").symlink_to(own)
    assert ids(own / "link" / "file") == (0, 0)


def test_a_relative_path_is_judged_by_where_it_leads(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert ids(Path("file")) == (UID, GID)
    monkeypatch.chdir("../own")
    assert ids(Path("file")) == (0, 0)
    assert ids(Path("../theirs/../own/file")) == (UID, GID)


def test_where_two_users_rule_it_is_refused(place: Path) -> None:
    (place / "sub").mkdir()
    os.chown(place / "sub", OTHER, OTHER)
    with pytest.raises(UnusablePath, match=f"{place}/sub belongs to uid {OTHER}, and .* uid {UID}"):
        ids(place / "sub" / "file")


def test_a_directory_of_roots_in_which_others_exchange_things_is_refused(place: Path) -> None:
    own = place.parent / "own"
    own.chmod(0o775)
    with pytest.raises(UnusablePath, match=f"for root: its group may write to {own}"):
        ids(own / "file")
    own.chmod(0o777)
    with pytest.raises(UnusablePath, match=f"anybody may write to {own}"):
        ids(own / "file")
    own.chmod(0o777 | stat.S_ISVTX)
    assert ids(own / "file") == (0, 0)


def test_a_users_directory_may_be_in_one_where_a_group_of_the_systems_writes(place: Path) -> None:
    place.parent.chmod(0o775)
    assert ids(place / "file") == (UID, GID)
    place.parent.chmod(0o777)
    with pytest.raises(UnusablePath, match="anybody may write"):
        ids(place / "file")


@pytest.mark.parametrize("name", ["missing", "loop"])
def test_a_directory_that_is_not_there_is_named(short_path: Path, name: str) -> None:
    (short_path / "loop").symlink_to("loop")
    with pytest.raises(UnusablePath, match=f"there is no directory {short_path / name} for codes.log"):
        ids(short_path / name / "codes.log")


def test_the_ids_come_back_after_an_error(place: Path) -> None:
    with pytest.raises(KeyError), as_owner_of(str(place / "file")):
        raise KeyError
    assert (os.geteuid(), os.getegid()) == (0, 0)

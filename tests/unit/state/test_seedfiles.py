"""`seeds.d`: which files are taken, which are named in the log and passed over."""

import contextlib
import hashlib
import os
from pathlib import Path

import pytest
from support.agents import SEED, logged
from support.peers import require_root
from support.seeds import SOMEBODY, assert_directory_is_refused, assert_only_it_is_refused, put, taken

from pki2fad.crypto import sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.state.seedfiles import SeedFile, read_all

# What is taken


def test_a_file_is_given_with_its_account_its_content_its_digest_and_its_age(directory: Path) -> None:
    path = put(directory, "default.sealed", b"\x00\xffsealed")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    assert list(read_all(str(directory), [])) == [
        SeedFile(
            str(path),
            "default",
            b"\x00\xffsealed",
            hashlib.sha256(b"\x00\xffsealed").digest(),
            hashlib.sha256(path.read_bytes()).digest(),
            1_600_000_000.0,
        )
    ]


def test_a_file_as_an_issuer_delivers_it_opens_to_its_seed(directory: Path, host_key: PrivateKey) -> None:
    put(directory, "default.sealed", sealing.seal_seed(host_key.public_key(), bytearray(SEED)))
    (file,) = read_all(str(directory), [])
    assert sealing.open_seed(host_key, file.sealed) == SEED


@pytest.mark.parametrize(
    "text",
    [
        b"c2VhbGVk",
        b"c2VhbGVk\n",
        b"c2VhbGVk\r\n",
        b"\n  c2VhbGVk \t\n\n",
        b"c2Vh\nbGVk\n",
        b"c2Vh\r\nbGVk\r\n",
        b"  c2Vh\n  bGVk\n",
        b"c2Vh bGVk",
        b"\xef\xbb\xbfc2VhbGVk\r\n",
    ],
)
def test_white_space_is_no_part_of_the_base64_and_of_its_digest(directory: Path, text: bytes) -> None:
    path = put(directory, "default.sealed")
    (plain,) = read_all(str(directory), [])
    path.write_bytes(text)
    (file,) = read_all(str(directory), [])
    assert (file.sealed, file.digest) == (b"sealed", plain.digest)


def test_files_come_in_the_order_of_their_names(directory: Path) -> None:
    for name in ("b", "a", "_z", "10", "9", "user@host"):
        put(directory, f"{name}.sealed")
    assert taken(directory) == ["10", "9", "_z", "a", "b", "user@host"]


@pytest.mark.parametrize(
    "name", ["default", "default.txt", "README", ".default.sealed", ".sealed", "a.sealed~"]
)
def test_other_files_are_passed_over_without_a_word(directory: Path, name: str) -> None:
    put(directory, name)
    with logged() as lines:
        assert taken(directory) == []
    assert lines == []


def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    with logged() as lines:
        assert taken(tmp_path / "seeds.d") == []
    assert lines == []


# What is refused


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("-option.sealed", b"c2VhbGVk", "cannot name an account"),
        ("a b.sealed", b"c2VhbGVk", "cannot name an account"),
        ("na\u00efve.sealed", b"c2VhbGVk", "cannot name an account"),
        ("\udcff.sealed", b"c2VhbGVk", "cannot name an account"),
        ("x" * 65 + ".sealed", b"c2VhbGVk", "cannot name an account"),
        ("bad.sealed", b"not base64!", "not base64"),
        ("bad.sealed", b"c2VhbGV", "not base64"),
        ("bad.sealed", b"c2VhbGVk=", "not base64"),
        ("bad.sealed", b"", "this is empty"),
        ("bad.sealed", b" \r\n", "this is empty"),
        ("bad.sealed", b"\xff\xfe", "not base64"),
        ("bad.sealed", b"A" * (1024 * 1024 + 4), "larger than a megabyte"),
    ],
)
def test_a_bad_file_is_named_and_keeps_no_other_out(
    directory: Path, name: str, content: bytes, told: str
) -> None:
    bad = directory / name
    bad.write_bytes(content)
    put(directory, "0first.sealed")
    put(directory, "zlast.sealed")
    assert_only_it_is_refused(directory, bad, told)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o777, 0o622])
def test_a_file_that_others_may_write_is_refused(directory: Path, mode: int) -> None:
    bad = put(directory, "bad.sealed", mode=mode)
    put(directory, "0first.sealed")
    put(directory, "zlast.sealed", mode=0o600)
    assert_only_it_is_refused(directory, bad, f"mode {mode:04o}")


def test_a_file_of_somebody_else_is_refused(directory: Path) -> None:
    require_root()
    bad = put(directory, "bad.sealed", mode=0o600)
    os.chown(bad, SOMEBODY, 0)
    put(directory, "0first.sealed")
    put(directory, "zlast.sealed")
    assert_only_it_is_refused(directory, bad, f"uid {SOMEBODY}")


@pytest.mark.parametrize("kind", ["dangling link", "loop", "fifo", "directory", "link to a directory"])
def test_what_is_not_a_regular_file_is_refused_without_waiting_for_it(directory: Path, kind: str) -> None:
    put(directory, "0first.sealed")
    put(directory, "zlast.sealed")
    bad = directory / "bad.sealed"
    if kind == "dangling link":
        bad.symlink_to("nowhere")
    elif kind == "loop":
        bad.symlink_to("bad.sealed")
    elif kind == "fifo":
        os.mkfifo(bad, 0o600)
    elif kind == "directory":
        bad.mkdir(mode=0o755)
    else:
        bad.symlink_to(".")
    told = {
        "dangling link": "No such file",
        "loop": "Too many levels of symbolic links",
        "fifo": "not a regular file",
    }
    assert_only_it_is_refused(directory, bad, told.get(kind, "it is a directory"))


def test_the_log_never_shows_what_is_in_a_file(directory: Path) -> None:
    (directory / "bad.sealed").write_bytes(SEED.hex().encode() + b"!")
    with logged() as lines:
        assert taken(directory) == []
    assert SEED.hex() not in "".join(lines)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_nothing_is_taken_from_a_directory_that_others_may_write(directory: Path, mode: int) -> None:
    put(directory, "default.sealed")
    directory.chmod(mode)
    assert_directory_is_refused(directory, f"mode {mode:04o}")


def test_nothing_is_taken_from_a_directory_of_somebody_else(directory: Path) -> None:
    require_root()
    put(directory, "default.sealed")
    os.chown(directory, SOMEBODY, 0)
    assert_directory_is_refused(directory, f"uid {SOMEBODY}")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_nothing_is_taken_from_what_is_no_directory(tmp_path: Path, directory: Path, kind: str) -> None:
    put(directory, "default.sealed")
    path = tmp_path / "other.d"
    if kind == "link":
        path.symlink_to(directory)
    else:
        path.touch()
    assert_directory_is_refused(path, "Not a directory")


def test_a_file_that_goes_away_meanwhile_keeps_no_other_out(directory: Path) -> None:
    for name in ("a", "b", "c"):
        put(directory, f"{name}.sealed")
    with logged() as lines, contextlib.closing(read_all(str(directory), [])) as files:
        accounts = [next(files).account]
        (directory / "b.sealed").unlink()
        accounts += [file.account for file in files]
    assert accounts == ["a", "c"]
    assert len(lines) == 1

"""`pki2factl keygen`: what is in the files, their modes, and what it never does."""

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from support.daemon import as_user, ctl
from support.paths import mode
from support.peers import openssl


def keygen(
    home: Path, *arguments: str, bits: int = 3072, umask: int = -1
) -> "subprocess.CompletedProcess[str]":
    """3072 bits unless they matter: it is quicker."""
    return ctl(home, "keygen", "--bits", str(bits), *arguments, umask=umask)


@pytest.mark.parametrize(("given", "bits"), [(["--bits", "3072"], 3072), ([], 4096)])
def test_openssl_reads_both_files(tmp_path: Path, given: list[str], bits: int) -> None:
    done = ctl(tmp_path, "keygen", "--private", "host.pem", *given)
    assert done.returncode == 0, done.stderr
    private, public = tmp_path / "host.pem", tmp_path / "host.pub.pem"
    text = openssl("pkey", "-in", private, "-check", "-noout", "-text").decode()
    assert f"Private-Key: ({bits} bit" in text
    assert "publicExponent: 65537 " in text
    assert "Key is valid" in text
    assert public.read_bytes() == openssl("pkey", "-in", private, "-pubout")


@pytest.mark.parametrize(
    ("name", "label"),
    [("host.pem", "PRIVATE KEY"), ("host.pub.pem", "PUBLIC KEY")],
    ids=["private", "public"],
)
def test_the_files_are_pkcs8_and_subject_public_key_info(tmp_path: Path, name: str, label: str) -> None:
    keygen(tmp_path, "--private", "host.pem")
    assert (tmp_path / name).read_text().startswith(f"-----BEGIN {label}-----\n")
    # Both forms name the algorithm, which OpenSSL's older ones do not.
    assert b":rsaEncryption" in openssl("asn1parse", "-in", tmp_path / name)


def test_the_fingerprint_is_that_of_the_der_form(tmp_path: Path) -> None:
    done = keygen(tmp_path, "--private", "host.pem", "--json")
    der = openssl("pkey", "-in", tmp_path / "host.pem", "-pubout", "-outform", "DER")
    digest = base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert json.loads(done.stdout) == {
        "private": "host.pem",
        "public": "host.pub.pem",
        "fingerprint": f"SHA256:{digest}",
    }
    assert done.stderr == ""


def test_it_says_where_the_files_are_and_shows_no_key(tmp_path: Path) -> None:
    done = keygen(tmp_path, "--private", str(tmp_path / "a.pem"), "--public", str(tmp_path / "b" / "c.pem"))
    assert f"private key: {tmp_path / 'a.pem'}\n" in done.stdout
    assert f"public key:  {tmp_path / 'b' / 'c.pem'}\n" in done.stdout
    assert "BEGIN" not in done.stdout + done.stderr


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_hold_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    done = keygen(tmp_path, "--private", "keys/host.pem", umask=umask)
    assert done.returncode == 0, done.stderr
    assert mode(tmp_path / "keys" / "host.pem") == 0o600
    assert mode(tmp_path / "keys" / "host.pub.pem") == 0o644


@pytest.mark.parametrize("bits", [2048, 3071, 0, 1_000_000])
def test_a_size_out_of_range_is_refused_and_nothing_is_made(tmp_path: Path, bits: int) -> None:
    done = keygen(tmp_path, "--private", "keys/host.pem", bits=bits)
    assert done.returncode == 6
    assert done.stderr.startswith("pki2factl: error: ")
    assert "3072" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("present", ["host.pem", "host.pub.pem"])
def test_nothing_is_ever_overwritten(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_text("what was there")
    done = keygen(tmp_path, "--private", "host.pem")
    assert done.returncode == 7
    assert present in done.stderr
    assert "--force" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text() == "what was there"


def test_a_link_to_nothing_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "host.pem").symlink_to(tmp_path / "elsewhere")
    assert keygen(tmp_path, "--private", "host.pem").returncode == 7
    assert not (tmp_path / "elsewhere").exists()


def test_force_replaces_both_and_their_modes(tmp_path: Path) -> None:
    private, public = tmp_path / "host.pem", tmp_path / "host.pub.pem"
    for path in (private, public):
        path.write_text("what was there")
        path.chmod(0o666)
    done = keygen(tmp_path, "--private", "host.pem", "--force")
    assert done.returncode == 0, done.stderr
    assert public.read_bytes() == openssl("pkey", "-in", private, "-pubout")
    assert (mode(private), mode(public)) == (0o600, 0o644)
    assert {path.name for path in tmp_path.iterdir()} == {"host.pem", "host.pub.pem"}


def test_one_file_for_both_is_refused_even_with_force(tmp_path: Path) -> None:
    done = keygen(tmp_path, "--private", "host.pem", "--public", "host.pem", "--force")
    assert done.returncode != 0
    assert done.stderr.startswith("pki2factl: error: ")
    assert not (tmp_path / "host.pem").exists()


def test_a_users_key_goes_to_the_users_configuration(short_path: Path) -> None:
    short_path.chmod(0o755)
    home = short_path / "home"
    home.mkdir()
    command = as_user(4711)
    os.chown(home, 4711, 4711)
    done = ctl(home, "keygen", "--bits", "3072", command=command)
    assert done.returncode == 0, done.stderr
    directory = home / ".config" / "pki2fad"
    assert mode(directory) == 0o700
    assert mode(directory / "host.pem") == 0o600
    assert {path.name for path in directory.iterdir()} == {"host.pem", "host.pub.pem"}


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = keygen(tmp_path, "--private", "file/host.pem")
    assert done.returncode == 7
    assert done.stderr.startswith("pki2factl: error: ")
    assert str(tmp_path / "file") in done.stderr
    assert len(done.stderr.splitlines()) == 1

"""`pki2factl seal`, the issuer's side: openssl opens what it seals, and the seed shows up nowhere else."""

import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support import peers
from support.daemon import ctl
from support.paths import mode

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

SEED = "3132333435363738393031323334353637383930313233343536373839303132"


@pytest.fixture
def home(tmp_path: Path, host_key: PrivateKey) -> Path:
    """The host's key pair, and nothing else."""
    (tmp_path / "host.pem").write_bytes(rsakeys.private_pem(host_key))
    (tmp_path / "host.pub.pem").write_bytes(rsakeys.public_pem(host_key.public_key()))
    return tmp_path


def seal(home: Path, *arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return ctl(home, "seal", "--to", "host.pub.pem", *arguments, **options)


def opened(home: Path, sealed: str) -> str:
    """What openssl opens it to."""
    command = [peers.require("openssl"), "pkeyutl", "-decrypt", "-inkey", home / "host.pem"]
    for option in ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"):
        command += ["-pkeyopt", option]
    binary = base64.b64decode(sealed, validate=True)
    return subprocess.run(command, input=binary, capture_output=True, timeout=30, check=True).stdout.decode()


def secret_of(uri: str) -> str:
    """The seed in an otpauth: URI, as hex digits."""
    (secret,) = parse_qs(urlsplit(uri).query)["secret"]
    return base64.b32decode(secret + "=" * (-len(secret) % 8)).hex()


def assert_hides(done: "subprocess.CompletedProcess[str]", seed: str) -> None:
    """Neither the digits nor the base32 form of the seed were printed."""
    printed = done.stdout + done.stderr
    assert seed.lower() not in printed.lower()
    assert base64.b32encode(bytes.fromhex(seed)).decode().rstrip("=") not in printed
    assert "otpauth:" not in done.stdout


def test_openssl_opens_it_to_64_lowercase_hex_digits(home: Path) -> None:
    done = seal(home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    assert re.fullmatch("[0-9a-f]{64}", opened(home, done.stdout.strip()))


def test_every_seed_is_a_new_one(home: Path) -> None:
    assert opened(home, seal(home).stdout.strip()) != opened(home, seal(home).stdout.strip())


def test_a_new_seed_is_not_shown_where_there_is_no_terminal(home: Path) -> None:
    done = seal(home)
    assert_hides(done, opened(home, done.stdout.strip()))
    assert "otpauth: URI is shown on a terminal only" in done.stderr
    assert "--uri-out" in done.stderr


@pytest.mark.parametrize("end", ["", "\n"], ids=["bare", "with a line end"])
@pytest.mark.parametrize("digits", [32, 64, 128])
def test_a_seed_on_stdin_is_the_one_that_is_sealed(home: Path, digits: int, end: str) -> None:
    seed = (SEED * 2)[:digits]
    done = seal(home, "--seed-stdin", input=seed + end)
    assert done.returncode == 0, done.stderr
    assert opened(home, done.stdout.strip()) == seed
    assert_hides(done, seed)


BAD_SEEDS = {
    "an odd number": SEED[:-1],
    "a space within": SEED[:32] + " " + SEED[32:],
    "no hex digit": "g" + SEED[1:],
    "full-width digits": "\N{FULLWIDTH DIGIT THREE}" + SEED[1:],
    "too short": SEED[:30],
    "too long": SEED * 2 + "31",
    "base32": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
    "nothing": "",
}


@pytest.mark.parametrize("seed", BAD_SEEDS.values(), ids=BAD_SEEDS)
def test_a_bad_seed_is_refused_and_not_repeated(home: Path, seed: str) -> None:
    done = seal(home, "--seed-stdin", "--out", "out.sealed", input=seed)
    assert done.returncode == 6
    assert done.stderr.startswith("pki2factl: error: ")
    assert "bad_request" not in done.stderr  # which is a word of the daemon's answers
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    longest = max(seed.split() or [""], key=len)
    assert not longest or longest not in done.stderr
    assert not (home / "out.sealed").exists()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_have_their_modes_whatever_the_umask(home: Path, umask: int) -> None:
    done = seal(home, "--out", "new.sealed", "--uri-out", "new.uri", umask=umask)
    assert done.returncode == 0, done.stderr
    assert mode(home / "new.sealed") == 0o644
    assert mode(home / "new.uri") == 0o600


def test_both_files_have_the_same_seed_and_stdout_only_the_path(home: Path) -> None:
    done = seal(home, "--out", "new.sealed", "--uri-out", "new.uri")
    uri = (home / "new.uri").read_text()
    assert (done.stdout, done.stderr) == ("new.sealed\n", "")
    assert uri.startswith("otpauth://totp/")
    assert uri.endswith("\n")
    assert secret_of(uri.strip()) == opened(home, (home / "new.sealed").read_text().strip())


def test_the_uri_of_a_given_seed_has_that_seed(home: Path) -> None:
    seal(home, "--seed-stdin", "--uri-out", "new.uri", input=SEED)
    assert secret_of((home / "new.uri").read_text().strip()) == SEED


@pytest.mark.parametrize("present", ["new.sealed", "new.uri"])
def test_a_file_that_is_there_is_kept_and_the_other_is_not_made(home: Path, present: str) -> None:
    (home / present).write_text("what was there")
    before = {path.name for path in home.iterdir()}
    done = seal(home, "--out", "new.sealed", "--uri-out", "new.uri")
    assert done.returncode == 7
    assert present in done.stderr
    assert (home / present).read_text() == "what was there"
    assert {path.name for path in home.iterdir()} == before


def test_json_has_the_sealed_seed_and_the_keys_fingerprint(home: Path, host_key: PrivateKey) -> None:
    done = seal(home, "--json", "--seed-stdin", input=SEED)
    data = json.loads(done.stdout)
    assert set(data) == {"sealed", "fingerprint"}
    assert opened(home, data["sealed"]) == SEED
    assert data["fingerprint"] == rsakeys.fingerprint(host_key.public_key())


def public_key(*how: str) -> bytes:
    """A public key that openssl makes."""
    openssl = peers.require("openssl")
    private = subprocess.run([openssl, *how], capture_output=True, timeout=30, check=True).stdout
    command = [openssl, "pkey", "-pubout"]
    return subprocess.run(command, input=private, capture_output=True, timeout=30, check=True).stdout


BAD_KEYS: dict[str, tuple[Callable[[PrivateKey], bytes], str]] = {
    "2048 bits": (lambda _: public_key("genrsa", "2048"), "3072"),
    "not RSA": (lambda _: public_key("genpkey", "-algorithm", "ed25519"), "not an RSA key"),
    "private": (rsakeys.private_pem, "private key"),
    "garbage": (lambda _: bytes(range(256)), "PEM"),
    "empty": (lambda _: b"", "PEM"),
    "damaged": (lambda key: rsakeys.public_pem(key.public_key()).replace(b"M", b"N"), "damaged"),
    "literal line ends": (
        lambda key: rsakeys.public_pem(key.public_key()).replace(b"\n", b"\\n"),
        "\\n",
    ),
}


@pytest.mark.parametrize(("make", "problem"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_is_refused_with_what_is_wrong(
    home: Path, host_key: PrivateKey, make: Callable[[PrivateKey], bytes], problem: str
) -> None:
    (home / "bad.pem").write_bytes(make(host_key))
    done = ctl(home, "seal", "--to", "bad.pem", "--out", "new.sealed")
    assert done.returncode == 6
    assert done.stderr.startswith("pki2factl: error: bad.pem ")
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (home / "new.sealed").exists()


def test_a_key_that_is_not_there_is_named(home: Path) -> None:
    done = ctl(home, "seal", "--to", "nowhere.pem")
    assert (done.returncode, done.stdout) == (7, "")
    assert "nowhere.pem" in done.stderr

"""`pki2factl load`: seeds that openssl sealed, codes that oathtool makes, and everything that is refused."""

import base64
import itertools
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import peers
from support.daemon import Daemon, ctl, short_directory

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

SEED = "3132333435363738393031323334353637383930313233343536373839303132"
OTHER_SEED = "ab" * 32


@pytest.fixture(scope="module")
def shared(host_key: PrivateKey) -> Iterator[Daemon]:
    """A daemon with the account default, for tests that change nothing."""
    with short_directory() as path:
        daemon = Daemon(path)
        daemon.install_key(rsakeys.private_pem(host_key))
        (path / "host.pub.pem").write_bytes(rsakeys.public_pem(host_key.public_key()))
        try:
            load(daemon.start(), sealed(path, SEED))
            yield daemon
        finally:
            daemon.close()


def sealed(home: Path, plaintext: str, key: str = "host", digest: str = "sha256") -> str:
    """Sealed as an issuer without pki2fad does it: openssl, base64 on one line."""
    command = [peers.require("openssl"), "pkeyutl", "-encrypt", "-pubin", "-inkey", f"{key}.pub.pem"]
    for option in ("rsa_padding_mode:oaep", f"rsa_oaep_md:{digest}", f"rsa_mgf1_md:{digest}"):
        command += ["-pkeyopt", option]
    done = subprocess.run(
        command, cwd=home, input=plaintext.encode(), capture_output=True, timeout=30, check=True
    )
    return base64.b64encode(done.stdout).decode() + "\n"


def load(daemon: Daemon, text: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return daemon.ctl("load", *arguments, input=text)


def oathtool(seed: str, now: int, algorithm: str = "SHA1", digits: int = 6, period: int = 30) -> str:
    """The code for a Unix time."""
    command = [
        peers.require("oathtool"),
        f"--totp={algorithm.lower()}",
        f"--digits={digits}",
        f"--time-step-size={period}s",
        f"--now=@{now}",
        seed,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def assert_makes_codes_of(daemon: Daemon, seed: str, account: str = "default", **how: Any) -> None:
    """The account's code is the one of oathtool for the same step."""
    done = daemon.ctl("generate", account, "--json")
    assert done.returncode == 0, done.stderr
    generated = json.loads(done.stdout)
    assert generated["code"] == oathtool(seed, generated["step"] * how.get("period", 30), **how)


def test_a_seed_from_a_file_makes_oathtools_codes(loadable: Daemon) -> None:
    (loadable.root / "seed.sealed").write_text(sealed(loadable.root, SEED))
    done = loadable.ctl("load", "seed.sealed")
    assert (done.returncode, done.stdout, done.stderr) == (0, "loaded default\n", "")
    assert_makes_codes_of(loadable, SEED)


@pytest.mark.parametrize("arguments", [[], ["-"]], ids=["no argument", "-"])
def test_a_seed_from_stdin_makes_oathtools_codes(loadable: Daemon, arguments: list[str]) -> None:
    done = load(loadable, sealed(loadable.root, SEED), *arguments, "--account", "deploy", "--json")
    assert json.loads(done.stdout) == {"account": "deploy", "changed": True, "authenticators": 1}
    assert_makes_codes_of(loadable, SEED, "deploy")


@pytest.mark.parametrize("digits", [32, 64, 128])
def test_seeds_of_16_to_64_bytes_are_taken(loadable: Daemon, digits: int) -> None:
    seed = (SEED * 2)[:digits]
    assert load(loadable, sealed(loadable.root, seed)).returncode == 0
    assert_makes_codes_of(loadable, seed)


def test_white_space_around_the_base64_is_allowed(loadable: Daemon) -> None:
    done = load(loadable, f" \r\n\t{sealed(loadable.root, SEED)} \n\n")
    assert done.returncode == 0, done.stderr
    assert_makes_codes_of(loadable, SEED)


def test_base64_may_have_line_breaks(loadable: Daemon) -> None:
    text = base64.encodebytes(base64.b64decode(sealed(loadable.root, SEED))).decode()
    assert text.count("\n") > 1
    assert load(loadable, text).stdout == "loaded default\n"
    assert load(loadable, text.replace("\n", "\r\n")).stdout == "default has this seed already\n"
    assert_makes_codes_of(loadable, SEED)


@pytest.mark.slow
def test_codes_are_oathtools_for_all_parameters(loadable: Daemon) -> None:
    text = sealed(loadable.root, SEED)
    for algorithm, digits, period in itertools.product(("SHA1", "SHA256", "SHA512"), (6, 7, 8), (1, 30, 120)):
        account = f"{algorithm}-{digits}-{period}"
        given = ("--algorithm", algorithm, "--digits", str(digits), "--period", str(period))
        done = load(loadable, text, "--account", account, *given)
        assert done.returncode == 0, done.stderr
        assert_makes_codes_of(loadable, SEED, account, algorithm=algorithm, digits=digits, period=period)


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512"])
@pytest.mark.parametrize("digits", [6, 8])
def test_a_code_of_oathtool_is_valid(loadable: Daemon, algorithm: str, digits: int) -> None:
    given = ("--algorithm", algorithm, "--digits", str(digits), "--period", "60")
    load(loadable, sealed(loadable.root, SEED), *given)
    step = json.loads(loadable.ctl("generate", "--json").stdout)["step"]
    code = oathtool(SEED, step * 60, algorithm, digits, 60)
    assert loadable.ctl("verify", code).stdout == "valid\n"


NOT_BASE64 = {
    "hex": lambda text: base64.b64decode(text).hex() + "!",
    "nothing": lambda _: "",
    "one character short": lambda text: text.strip()[:-1],
    "too much padding": lambda text: text.strip() + "=",
    "url-safe": lambda text: "-_" + text[2:],
    "text that is not ASCII": lambda text: "é" + text,
}

# What the issuer sealed instead of the digits of a seed.
BAD_PLAINTEXTS = {
    "upper case": SEED[:-1] + "A",
    "63 digits": SEED[:-1],
    "0x": "0x" + SEED,
    "a trailing line end": SEED + "\n",
    "a leading space": " " + SEED,
    "18 digits": SEED[:18],
    "130 digits": SEED * 2 + "00",
    "nothing": "",
    "no digits": "0" * 31 + "\N{GREEK SMALL LETTER ALPHA}",
}

# What became of a good sealed seed.
BAD_BYTES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda good: good[:-1],
    "one zero more before, the same number": lambda good: b"\0" + good,
    "one byte more behind": lambda good: good + b"\0",
    "a flipped bit": lambda good: bytes([good[0] ^ 1]) + good[1:],
    "zeros": lambda good: bytes(len(good)),
}


def refusal(daemon: Daemon, text: str) -> str:
    """The error, which is the same for an account that is there and for a new one."""
    errors = set()
    for arguments in (("--replace",), ("--account", "new")):
        done = load(daemon, text, *arguments)
        assert (done.returncode, done.stdout) == (6, "")
        assert done.stderr.startswith("pki2factl: error: ")
        assert len(done.stderr.splitlines()) == 1
        errors.add(done.stderr)
    (error,) = errors
    return error


def assert_only_the_first_seed_is_there(daemon: Daemon) -> None:
    assert_makes_codes_of(daemon, SEED)
    accounts = json.loads(daemon.ctl("accounts", "--json").stdout)
    assert [account["account"] for account in accounts] == ["default"]


@pytest.mark.parametrize("spoil", NOT_BASE64.values(), ids=NOT_BASE64)
def test_what_is_not_base64_changes_nothing(loadable: Daemon, spoil: Callable[[str], str]) -> None:
    load(loadable, sealed(loadable.root, SEED))
    assert "base64" in refusal(loadable, spoil(sealed(loadable.root, OTHER_SEED)))
    assert_only_the_first_seed_is_there(loadable)


@pytest.mark.slow
def test_what_opens_to_no_seed_changes_nothing_and_gets_one_text(
    loadable: Daemon, host_key: PrivateKey
) -> None:
    home = loadable.root
    load(loadable, sealed(home, SEED))
    good = base64.b64decode(sealed(home, OTHER_SEED))
    texts = {name: sealed(home, plaintext) for name, plaintext in BAD_PLAINTEXTS.items()}
    texts |= {name: base64.b64encode(spoil(good)).decode() for name, spoil in BAD_BYTES.items()}
    texts["another key"] = sealed(home, OTHER_SEED, "other")
    texts["SHA-1"] = sealed(home, OTHER_SEED, digest="sha1")
    errors = {name: refusal(loadable, text) for name, text in texts.items()}
    assert len(set(errors.values())) == 1, errors
    assert rsakeys.fingerprint(host_key.public_key()) in errors["another key"]
    assert_only_the_first_seed_is_there(loadable)


def test_the_refused_seed_is_in_no_message_and_not_in_the_log(loadable: Daemon) -> None:
    done = load(loadable, sealed(loadable.root, SEED + "\n"))
    assert SEED not in done.stderr + loadable.log()


@pytest.mark.parametrize("form", ["{}", "{}\n", "0x{}", '{{"seed": "{}"}}'])
def test_a_seed_in_plain_text_is_to_be_sealed_first_and_is_sent_nowhere(tmp_path: Path, form: str) -> None:
    done = ctl(tmp_path, "load", "-", input=form.format(SEED))  # without a daemon
    assert (done.returncode, done.stdout) == (6, "")
    assert "pki2factl: error: this is a seed in plain text; seal it first: " in done.stderr
    assert "--seed-stdin" in done.stderr
    assert SEED not in done.stderr


def test_another_seed_needs_replace(loadable: Daemon) -> None:
    load(loadable, sealed(loadable.root, SEED))
    other = sealed(loadable.root, OTHER_SEED)
    refused = load(loadable, other)
    assert refused.returncode == 6
    assert refused.stderr.startswith("pki2factl: error: account_exists: ")
    assert "hint: with --replace the codes of the old seed stop working; with --successor" in refused.stderr
    assert_makes_codes_of(loadable, SEED)
    replaced = load(loadable, other, "--replace", "--json")
    assert json.loads(replaced.stdout) == {"account": "default", "changed": True, "authenticators": 1}
    assert_makes_codes_of(loadable, OTHER_SEED)


def test_other_parameters_need_replace(loadable: Daemon) -> None:
    text = sealed(loadable.root, SEED)
    load(loadable, text)
    refused = load(loadable, text, "--digits", "8")
    assert refused.stderr.startswith("pki2factl: error: account_exists: ")
    assert load(loadable, text, "--digits", "8", "--replace").returncode == 0
    assert_makes_codes_of(loadable, SEED, digits=8)


@pytest.mark.parametrize("arguments", [[], ["--replace"]], ids=["plain", "--replace"])
def test_the_same_seed_again_changes_nothing(loadable: Daemon, arguments: list[str]) -> None:
    load(loadable, sealed(loadable.root, SEED))
    code = loadable.ctl("generate").stdout.strip()
    loadable.ctl("verify", code)
    again = sealed(loadable.root, SEED)  # OAEP is random: other bytes, the same seed
    assert load(loadable, again, *arguments).stdout == "default has this seed already\n"
    done = load(loadable, again, *arguments, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        {"account": "default", "changed": False, "authenticators": 1},
    )
    assert loadable.ctl("verify", code).stdout == "invalid\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--algorithm", "MD5"], "SHA1, SHA256, SHA512"),
        (["--algorithm", "sha1"], "SHA1, SHA256, SHA512"),
        (["--digits", "5"], "6, 7 or 8"),
        (["--digits", "9"], "6, 7 or 8"),
        (["--digits", str(2**64)], "6, 7 or 8"),
        (["--period", "0"], "1 to 120"),
        (["--period", "121"], "1 to 120"),
        (["--period", "-30"], "1 to 120"),
        (["--account", "../default"], "an account name has"),
        (["--account", ""], "an account name has"),
        (["--account", "x" * 65], "an account name has"),
    ],
)
def test_bad_parameters_are_bad_requests_that_say_what_is_allowed(
    shared: Daemon, arguments: list[str], expected: str
) -> None:
    done = load(shared, sealed(shared.root, SEED), *arguments)
    assert done.returncode == 6
    assert done.stderr.startswith("pki2factl: error: ")
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert_only_the_first_seed_is_there(shared)


def test_what_is_too_large_for_a_message_is_refused(shared: Daemon) -> None:
    done = load(shared, base64.b64encode(bytes(100_000)).decode())
    assert done.returncode == 6
    assert done.stderr.startswith("pki2factl: error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("file", ["nowhere.sealed", "."])
def test_a_file_that_cannot_be_read_is_named(shared: Daemon, file: str) -> None:
    done = shared.ctl("load", file)
    assert (done.returncode, done.stdout) == (7, "")
    assert f" {file}" in done.stderr
    assert len(done.stderr.splitlines()) == 1

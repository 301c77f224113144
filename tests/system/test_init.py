"""`pki2factl init`: from nothing, from every half of it, and never over anything."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import peers
from support.daemon import PKI2FAD, Daemon, as_user, ctl
from support.paths import mode
from support.peers import openssl

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

USER = 4711
NAMES = ("host.pem", "host.pub.pem", "seeds.d", "seeds.d/default.sealed")


@pytest.fixture
def config(short_path: Path) -> Path:
    """A configuration directory that is not there yet."""
    return short_path / "config"


def init(config: Path, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return ctl(config.parent, "init", "--config-dir", str(config), *arguments, **options)


def install_key(config: Path, key: PrivateKey) -> Path:
    config.mkdir(mode=0o755)
    private = config / "host.pem"
    private.touch(0o600)
    private.write_bytes(rsakeys.private_pem(key))
    return private


@pytest.fixture
def keyed(config: Path, host_key: PrivateKey) -> Path:
    """A configuration directory with a private key alone: where making one is not the point."""
    install_key(config, host_key)
    return config


def content(directory: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every path below: bytes, mode, and when it was modified."""
    return {
        str(path.relative_to(directory)): (
            b"" if path.is_dir() else path.read_bytes(),
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
        )
        for path in (directory, *directory.rglob("*"))
    }


def assert_fails_with(done: "subprocess.CompletedProcess[str]", path: Path) -> None:
    """The one line of the error names the path."""
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith("pki2factl: error: ")
    assert str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_from_nothing_it_makes_everything_and_says_so(config: Path) -> None:
    done = init(config)
    assert done.returncode == 0, done.stderr
    assert {line.removeprefix("made ") for line in done.stdout.splitlines()} == {
        str(config),
        *(str(config / name) for name in NAMES),
    }
    assert set(content(config)) == {".", *NAMES}
    assert f"pki2fad --config-dir {config}" in done.stderr.splitlines()[-1]


def test_the_key_has_4096_bits_and_opens_the_seed(config: Path) -> None:
    init(config)
    private = config / "host.pem"
    assert b"Private-Key: (4096 bit" in openssl("pkey", "-in", private, "-noout", "-text")
    assert (config / "host.pub.pem").read_bytes() == openssl("pkey", "-in", private, "-pubout")
    sealed = openssl("base64", "-d", "-A", "-in", config / "seeds.d" / "default.sealed")
    options = ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")
    more = [word for option in options for word in ("-pkeyopt", option)]
    seed = openssl("pkeyutl", "-decrypt", "-inkey", private, *more, data=sealed)
    assert len(bytes.fromhex(seed.decode())) == 32


def test_again_it_changes_nothing(keyed: Path) -> None:
    init(keyed)
    before = content(keyed)
    done = init(keyed)
    assert done.returncode == 0
    assert content(keyed) == before
    assert done.stdout == f"nothing to do: everything is in {keyed} already\n"
    assert "otpauth" not in done.stderr


def test_json_tells_what_was_made(config: Path) -> None:
    first, second = init(config, "--json"), init(config, "--json")
    assert set(json.loads(first.stdout)["made"]) == {str(config), *(str(config / name) for name in NAMES)}
    assert json.loads(second.stdout) == {"made": [], "config_dir": str(config)}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_roots_directories_are_open_and_its_key_is_not(config: Path, umask: int) -> None:
    peers.require_root()
    done = init(config, "--uri-out", "uri", umask=umask)
    assert done.returncode == 0, done.stderr
    assert [mode(config), mode(config / "seeds.d")] == [0o755, 0o755]
    assert mode(config / "host.pem") == 0o600
    assert mode(config / "host.pub.pem") == 0o644
    assert mode(config / "seeds.d" / "default.sealed") == 0o644
    assert mode(config.parent / "uri") == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_users_directories_are_closed(short_path: Path, umask: int) -> None:
    command = as_user(USER)
    os.chown(short_path, USER, USER)
    done = ctl(short_path, "init", command=command, umask=umask)
    assert done.returncode == 0, done.stderr
    config = short_path / ".config" / "pki2fad"
    for directory in (config.parent, config, config / "seeds.d"):
        assert mode(directory) == 0o700
    assert mode(config / "host.pem") == 0o600
    assert mode(config / "seeds.d" / "default.sealed") == 0o644
    assert done.stderr.endswith(f"now run: {PKI2FAD}\n")


def test_a_missing_public_key_is_derived(keyed: Path) -> None:
    private, public = keyed / "host.pem", keyed / "host.pub.pem"
    before = private.read_bytes()
    done = init(keyed)
    assert done.returncode == 0, done.stderr
    assert private.read_bytes() == before
    assert public.read_bytes() == openssl("pkey", "-in", private, "-pubout")
    assert f"made {public}\n" in done.stdout
    assert f"made {private}\n" not in done.stdout


def test_with_key_and_seed_only_the_public_key_is_made(keyed: Path) -> None:
    init(keyed)
    public = keyed / "host.pub.pem"
    before = content(keyed)
    public.unlink()
    done = init(keyed)
    assert done.stdout == f"made {public}\n"
    assert content(keyed)["host.pub.pem"][:2] == before["host.pub.pem"][:2]
    for name in ("host.pem", "seeds.d/default.sealed"):
        assert content(keyed)[name] == before[name]


def test_a_seed_without_its_key_is_refused(config: Path) -> None:
    (config / "seeds.d").mkdir(parents=True)
    sealed = config / "seeds.d" / "default.sealed"
    sealed.write_text("sealed to a key that is gone\n")
    before = content(config)
    done = init(config)
    assert_fails_with(done, sealed)
    private = config / "host.pem"
    assert f"put {private} back; if it is lost, move {sealed} away and run this again" in done.stderr
    assert content(config) == before


def test_a_public_key_without_its_private_one_is_kept(config: Path) -> None:
    config.mkdir()
    (config / "host.pub.pem").write_text("what was there")
    done = init(config)
    assert_fails_with(done, config / "host.pub.pem")
    assert f"move {config}/host.pub.pem away and run this again" in done.stderr
    assert "--force" not in done.stderr  # which init does not have
    assert (config / "host.pub.pem").read_text() == "what was there"
    assert not (config / "host.pem").exists()


@pytest.mark.slow
def test_what_it_names_for_a_lost_key_is_all_that_is_in_the_way(keyed: Path) -> None:
    assert init(keyed).returncode == 0
    (keyed / "host.pem").unlink()
    said = init(keyed).stderr
    named = said.partition("if it is lost, move ")[2].partition(" away and run this again")[0]
    for path in named.split(" and "):
        Path(path).rename(f"{path}.lost")
    assert init(keyed).returncode == 0


def test_a_lost_key_whose_state_is_there_is_not_replaced_by_another(short_path: Path) -> None:
    command = as_user(USER)
    os.chown(short_path, USER, USER)
    state = short_path / ".local" / "state" / "pki2fad" / "state.db"
    state.parent.mkdir(parents=True)
    state.touch()
    for path in (state, *state.parents[:4]):
        os.chown(path, USER, USER)
    done = ctl(short_path, "init", command=command)
    assert (done.returncode, done.stdout) == (6, "")
    private = short_path / ".config" / "pki2fad" / "host.pem"
    assert f"the state {state} needs it: put {private} back" in done.stderr
    assert "restore a backup" in done.stderr
    assert not private.exists()


def protected(key: PrivateKey) -> bytes:
    pem = rsakeys.private_pem(key)
    return openssl("pkey", "-aes256", "-passout", "pass:secret", data=pem)


BAD_KEYS: dict[str, tuple[Callable[[PrivateKey], bytes], str]] = {
    "protected": (protected, "passphrase"),
    "public": (lambda key: rsakeys.public_pem(key.public_key()), "public key"),
    "2048 bits": (lambda _: openssl("genrsa", "2048"), "3072"),
    "literal line ends": (lambda key: rsakeys.private_pem(key).replace(b"\n", b"\\n"), "\\n"),
    "garbage": (lambda _: b"garbage", "PEM"),
}


@pytest.mark.parametrize(("make", "problem"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_that_cannot_be_used_is_refused_with_what_is_wrong(
    config: Path, host_key: PrivateKey, make: Callable[[PrivateKey], bytes], problem: str
) -> None:
    private = install_key(config, host_key)
    private.write_bytes(make(host_key))
    before = private.read_bytes()
    done = init(config)
    assert done.returncode == 6
    assert done.stderr.startswith(f"pki2factl: error: {private} ")
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert private.read_bytes() == before
    assert not (config / "seeds.d" / "default.sealed").exists()


def test_a_uri_file_that_is_there_is_kept_and_nothing_is_made(config: Path) -> None:
    uri = config.parent / "uri"
    uri.write_text("what was there")
    assert_fails_with(init(config, "--uri-out", str(uri)), uri)
    assert uri.read_text() == "what was there"
    assert not config.exists()


def test_a_uri_file_that_cannot_be_made_leaves_no_seed_behind(keyed: Path) -> None:
    uri = keyed.parent / "no" / "such" / "directory"
    done = init(keyed, "--uri-out", str(uri))
    assert done.returncode == 7
    assert str(uri) in done.stderr
    assert not (keyed / "seeds.d" / "default.sealed").exists()
    assert init(keyed, "--uri-out", str(keyed.parent / "uri")).returncode == 0


def test_where_no_seed_is_made_no_uri_is_written_and_that_is_said(keyed: Path) -> None:
    init(keyed)
    done = init(keyed, "--uri-out", "uri")
    assert done.returncode == 0
    assert "uri was not written" in done.stderr
    assert not (keyed.parent / "uri").exists()


def test_the_uri_is_not_shown_without_a_terminal_and_stderr_says_so(keyed: Path) -> None:
    done = init(keyed)
    assert "otpauth://" not in done.stdout + done.stderr
    assert "pki2factl: hint: the otpauth: URI is shown on a terminal only" in done.stderr


def test_the_written_uri_is_that_of_the_running_daemon(daemon: Daemon) -> None:
    peers.require("oathtool")
    init(daemon.config_dir, "--uri-out", "uri")
    secret = (daemon.root / "uri").read_text().partition("secret=")[2].partition("&")[0]
    daemon.start()
    generated = json.loads(daemon.ctl("generate", "--json").stdout)
    command = ["oathtool", "--totp", "--base32", f"--now=@{generated['step'] * 30}", secret]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        f"{generated['code']}\n"
    )


def test_a_directory_that_cannot_be_written_is_named(short_path: Path) -> None:
    command = as_user(USER)
    short_path.chmod(0o755)
    config = short_path / "config"
    config.mkdir(mode=0o755)
    before = content(short_path)
    for directory in (config, config / "below", short_path / "new"):
        done = ctl(short_path, "init", "--config-dir", str(directory), command=command)
        assert_fails_with(done, directory)
    assert content(short_path) == before


def test_a_file_in_the_place_of_the_directory_is_named(config: Path) -> None:
    config.write_text("a file")
    assert_fails_with(init(config), config)
    assert config.read_text() == "a file"


@pytest.mark.parametrize("home", ["/", "/nonexistent", "relative"])
def test_without_a_usable_home_the_error_names_the_options(short_path: Path, home: str) -> None:
    command = as_user(USER)
    short_path.chmod(0o755)
    done = ctl(short_path, "init", command=[*command, "env", f"HOME={home}"])
    assert done.returncode == 7
    for option in ("--state-dir", "--config-dir", "--socket"):
        assert option in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_beside_a_daemon_it_does_not_say_how_to_start_one(daemon: Daemon, short_path: Path) -> None:
    peers.require_root()
    daemon.root.chmod(0o755)
    daemon.start()
    home = short_path / "home"
    home.mkdir()
    os.chown(home, USER, USER)
    short_path.chmod(0o755)
    for expected in (f"a daemon runs already (pid {daemon.pid}); restart it", ""):
        done = ctl(home, "--socket", str(daemon.socket), "init", command=as_user(USER))
        assert done.returncode == 0, done.stderr
        assert "now run" not in done.stderr
        assert expected in done.stderr

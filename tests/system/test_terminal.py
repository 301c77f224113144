"""What only happens on a terminal: URIs are shown, codes are asked for, a spinner turns."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from support import peers
from support.daemon import Daemon
from support.terminal import CTRL_C, CTRL_D, secret_of, terminal, uris

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey


def run(home: Path, *arguments: str, stdout: Path | None = None) -> str:
    """What is shown when the command has succeeded."""
    with terminal(home, *arguments, stdout=stdout) as opened:
        status, shown = opened.finish()
    assert status == 0, shown
    return shown


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    """A daemon with the account default."""
    done = daemon.ctl("init", "--config-dir", str(daemon.config_dir))
    assert done.returncode == 0, done.stderr
    return daemon.start()


def test_init_shows_the_uri_and_its_codes_are_those_of_the_daemon(daemon: Daemon) -> None:
    shown = run(daemon.root, "init", "--config-dir", str(daemon.config_dir))
    (uri,) = uris(shown)
    daemon.start()
    generated = json.loads(daemon.ctl("generate", "--json").stdout)
    command = [peers.require("oathtool"), "--totp", "--base32", f"--now=@{generated['step'] * 30}"]
    done = subprocess.run([*command, secret_of(uri)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == generated["code"]


def test_on_a_terminal_hints_come_behind_what_they_are_about(daemon: Daemon) -> None:
    shown = run(daemon.root, "init", "--config-dir", str(daemon.config_dir))
    before, after = shown.split("pki2factl: hint: now run: ")
    assert "made " in before
    assert len(uris(before)) == 1
    assert "made " not in after


def test_init_shows_the_uri_once(daemon: Daemon) -> None:
    arguments = ("init", "--config-dir", str(daemon.config_dir))
    assert len(uris(run(daemon.root, *arguments))) == 1
    assert "otpauth" not in run(daemon.root, *arguments)


def test_a_uri_that_goes_to_a_file_or_beside_json_is_not_shown(daemon: Daemon) -> None:
    config_dir = f"--config-dir={daemon.config_dir}"
    assert not uris(run(daemon.root, "init", config_dir, "--uri-out", "uri"))
    (daemon.seeds_dir / "default.sealed").unlink()
    shown = run(daemon.root, "init", config_dir, "--json")
    assert "otpauth://" not in shown
    assert "URI is shown on a terminal only" in shown


def test_a_uri_does_not_get_into_a_file_from_a_terminal(daemon: Daemon) -> None:
    output = daemon.root / "output"
    shown = run(daemon.root, "init", f"--config-dir={daemon.config_dir}", stdout=output)
    assert "otpauth://" not in shown + output.read_text()
    assert "URI is shown on a terminal only" in shown


def test_a_spinner_turns_while_a_key_is_made_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for _ in range(20):  # a key may be found before the spinner begins to turn
        shown = run(tmp_path, "keygen", "--private", "host.pem", "--force")
        if not shown.startswith("private key:"):
            break
    spinner, result = shown.rsplit("\r", 1)
    assert "making an RSA-4096 key" in spinner
    assert result.startswith("private key: host.pem\n")


def test_seal_shows_the_uri_of_the_seed_that_it_sealed(tmp_path: Path, host_key: PrivateKey) -> None:
    (tmp_path / "host.pem").write_bytes(rsakeys.private_pem(host_key))
    (tmp_path / "host.pub.pem").write_bytes(rsakeys.public_pem(host_key.public_key()))
    sealed, uri = run(tmp_path, "seal", "--to", "host.pub.pem").splitlines()
    command = [peers.require("openssl"), "pkeyutl", "-decrypt", "-inkey", "host.pem"]
    for option in ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256"):
        command += ["-pkeyopt", option]
    done = subprocess.run(
        command, input=base64.b64decode(sealed), cwd=tmp_path, capture_output=True, check=True
    )
    seed = base64.b32encode(bytes.fromhex(done.stdout.decode())).decode()
    assert secret_of(uri) == seed.rstrip("=")


@pytest.mark.parametrize(
    ("before", "longest"),
    [("stty cols 0", 78), ("stty cols 60", 58), ("stty cols 200", 198), ("export COLUMNS=100", 98)],
)
def test_help_is_as_wide_as_the_terminal(tmp_path: Path, before: str, longest: int) -> None:
    with terminal(
        tmp_path, "--help", command=["sh", "-c", f'unset COLUMNS; {before}; exec "$@"', "sh"]
    ) as asked:
        status, shown = asked.finish()
    assert status == 0
    assert longest - 20 < max(map(len, shown.splitlines())) <= longest


def test_verify_asks_for_the_code_and_does_not_show_it(running: Daemon) -> None:
    code = running.ctl("generate").stdout.strip()
    with terminal(running.root, "--socket", str(running.socket), "verify") as opened:
        opened.wait_for("Code: ")
        opened.type(f"{code}\n")
        status, shown = opened.finish()
    assert (status, shown.splitlines()[-1]) == (0, "valid")
    assert code not in shown


@pytest.mark.parametrize("state", ["ended", "locked"])
def test_verify_asks_for_no_code_that_nobody_can_check(running: Daemon, state: str) -> None:
    if state == "ended":
        running.stop()
    else:
        running.ctl("lock")
    with terminal(running.root, "--socket", str(running.socket), "verify") as opened:
        status, shown = opened.finish()
    assert status == (3 if state == "ended" else 5)
    assert "Code" not in shown


def test_a_wrong_code_at_the_prompt_is_invalid(running: Daemon) -> None:
    code = running.ctl("generate").stdout.strip()
    running.ctl("verify", code)
    with terminal(running.root, "--socket", str(running.socket), "verify") as opened:
        opened.wait_for("Code: ")
        opened.type(f"{code}\n")
        status, shown = opened.finish()
    assert (status, shown.splitlines()[-1]) == (1, "invalid")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("\n", 6), ("12345\n", 6), ("12-34-56\n", 6), ("\uff11\uff12\uff13456\n", 6), (CTRL_C, 130)],
)
def test_what_is_no_code_at_the_prompt_ends_without_a_traceback(
    running: Daemon, typed: str, expected: int
) -> None:
    with terminal(running.root, "--socket", str(running.socket), "verify") as opened:
        opened.wait_for("Code: ")
        opened.type(typed)
        status, shown = opened.finish()
    assert status == expected
    assert "Traceback" not in shown


def test_an_end_of_file_at_the_prompt_is_wrong_usage(running: Daemon) -> None:
    with terminal(running.root, "--socket", str(running.socket), "verify") as opened:
        opened.wait_for("Code: ")
        opened.type(CTRL_D)
        status, shown = opened.finish()
    assert status == 2
    assert "Traceback" not in shown


def test_the_passphrase_of_the_key_that_opens_a_backup_is_asked_for(
    running: Daemon, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    home, socket = running.root, ("--socket", str(running.socket))
    (home / "offline.pem").write_bytes(rsakeys.private_pem(other_key, b"open, please"))
    for name, key in (("offline", other_key), ("host", host_key)):
        (home / f"{name}.pub.pem").write_bytes(rsakeys.public_pem(key.public_key()))
    assert running.ctl("backup", "--to=offline.pub.pem", "all.backup").returncode == 0
    key = ("--key=offline.pem", "--public-key=host.pub.pem")
    for passphrase, expected in (("wrong", 6), ("open, please", 0)):
        with terminal(home, *socket, "restore", "all.backup", *key) as opened:
            opened.wait_for("Passphrase of offline.pem: ")
            opened.type(f"{passphrase}\n")
            status, shown = opened.finish()
        assert status == expected, shown
        assert passphrase not in shown


def test_a_short_passphrase_is_refused_before_it_is_typed_again(tmp_path: Path) -> None:
    with terminal(tmp_path, "keygen", "--private", "host.pem", "--protect") as opened:
        opened.wait_for("New passphrase: ")
        opened.type("short\n")
        status, shown = opened.finish()
    assert status == 6
    assert "the passphrase has only 5 characters" in shown
    assert "Once more" not in shown
    assert "bad_request" not in shown

"""Standard streams that are full, closed, or cannot show what is printed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE, PKI2FACTL, Daemon, ctl, environment, short_directory

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey


@pytest.fixture(scope="module")
def running(host_key: PrivateKey) -> Iterator[Daemon]:
    """A daemon with the account default, which no test here changes."""
    with short_directory() as path:
        daemon = Daemon(path)
        daemon.install_key(rsakeys.private_pem(host_key))
        daemon.deliver("default", sealing.seal_seed(host_key.public_key(), bytearray(range(32))))
        try:
            yield daemon.start()
        finally:
            daemon.close()


COMMANDS = [("generate",), ("accounts",), ("status", "--json"), ("--help",), ("--version",)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_7_where_stdout_is_full(running: Daemon, command: tuple[str, ...]) -> None:
    done = running.ctl(*command, command=["sh", "-c", 'exec "$@" >/dev/full', "sh"])
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.startswith("pki2factl: error: ")
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_7_where_nobody_reads_stdout(running: Daemon, command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        done = subprocess.run(
            [PKI2FACTL, "--socket", str(running.socket), *command],
            env=environment(running.root),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (7, b"")


def closing(streams: str) -> list[str]:
    """What goes before a command for it to start with standard streams closed."""
    return ["sh", "-c", f'exec "$@" {streams}', "sh"]


@pytest.mark.parametrize(
    ("arguments", "expected"), [(["verify"], 2), (["verify", "--stdin"], 6), (["load"], 6)]
)
def test_a_closed_stdin_is_an_empty_one(running: Daemon, arguments: list[str], expected: int) -> None:
    done = running.ctl(*arguments, command=closing("<&-"))
    assert (done.returncode, done.stdout) == (expected, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["generate"], ["status", "--json"], ["init", "--config-dir", "new"]])
def test_a_closed_stdout_ends_in_no_traceback(running: Daemon, arguments: list[str]) -> None:
    done = running.ctl(*arguments, command=closing(">&-"))
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 7)


def test_with_a_closed_stderr_no_error_gets_onto_stdout(running: Daemon) -> None:
    done = running.ctl("generate", "nobody", command=closing("2>&-"))
    assert (done.returncode, done.stdout) == (6, "")


def test_a_key_can_be_made_with_all_streams_closed(tmp_path: Path) -> None:
    arguments = ("keygen", "--private", "new.pem", "--bits", "3072")
    ctl(tmp_path, *arguments, command=closing("<&- >&- 2>&-"))
    assert (tmp_path / "new.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert (tmp_path / "new.pub.pem").read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----\n")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_path_that_cannot_be_printed_ends_in_no_traceback(tmp_path: Path, encoding: str) -> None:
    name = os.fsdecode(b"\xff\xc3\xa9")
    env = {"PYTHONIOENCODING": f"{encoding}:strict"}
    made = ctl(tmp_path, "keygen", "--bits", "3072", "--private", f"{name}/host.pem", env=env)
    assert (made.returncode, "Traceback" in made.stderr) == (0, False)
    missing = ctl(tmp_path, "seal", "--to", f"{name}/nowhere.pem", env=env)
    assert (missing.returncode, "Traceback" in missing.stderr) == (7, False)

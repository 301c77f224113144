"""Every exit code of pki2factl for its reason, and that no failure ends in a traceback."""

import contextlib
import grp
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from support import peers
from support.daemon import PATIENCE, PKI2FACTL, PKI2FAD, Daemon, as_user, ctl

from pki2fad.crypto import sealing
from pki2fad.crypto.rsakeys import PrivateKey

STRANGER = 4711
SYSTEM_SOCKET = "/run/pki2fad/socket"


@pytest.fixture
def prepared(daemon: Daemon, host_key: PrivateKey) -> Daemon:
    """A daemon that will have the account default, not started yet."""
    daemon.deliver("default", sealing.seal_seed(host_key.public_key(), bytearray(range(32))))
    return daemon


@pytest.fixture
def running(prepared: Daemon) -> Daemon:
    return prepared.start()


def assert_fails(
    done: "subprocess.CompletedProcess[str]", code: int, error: str, hint: str | None = None
) -> None:
    """The exit code, nothing on stdout, on stderr the error and perhaps a hint, and no more."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"pki2factl: error: {error}")
    if hint is None:
        assert len(lines) == 1
    else:
        assert len(lines) == 2
        assert lines[1].startswith("pki2factl: hint: ")
        assert hint in lines[1]


@contextlib.contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A daemon that gives this to the first request of one connection, and ends it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(PATIENCE)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def error_answer(*error: Any) -> bytes:
    """The first response on a connection, to the request with the msgid 1."""
    packed = msgpack.packb([1, 1, list(error), None])
    assert isinstance(packed, bytes)
    return packed


def test_3_where_no_daemon_is_the_error_names_the_socket(daemon: Daemon) -> None:
    done = daemon.ctl("generate")
    assert_fails(done, 3, f"no daemon answers; tried {daemon.socket} (No such file", "--socket")


def test_3_where_init_never_ran_the_hint_is_to_run_it_and_later_to_start_the_daemon(short_path: Path) -> None:
    user = as_user(STRANGER)
    if os.path.lexists("/etc/pki2fad/host.pem"):
        peers.missing("a machine on which root never ran pki2factl init")
    if os.path.lexists(SYSTEM_SOCKET):
        peers.missing("a machine on which no pki2fad runs")
    os.chown(short_path, STRANGER, STRANGER)
    done = ctl(short_path, "status", command=user)
    assert_fails(done, 3, "no daemon answers", f"pki2fad has no key here yet: run '{PKI2FACTL} init'")
    assert ctl(short_path, "init", command=user).returncode == 0
    done = ctl(short_path, "status", command=user)
    assert_fails(done, 3, "no daemon answers", f"start it with '{PKI2FAD}'")


def test_3_where_a_daemon_was_killed_the_error_says_that_nobody_listens(running: Daemon) -> None:
    running.kill()
    done = running.ctl("status")
    assert_fails(
        done,
        3,
        f"no daemon answers; tried {running.socket} (Connection refused",
        f"nobody listens on {running.socket}; correct --socket, or start a daemon there with '{PKI2FAD} "
        f"--socket {running.socket}'",
    )


def test_3_where_the_environment_names_a_socket_only_that_is_tried(tmp_path: Path) -> None:
    done = ctl(tmp_path, "status", env={"PKI2FAD_SOCKET": "/nowhere/socket"})
    assert_fails(
        done,
        3,
        "no daemon answers; tried /nowhere/socket (No such file",
        "there is no /nowhere/socket; correct $PKI2FAD_SOCKET, or start a daemon there with "
        f"'{PKI2FAD} --socket /nowhere/socket'",
    )
    assert done.stderr.count("(") == 1


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_3_what_is_no_socket_is_called_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "other"
    if kind == "file":
        path.touch()
    else:
        path.mkdir()
    done = ctl(tmp_path, "--socket", str(path), "status")
    assert_fails(done, 3, "no daemon answers", f"hint: {path} is not a socket; name the daemon's with")


def test_3_where_nothing_is_named_the_error_lists_a_users_places_in_order(short_path: Path) -> None:
    command = as_user(STRANGER)
    if os.path.lexists(SYSTEM_SOCKET):
        peers.missing("a machine on which no pki2fad runs")
    run_time = short_path / "run"
    for directory in (short_path, run_time):
        directory.mkdir(exist_ok=True)
        os.chown(directory, STRANGER, STRANGER)
    done = ctl(short_path, "status", command=command, env={"XDG_RUNTIME_DIR": str(run_time)})
    assert_fails(done, 3, "no daemon answers; tried ", "--socket")
    tried = [
        run_time / "pki2fad" / "socket",
        short_path / ".local" / "state" / "pki2fad" / "run" / "socket",
        Path(SYSTEM_SOCKET),
    ]
    assert done.stderr.splitlines()[0].endswith(
        ", ".join(f"{path} (No such file or directory)" for path in tried)
    )


def test_3_where_the_socket_is_anothers_the_error_says_so(running: Daemon) -> None:
    command = as_user(STRANGER)  # the directory is its owner's alone
    done = running.ctl("status", command=command)
    text = f"hint: only root and the owner of its directory can reach {running.socket}"
    assert_fails(done, 3, "no daemon answers", text)


def test_3_who_may_not_connect_is_told_who_can(running: Daemon) -> None:
    command = as_user(STRANGER)
    running.root.chmod(0o755)
    running.socket.chmod(0o660)
    group = grp.getgrgid(running.socket.stat().st_gid).gr_name
    done = running.ctl("status", command=command)
    text = f"hint: only root and the group {group} can connect to {running.socket}"
    assert_fails(done, 3, "no daemon answers", text)


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["generate"], "generate"),
        (["verify", "123456"], "verify"),
        (["remove", "default"], "admin"),
        (["accounts"], "admin"),
        (["load", "sealed"], "admin"),
    ],
)
def test_4_a_user_without_the_role_is_told_which_one(
    running: Daemon, arguments: list[str], role: str
) -> None:
    running.root.chmod(0o755)
    (running.root / "sealed").write_bytes((running.seeds_dir / "default.sealed").read_bytes())
    done = running.ctl(*arguments, command=as_user(STRANGER))
    grant = f'in pki2fad.toml: [[access]] role = "{role}", who = [{STRANGER}]'
    assert_fails(done, 4, "forbidden: ", f"an administrator can grant it {grant}")
    assert repr(role) in done.stderr
    assert str(STRANGER) in done.stderr


def test_5_after_a_crash_of_the_machine_verify_says_when_to_try_again(prepared: Daemon) -> None:
    prepared.start(PKI2FAD_BOOT_ID="before")
    code = prepared.ctl("generate").stdout.strip()
    assert prepared.ctl("verify", code).stdout == "valid\n"
    prepared.kill()
    prepared.start(PKI2FAD_BOOT_ID="after")
    assert_fails(prepared.ctl("verify", code), 5, "unavailable: ", "try again in ")
    assert "verify answers for all accounts from " in prepared.ctl("status").stdout
    status = json.loads(prepared.ctl("status", "--json").stdout)
    assert status["unavailable_until"] > time.time()
    assert prepared.ctl("generate").returncode == 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("throttled", 5),
        ("locked", 5),
        ("unavailable", 5),
        ("bad_request", 6),
        ("unknown_method", 6),
        ("internal", 7),
        ("of_a_later_version", 7),
    ],
)
def test_each_error_of_the_wire_has_its_exit_code(short_path: Path, code: str, expected: int) -> None:
    path = short_path / "socket"
    with answering(path, error_answer(code, f"{code}: for a reason")):
        done = ctl(short_path, "--socket", str(path), "generate")
    assert done.returncode == expected
    assert "for a reason" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_seconds_to_wait_become_a_hint(short_path: Path) -> None:
    path = short_path / "socket"
    with answering(path, error_answer("throttled", "throttled: too many failures", 17)):
        done = ctl(short_path, "--socket", str(path), "verify", "123456")
    assert_fails(done, 5, "throttled: too many failures", "try again in 17 s")


def test_a_message_that_says_when_to_try_again_needs_no_hint(short_path: Path) -> None:
    path, message = (
        short_path / "socket",
        "throttled: too many failures; try again at 2026-01-31T12:34:56+00:00",
    )
    with answering(path, error_answer("throttled", message, 17)):
        done = ctl(short_path, "--socket", str(path), "verify", "123456")
    assert (done.returncode, done.stderr) == (5, f"pki2factl: error: {message}\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x94\x01\x01\xc0",
        msgpack.packb([1, 2, None, {}]),
        error_answer("throttled"),
        b"\xc1",
    ],
    ids=["nothing", "HTTP", "half an answer", "another's answer", "half an error", "not MessagePack"],
)
def test_7_what_answers_is_no_pki2fad(short_path: Path, answer: bytes) -> None:
    path = short_path / "socket"
    with answering(path, answer):
        done = ctl(short_path, "--socket", str(path), "generate")
    assert_fails(done, 7, "")


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("generate", None),
        ("generate", {"code": "123456"}),
        ("verify 123456", {}),
        ("verify 123456", ["valid"]),
        ("accounts", 7),
        ("accounts", [{"account": "default"}]),
        ("status", {}),
    ],
)
def test_7_what_answers_has_results_of_another_form(short_path: Path, command: str, result: Any) -> None:
    path = short_path / "socket"
    with answering(path, msgpack.packb([1, 1, None, result])):
        done = ctl(short_path, "--socket", str(path), *command.split())
    assert_fails(done, 7, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", os.fsdecode(b"\xff")],
        ["verify", os.fsdecode(b"12345\xff")],
        ["verify", "123456", "--account", os.fsdecode(b"\xff")],
        ["remove", os.fsdecode(b"\xed\xa0\x80")],
    ],
)
def test_6_bytes_that_are_no_text_are_a_bad_request(running: Daemon, arguments: list[str]) -> None:
    assert_fails(running.ctl(*arguments), 6, "bad_request: ")

"""A command that fails with `--json`: stdout has the failure as one JSON value, and stderr stays as it is."""

import inspect
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.daemon import PATIENCE, PKI2FACTL, Daemon, ctl
from support.documents import GUIDE
from support.raw import RESPONSE, Listener, RawPeer

from pki2factl import cli
from pki2fad import errors


def failure(done: "subprocess.CompletedProcess[str]", status: int) -> dict[str, Any]:
    """The one value on stdout of a command that fails so; stderr has its message too."""
    assert done.returncode == status, done.stderr
    assert done.stdout.endswith("}\n")
    value: dict[str, Any] = json.loads(done.stdout)
    assert set(value) == {"error", "message", "retry_after"}
    assert value["message"] in done.stderr
    return value


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_wrong_usage_of_any_command_is_printed_as_json(tmp_path: Path, command: str) -> None:
    found = failure(ctl(tmp_path, command, "--json", "--no-such-option"), 2)
    assert (found["error"], found["retry_after"]) == ("usage", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json"],
        ["--json", "status", "--no-such-option"],
        ["no-such-command", "--json"],
        ["proof", "--json"],
        ["proof", "create", "--json"],
        ["verify", "--json"],
        ["restore", "backup", "--public-key=key", "--json"],
    ],
)
def test_usage_that_is_wrong_anywhere_is_printed_as_json(tmp_path: Path, arguments: list[str]) -> None:
    assert failure(ctl(tmp_path, *arguments), 2)["error"] == "usage"


def test_behind_two_hyphens_json_is_no_option(tmp_path: Path) -> None:
    done = ctl(tmp_path, "remove", "--", "--json", "more")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "arguments", [["status"], ["remove", "a"], ["generate"], ["metrics"], ["verify", "123456"]]
)
def test_a_daemon_that_is_not_there_is_printed_as_json(tmp_path: Path, arguments: list[str]) -> None:
    done = ctl(tmp_path, "--socket=/nowhere/socket", *arguments, "--json")
    assert failure(done, 3)["error"] == "not_reachable"
    assert done.stderr.count("hint: ") == 1


@pytest.mark.parametrize(
    ("code", "retry_after", "status"),
    [
        ("throttled", 17, 5),
        ("unavailable", 42, 5),
        ("locked", None, 5),
        ("forbidden", None, 4),
        ("no_such_account", None, 6),
        ("internal", None, 7),
    ],
)
def test_a_refusal_is_printed_with_its_code_and_when_to_try_again(
    short_path: Path, code: str, retry_after: int | None, status: int
) -> None:
    def refuse(peer: RawPeer, _number: int) -> None:
        _, msgid, _, _ = peer.receive()
        peer.send(
            [RESPONSE, msgid, [code, f"{code}: for a reason", *([retry_after] if retry_after else [])], None]
        )

    with Listener(short_path / "socket", refuse) as listener:
        done = ctl(short_path, "--socket", listener.path, "verify", "123456", "--json")
    assert failure(done, status) == {"error": code, "message": "for a reason", "retry_after": retry_after}


def test_a_file_that_cannot_be_read_is_printed_as_json(daemon: Daemon) -> None:
    found = failure(daemon.ctl("load", "/nowhere/sealed", "--json"), 7)
    assert found["error"] == "unusable_path"
    assert "/nowhere/sealed" in found["message"]


def test_a_result_that_stdout_does_not_take_is_explained_on_stderr_alone(daemon: Daemon) -> None:
    daemon.start()
    command = [PKI2FACTL, "--socket", str(daemon.socket), "status", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
        )
    assert (done.returncode, done.stderr) == (
        7,
        "pki2factl: error: standard output: No space left on device\n",
    )


def test_the_guide_names_every_error_that_json_can_have() -> None:
    named = GUIDE.read_text().partition("## Exit codes")[2]
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass)]
    for code in {one.code for one in classes} | {"usage", "invalid", "input_output"}:
        assert f"`{code}`" in named

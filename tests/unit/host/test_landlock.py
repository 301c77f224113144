"""What the daemon gives up of itself."""

import json
import subprocess
import sys

import pytest
from support import peers

# Each attempt in a process that has given it up; prints the name of each error.
PROGRAM = """
import errno, json, os, sys, threading
from pki2fad.host.landlock import forbid_exec
def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
if not forbid_exec():
    sys.exit(77)
said = {
    "exec": attempt(os.execv, "/bin/sh", ["sh"]),
    "own interpreter": attempt(os.execv, sys.executable, [sys.executable]),
    "spawn": attempt(os.posix_spawn, "/bin/true", ["true"], {}),
}
def in_thread():
    said["thread"] = attempt(os.execv, "/bin/sh", ["sh"])
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
import _sqlite3  # a library that was not loaded before
with open(sys.argv[1] + ".new", "w") as file:
    file.write("x")
said["replace"] = attempt(os.rename, sys.argv[1] + ".new", sys.argv[1])
said["link"] = attempt(os.link, sys.argv[1], sys.argv[1] + ".old")
print(json.dumps(said))
"""


@pytest.fixture
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("confined") / "file"
    command = [sys.executable, "-P", "-c", PROGRAM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 77:
        peers.missing("a kernel with Landlock (5.13)")
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


def test_nothing_is_executed_any_more_by_no_thread_and_not_itself(said: dict[str, str]) -> None:
    refused = ("exec", "own interpreter", "spawn", "thread")
    assert {name: said[name] for name in refused} == dict.fromkeys(refused, "EACCES")


def test_libraries_are_loaded_and_files_replaced_as_before(said: dict[str, str]) -> None:
    assert (said["replace"], said["link"]) == ("done", "done")

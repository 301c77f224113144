"""`status` says what is wrong, and why to those who may know."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.agents import fill_disk, small_disk
from support.daemon import Daemon, as_user, code_of, wait_until
from support.peers import require_root

from pki2fad.errors import Unavailable

SEED = b"the seed of the tests of trouble"
STRANGER, ADMIN, MONITOR = 4242, 4243, 4244

RULES = f"""
[[access]]
role = "admin"
who = [{ADMIN}]
[[access]]
role = "monitor"
who = [{MONITOR}]
"""

# What somebody gets from a method without arguments.
ASK = """
import json, sys
from pki2fad.client import Client
with Client(sys.argv[1], 30) as client:
    print(json.dumps(getattr(client, sys.argv[2])()))
"""


def asked_as(uid: int, daemon: Daemon, method: str = "status") -> dict[str, Any]:
    command = [*as_user(uid), sys.executable, "-P", "-c", ASK, str(daemon.socket), method]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found: dict[str, Any] = json.loads(answer)
    return found


@pytest.fixture
def full(daemon: Daemon, seal: Callable[[bytes], bytes]) -> Iterator[Daemon]:
    """A daemon whose state is on a full disk."""
    require_root()
    daemon.root.chmod(0o755)
    daemon.configure(RULES)
    daemon.deliver("default", seal(SEED))
    daemon.state_dir.mkdir(0o700)
    with small_disk(daemon.state_dir, "4m") as disk:
        disk.chmod(0o700)
        daemon.start()
        fill_disk(disk / "filler")
        yield daemon
        daemon.close()


def test_nothing_is_wrong_at_first(daemon: Daemon) -> None:
    daemon.start()
    done = daemon.ctl("status", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "TROUBLE" not in done.stdout
    assert "pki2fad_troubles 0" in daemon.ctl("metrics").stdout


def test_a_full_disk_shows_until_there_is_room_again(full: Daemon) -> None:
    before = int(time.time())
    with full.client() as client, pytest.raises(Unavailable):
        client.verify(code_of(SEED, int(time.time()) // 30))
    done = full.ctl("status", "--check")
    assert done.returncode == 6
    assert "verify: unavailable" in done.stdout
    assert "a change could not be stored" in done.stdout
    assert "disk is full" in done.stdout
    assert full.ctl("status").returncode == 0
    (trouble,) = json.loads(full.ctl("status", "--json").stdout)["trouble"]
    assert trouble["what"] == "state"
    assert before <= trouble["since"] <= time.time()
    assert "pki2fad_troubles 1" in full.ctl("metrics").stdout
    (full.state_dir / "filler").unlink()
    with full.client() as client:
        wait_until(lambda: not client.status()["trouble"], "it stays wrong")
    assert "verify: available" in full.ctl("status", "--check").stdout


def test_why_is_for_root_the_daemons_user_and_administrators_of_all_accounts(full: Daemon) -> None:
    with full.client() as client, pytest.raises(Unavailable):
        client.verify(code_of(SEED, int(time.time()) // 30))
    (known,) = asked_as(ADMIN, full)["trouble"]
    assert "disk is full" in known["reason"]
    for uid, method in ((STRANGER, "status"), (MONITOR, "status"), (MONITOR, "metrics")):
        answer = asked_as(uid, full, method)
        assert answer["trouble"] == [{**known, "reason": None}]
        assert str(full.root) not in json.dumps(answer)


def test_where_it_logs_is_for_root_and_the_daemons_user_alone(daemon: Daemon) -> None:
    require_root()
    daemon.root.chmod(0o755)
    daemon.configure(RULES)
    daemon.start()
    with daemon.client() as client:
        assert client.status()["log"]["path"] == str(daemon.stderr)
        assert "log" not in client.metrics()
    for uid in (STRANGER, ADMIN, MONITOR):
        assert "log" not in asked_as(uid, daemon)


def test_a_reload_that_failed_shows_until_one_succeeds_and_systemd_is_not_told_why(daemon: Daemon) -> None:
    daemon.start()
    daemon.configure("[server]\nmax_connection = 1\n")
    said = daemon.reload()
    assert any("reload failed" in line for line in said)
    assert not any("max_connection" in line for line in said)
    done = daemon.ctl("status", "--check")
    assert done.returncode == 6
    assert "the last reload failed" in done.stdout
    assert "max_connection" in done.stdout
    daemon.configure("")
    assert not any("reload failed" in line for line in daemon.reload())
    assert daemon.ctl("status", "--check").returncode == 0

"""The system calls that the daemon makes are those that its unit allows."""

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import peers
from support.daemon import Daemon, as_user

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

UNIT = Path(__file__).parents[2] / "systemd" / "pki2fad.service"
PAIRS_OF_CHANGES = 500  # after so many the log is copied into the database, in a thread of its own
UID = 4242
SEED = b"a seed of the tracing tests....."


# What uvloop tries, and does without where it may not; with it files could be opened past the filter.
REFUSED = {"io_uring_setup", "io_uring_enter", "io_uring_register"}


def members(name: str) -> set[str]:
    """The calls of one of systemd's groups, or the call itself."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, timeout=30, check=True
    )
    names = re.findall(r"^ {4}(@?\w[\w-]*)$", listed.stdout, re.MULTILINE)
    return {call for each in names for call in members(each)}


def allowed() -> set[str]:
    """What the unit's filter lets pass; @default is what systemd adds by itself."""
    lines = re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE)
    return set().union(*map(members, ["@default", *" ".join(lines).split()]))


def work(daemon: Daemon, seal: Callable[[bytes], bytes]) -> None:
    """Have it do all that it does between its start and its end."""
    with daemon.client() as client:
        client.load(seal(SEED), "other")
        assert client.verify(client.generate("other").code, "other")
        client.lock()
        client.unlock()
        pid = client.status()["pid"]
        for _ in range(PAIRS_OF_CHANGES):
            client.load(seal(SEED), "another")
            client.remove("another")
    public = daemon.config_dir / "host.pub.pem"
    for command in (
        ["rotate-key", "--private", str(daemon.config_dir / "host.pem"), "--bits=3072"],
        ["backup", "--to", str(public), str(daemon.root / "backup")],
        ["restore", str(daemon.root / "backup")],
    ):
        done = daemon.ctl(*command)
        assert done.returncode == 0, done.stderr
    daemon.codes_log.rename(daemon.log_dir / "codes.log.1")
    os.kill(pid, signal.SIGHUP)
    daemon.wait_for("RELOADING=1")
    daemon.wait_for("READY=1")
    daemon.wait_for("WATCHDOG=1")
    os.kill(pid, signal.SIGTERM)
    assert daemon.wait() == 0


@pytest.fixture
def fast_state(daemon: Daemon) -> Iterator[None]:
    """The state in memory: a thousand changes that each wait for a disk take long."""
    peers.require_root()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        os.chown(directory, UID, UID)
        daemon.state_dir = Path(directory)
        yield


@pytest.mark.usefixtures("fast_state")
def test_the_filter_allows_what_the_daemon_calls(
    daemon: Daemon, seal: Callable[[bytes], bytes], host_key: PrivateKey
) -> None:
    peers.require("systemd-analyze")
    trace = daemon.root / "trace"
    (daemon.config_dir / "host.pub.pem").write_bytes(rsakeys.public_pem(host_key.public_key()))
    daemon.deliver("default", seal(SEED))
    strace = [peers.require("strace"), "-f", "-qq", "-e", "signal=none", "-o", str(trace)]
    daemon.give_to(UID)  # as in the unit: SQLite calls more as root
    daemon.start(command=[*as_user(UID), *strace], WATCHDOG_USEC="2000000")
    work(daemon, seal)
    called = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    print(*sorted(called))
    assert {"accept4", "memfd_secret", "fdatasync"} <= called
    assert called - allowed() - REFUSED == set()
    assert not REFUSED & allowed()

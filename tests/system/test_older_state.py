"""The installed daemon starts with what a daemon of version 0.1.0 left, and loses nothing of it."""

from pathlib import Path

import pytest
from support.daemon import Daemon
from support.oldstate import LOCKED, OLD_SCHEMA, VECTORS, OldState, Seed, code, query
from support.preload import Clock, environment

from pki2fad.crypto import rsakeys
from pki2fad.errors import Locked

HOUR = 3600.0


def deliver(daemon: Daemon, vector: Path) -> OldState:
    """Put the old daemon's state and key where the daemon looks for them."""
    daemon.install_key((vector / "host.pem").read_bytes())
    daemon.state_dir.mkdir(mode=0o700)
    old = OldState(daemon.state_dir, vector)
    (daemon.config_dir / "host.pub.pem").write_bytes(rsakeys.public_pem(old.private().public_key()))
    return old


def start(daemon: Daemon, clock: Clock, moment: float) -> None:
    clock.set(moment)
    daemon.start(**environment(clock))


def verify(daemon: Daemon, name: str, of: Seed, moment: float) -> bool:
    """Use the code of the middle of the window."""
    step = int(moment // of["period"]) + of.get("offset", 0)
    with daemon.client() as client:
        return client.verify(code(of, step), name)


@pytest.mark.parametrize("end", [Daemon.stop, Daemon.kill], ids=["stop", "SIGKILL"])
def test_the_daemon_goes_on_with_the_accounts_of_version_0_1_0(
    daemon: Daemon, clock: Clock, end: object
) -> None:
    old = deliver(daemon, VECTORS)
    assert query(old.path, "PRAGMA user_version") == [(OLD_SCHEMA,)]
    moment = old.reading().wall + HOUR  # another boot: floors are in force for two periods
    start(daemon, clock, moment)
    with daemon.client() as client:
        listed = [one.account for one in client.accounts()]
        assert listed == sorted(old.accounts)
        for name in listed:
            shown = client.generate(name)
            assert shown.code == code(old.accounts[name], shown.step)
    later = moment + HOUR
    clock.set(later)
    names = [name for name in old.accounts if name != "guessed"]  # which is closed to unknown callers
    assert [name for name in names if not verify(daemon, name, old.accounts[name], later)] == []
    assert callable(end)
    end(daemon)
    start(daemon, clock, later)
    assert [name for name in names if verify(daemon, name, old.accounts[name], later)] == []


def test_a_protected_key_of_version_0_1_0_opens_its_state(daemon: Daemon, clock: Clock) -> None:
    old = deliver(daemon, LOCKED)
    moment = old.reading().wall + HOUR
    start(daemon, clock, moment)
    with daemon.client() as client:
        with pytest.raises(Locked):
            client.generate()
        client.unlock(old.passphrase)
        shown = client.generate()
        assert shown.code == code(old.accounts["default"], shown.step)
    clock.set(moment + HOUR)
    assert verify(daemon, "default", old.accounts["default"], moment + HOUR)


def test_the_host_key_can_be_rotated_after_the_migration(daemon: Daemon, clock: Clock) -> None:
    old = deliver(daemon, VECTORS)
    moment = old.reading().wall + HOUR
    start(daemon, clock, moment)
    key = daemon.config_dir / "host.pem"
    done = daemon.ctl("rotate-key", "--private", str(key), "--bits", "3072")
    assert done.returncode == 0, done.stderr
    daemon.stop()
    start(daemon, clock, moment + HOUR)
    assert verify(daemon, "default", old.accounts["default"], moment + HOUR)
    assert not verify(daemon, "default", old.accounts["default"], moment + HOUR)

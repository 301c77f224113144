"""What a reboot and a rotation of the logs leave: used codes stay used, and the minute log goes on."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from support import peers, preload
from support.daemon import code_of, wait_until
from support.installed import SERVICE, Installed

from pki2fad.crypto.rsakeys import PrivateKey

pytestmark = pytest.mark.slow  # hosts are booted, or the software is installed on one

SEED = b"a seed of the machine tests....."
LOG = "/var/log/pki2fad/codes.log"
TRY_LATER, INVALID = 5, 1


@pytest.fixture
def clock(host: Installed) -> Iterator[preload.Clock]:
    """The wall clock of the daemon and of nothing else on the host."""
    preload.library("clock_shift", host.share)
    clock = preload.Clock(host.share / "clock", "/run/share/clock_shift.so")
    (host.share / "clock").chmod(0o666)
    variables = {
        name: value.replace(str(host.share), "/run/share")
        for name, value in preload.environment(clock).items()
    }
    host.drop_in(
        "[Service]\nReadWritePaths=/run/share\n"
        + "".join(f"Environment={name}={value}\n" for name, value in variables.items()),
        "clock.conf",
    )
    yield clock
    clock.close()


@pytest.fixture
def host(layer: Path, host_key: PrivateKey) -> Iterator[Installed]:
    """A host that starts the daemon when it boots, with a minute log."""
    with Installed("machine", layer) as host:
        host.prepare(host_key, default=SEED)
        host.write("/etc/pki2fad/pki2fad.toml", '[minute_log]\naccounts = ["default"]\n')
        host.systemctl("enable", "pki2fad.socket", SERVICE)
        yield host


def verdict(host: Installed, code: str) -> int:
    return host.run("pki2factl", "verify", code, check=False).returncode


def lines(host: Installed, name: str = LOG) -> list[str]:
    return host.path(name).read_text().splitlines()


def minute_of(line: str) -> str:
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d):\d\d - 2FA Code: \d{6}", line)
    assert found is not None, line
    return found[1]


@pytest.mark.parametrize("how", ["reboot", "crash"])
def test_a_code_that_was_used_is_refused_after_a_reboot(
    host: Installed, clock: preload.Clock, how: str
) -> None:
    host.systemctl("start")
    code = host.ctl("generate")
    assert (verdict(host, code), verdict(host, code)) == (0, INVALID)
    host.stop() if how == "reboot" else host.crash()
    host.start()
    assert verdict(host, code) == TRY_LATER
    (waits,) = [line for line in host.messages() if line.startswith("verify_waits ")]
    until = int(datetime.fromisoformat(re.search(r"until=(\S+)", waits)[1]).timestamp())
    assert clock.now() < until <= clock.now() + 60
    # Nothing is lost but time: it is over when it says.
    assert verdict(host, host.ctl("generate")) == TRY_LATER
    clock.set(until)
    clock.wait_for_a_look()
    fresh = host.ctl("generate")
    assert fresh == code_of(SEED, int(clock.now()) // 30)
    assert (verdict(host, fresh), verdict(host, fresh), verdict(host, code)) == (0, INVALID, INVALID)


def test_after_a_restart_alone_nobody_waits(host: Installed) -> None:
    host.systemctl("start")
    code = host.ctl("generate")
    assert verdict(host, code) == 0
    host.systemctl("restart")
    assert verdict(host, code) == INVALID
    assert not [line for line in host.messages() if line.startswith("verify_waits ")]


def test_accounts_survive_a_reboot(host: Installed) -> None:
    host.systemctl("start")
    host.run("pki2factl", "load", "--account=other", "/etc/pki2fad/seeds.d/default.sealed")
    before = host.ctl("accounts", "--json")
    host.reboot()
    assert host.ctl("accounts", "--json") == before


def test_the_minute_log_goes_on_over_a_reboot(host: Installed, clock: preload.Clock) -> None:
    clock.set(1_800_000_030)
    host.systemctl("start")
    assert len(lines(host)) == 1
    host.reboot()
    assert len(lines(host)) == 1  # this minute has its code
    clock.set(1_800_000_061)
    wait_until(lambda: len(lines(host)) == 2, "no line for the next minute")
    assert [minute_of(line) for line in lines(host)] == ["2027-01-15 08:00", "2027-01-15 08:01"]


def test_a_rotated_log_is_left_and_a_new_one_written(host: Installed, clock: preload.Clock) -> None:
    peers.require("logrotate")
    clock.set(1_800_000_030)
    host.systemctl("start")
    old = lines(host)
    host.run("logrotate", "--force", "/etc/logrotate.d/pki2fad")
    assert not host.path(LOG).exists()
    clock.set(1_800_000_061)
    wait_until(host.path(LOG).exists, "no new file was made")
    wait_until(lambda: lines(host), "no line for the next minute")
    assert [minute_of(line) for line in lines(host)] == ["2027-01-15 08:01"]
    assert lines(host, f"{LOG}.1") == old
    shown = host.run("stat", "--format=%a %U %G", LOG, f"{LOG}.1").stdout.splitlines()
    assert shown == ["600 pki2fad pki2fad"] * 2


def test_a_log_that_is_rotated_for_weeks_is_compressed_and_kept(
    host: Installed, clock: preload.Clock
) -> None:
    peers.require("logrotate")
    clock.set(1_800_000_030)
    host.systemctl("start")
    for minute in range(1, 4):
        host.run("logrotate", "--force", "/etc/logrotate.d/pki2fad")
        clock.set(1_800_000_000 + 60 * minute + 1)
        wait_until(lambda: host.path(LOG).exists() and lines(host), "no line for the next minute")
    kept = host.run("ls", "/var/log/pki2fad").stdout.split()
    assert kept == ["codes.log", "codes.log.1", "codes.log.2.gz", "codes.log.3.gz"]
    modes = host.sh("stat --format='%a %U' /var/log/pki2fad/*").stdout.splitlines()
    assert modes == ["600 pki2fad"] * 4

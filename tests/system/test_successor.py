"""A new seed for an account, with a real daemon; oathtool makes the codes."""

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.peers import require
from support.preload import Clock, environment
from support.raw import Seal

from pki2fad.client import Client
from pki2fad.errors import AccountExists, BadRequest

OLD, NEW = bytes(range(20)), bytes(range(32))
DAY = 86_400
START = 1_900_000_010.0  # in a step of 30 seconds, and of 60


def oathtool(seed: bytes, moment: float) -> str:
    """The old seed has the usual parameters, the new one others."""
    of = ["--totp=SHA256", "--digits=8", "--time-step-size=60s"] if seed == NEW else ["--totp"]
    command = [require("oathtool"), *of, f"--now=@{int(moment)}", seed.hex()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Handover:
    """A daemon with an account and its successor, under a clock that the test sets."""

    def __init__(self, daemon: Daemon, clock: Clock, seal: Seal) -> None:
        self.daemon = daemon
        self.clock = clock
        self._seal = seal
        clock.set(START)
        self.start()
        with daemon.client() as client:
            client.load(seal(OLD))

    def start(self) -> None:
        self.daemon.start(**environment(self.clock))

    def load(self, *, deadline: int | None = None, cutover: bool = False, replace: bool = False) -> bool:
        with self.daemon.client() as client:
            return client.load(
                self._seal(NEW),
                algorithm="SHA256",
                digits=8,
                period=60,
                replace=replace,
                successor=True,
                deadline=deadline,
                cutover=cutover,
            )

    def verify(self, seed: bytes, moment: float) -> bool:
        with self.daemon.client() as client:
            return client.verify(oathtool(seed, moment))


@pytest.fixture
def handover(daemon: Daemon, clock: Clock, seal: Seal) -> Handover:
    return Handover(daemon, clock, seal)


def restart(daemon: Daemon) -> None:
    assert daemon.stop() == 0


@pytest.mark.parametrize("end", [restart, Daemon.kill], ids=["restart", "SIGKILL"])
def test_the_first_code_of_the_new_seed_ends_the_old_one_and_none_is_good_twice(
    handover: Handover, end: Callable[[Daemon], None]
) -> None:
    assert handover.load()
    assert not handover.load()
    assert handover.verify(OLD, START)
    end(handover.daemon)
    handover.start()
    assert not handover.verify(OLD, START)
    assert handover.verify(OLD, START + 30)
    assert handover.verify(NEW, START)
    assert "audit=promoted" in handover.daemon.log()
    end(handover.daemon)
    handover.start()
    assert not handover.verify(NEW, START)
    handover.clock.set(START + 60)
    assert not handover.verify(OLD, START + 60)
    assert handover.verify(NEW, START + 60)
    with handover.daemon.client() as client:
        assert client.generate().code == oathtool(NEW, START + 60)
        (account,) = client.accounts()
        assert (account.algorithm, account.digits, account.period) == ("SHA256", 8, 60)
        assert account.successor is None


def test_at_the_deadline_the_successor_is_dropped(handover: Handover) -> None:
    handover.load(deadline=int(START) + DAY)
    handover.clock.set(START + DAY - 60)
    assert handover.verify(OLD, START + DAY - 60)
    handover.clock.set(START + DAY)
    assert not handover.verify(NEW, START + DAY)
    assert handover.verify(OLD, START + DAY)
    handover.daemon.kill()
    handover.start()
    assert not handover.verify(NEW, START + DAY)
    assert not handover.verify(OLD, START + DAY)
    assert handover.verify(OLD, START + DAY + 30)


def test_at_the_deadline_with_cutover_the_old_seed_is_dropped(handover: Handover) -> None:
    handover.load(deadline=int(START) + DAY, cutover=True)
    assert handover.verify(OLD, START)
    handover.clock.set(START + DAY)
    assert not handover.verify(OLD, START + DAY)
    with handover.daemon.client() as client:
        assert client.generate().code == oathtool(NEW, START + DAY)
    handover.daemon.kill()
    handover.start()
    assert not handover.verify(OLD, START + DAY)
    assert handover.verify(NEW, START + DAY)
    assert not handover.verify(NEW, START + DAY)


def test_a_deadline_that_passed_while_the_daemon_was_down_is_made_permanent_at_the_start(
    daemon: Daemon, clock: Clock, seal: Seal
) -> None:
    handover = Handover(daemon, clock, seal)
    handover.load(deadline=int(START) + DAY, cutover=True)
    daemon.stop()
    clock.set(START + DAY)
    synchronised = Path("/run/systemd/timesync/synchronized").exists()
    handover.start()
    daemon.ctl("status")  # answered after what is due at a start
    assert ("successor_due account=default" in daemon.log()) is synchronised  # else the time is not believed
    with daemon.client() as client:
        client.clock_accept()
    daemon.stop()
    handover.start()
    daemon.ctl("status")
    assert "successor_due account=default" in daemon.log()
    assert handover.verify(NEW, START + DAY)


def test_refusals_of_the_daemon_are_the_clients_exceptions(handover: Handover, seal: Seal) -> None:
    handover.load()
    with pytest.raises(AccountExists):
        handover.load(deadline=int(START) + DAY)
    assert handover.load(deadline=int(START) + DAY, replace=True)
    with pytest.raises(BadRequest, match="deadline"):
        handover.load(deadline=int(START) - 1, replace=True)
    with handover.daemon.client() as client, pytest.raises(BadRequest):
        client.load(seal(OLD), successor=True)


# The commands


@pytest.fixture
def sealed_file(daemon: Daemon, seal: Seal) -> Path:
    """With a daemon that has the old seed, a file with the new one."""
    path = daemon.deliver("default", seal(NEW))
    new = path.rename(daemon.root / "new.sealed")
    daemon.start()
    with daemon.client() as client:
        client.load(seal(OLD))
    return new


def successor(client: Client) -> dict[str, object] | None:
    (account,) = client.accounts()
    return account.successor


def test_a_successor_is_loaded_and_listed_by_the_commands(daemon: Daemon, sealed_file: Path) -> None:
    load = ["load", str(sealed_file), "--successor", "--digits=8", "--deadline=2099-12-31"]
    assert daemon.ctl(*load).stdout == "loaded a successor of default\n"
    assert daemon.ctl(*load).stdout == "default has this successor already\n"
    listed = daemon.ctl("accounts").stdout
    deadline = datetime(2099, 12, 31, tzinfo=UTC).astimezone().isoformat()
    assert listed.endswith(f"; successor: SHA1, 8 digits, 30 s, until {deadline}\n")
    refused = daemon.ctl(*load, "--cutover")
    assert refused.returncode == 6
    assert "account_exists" in refused.stderr
    assert json.loads(daemon.ctl(*load, "--cutover", "--replace", "--json").stdout)["changed"] is True
    assert f"takes over at {deadline}" in daemon.ctl("accounts").stdout
    (row,) = json.loads(daemon.ctl("accounts", "--json").stdout)
    of = {"algorithm": "SHA1", "digits": 8, "period": 30}
    assert row["successor"] == {**of, "deadline": 4_102_358_400, "cutover": True}


@pytest.mark.parametrize(
    ("when", "deadline"),
    [
        ("2099-12-31", 4_102_358_400),
        ("2099-12-31T12:00:00Z", 4_102_401_600),
        ("2099-12-31T12:00:00", 4_102_401_600),
        ("2099-12-31T12:00:00+02:00", 4_102_394_400),
    ],
)
def test_a_deadline_is_a_date_or_a_time_in_utc(
    daemon: Daemon, sealed_file: Path, when: str, deadline: int
) -> None:
    done = daemon.ctl("load", str(sealed_file), "--successor", f"--deadline={when}")
    assert done.returncode == 0, done.stderr
    with daemon.client() as client:
        assert successor(client) == {
            "algorithm": "SHA1",
            "digits": 6,
            "period": 30,
            "deadline": deadline,
            "cutover": False,
        }


@pytest.mark.parametrize(("when", "seconds"), [("+7d", 7 * DAY), ("+12h", DAY // 2)])
def test_a_deadline_is_so_many_days_or_hours_from_now(
    daemon: Daemon, clock: Clock, sealed_file: Path, when: str, seconds: int
) -> None:
    daemon.stop()
    clock.set(START)
    daemon.start(**environment(clock))
    before = int(clock.now())
    done = daemon.ctl("load", str(sealed_file), "--successor", f"--deadline={when}", env=environment(clock))
    assert done.returncode == 0, done.stderr
    with daemon.client() as client:
        of = successor(client)
    assert of is not None
    assert before <= int(str(of["deadline"])) - seconds <= clock.now()


@pytest.mark.parametrize("when", ["", "tomorrow", "7d", "+7", "+7w", "2099-13-01", "4102358400"])
def test_a_deadline_that_is_none_is_wrong_usage(daemon: Daemon, sealed_file: Path, when: str) -> None:
    done = daemon.ctl("load", str(sealed_file), "--successor", f"--deadline={when}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "+7d" in done.stderr
    with daemon.client() as client:
        assert successor(client) is None


def test_what_makes_no_sense_without_a_successor_is_refused(daemon: Daemon, sealed_file: Path) -> None:
    for options in (["--cutover"], ["--deadline=+1d"], ["--successor", "--cutover"]):
        done = daemon.ctl("load", str(sealed_file), "--replace", *options)
        assert (done.returncode, done.stdout) == (6, "")
        assert "bad_request" in done.stderr

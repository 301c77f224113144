"""A host whose clock is wrong, and provers whose clocks are, under a clock that the tests set."""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from support.agents import oathtool_code
from support.daemon import Daemon, Mounts, as_user, wait_until
from support.preload import Clock, environment
from support.raw import Seal

SEED = b"a seed of the tests of the clock"
HOUR = 3600
UID = 4242


@pytest.fixture
def running(daemon: Daemon, clock: Clock, seal: Seal) -> Daemon:
    """A daemon with an account, which has looked at a clock that is right."""
    daemon.deliver("default", seal(SEED))
    clock.set(time.time())
    daemon.start(**environment(clock))
    clock.wait_for_a_look()
    return daemon


def code(clock: Clock, steps: int = 0) -> str:
    """The code of a step counted from now, as another implementation makes it."""
    return oathtool_code(SEED, clock.now() + steps * 30)


def set_by(clock: Clock, seconds: float) -> None:
    clock.set(clock.now() + seconds)
    clock.wait_for_a_look()


def begin_step(clock: Clock) -> None:
    """Go to the beginning of a step, so that this one is the same for some seconds."""
    clock.set((clock.now() // 30 + 1) * 30)


def use(daemon: Daemon, clock: Clock, steps: int = 0) -> str:
    """Have the code of a step counted from now accepted."""
    used = code(clock, steps)
    said = daemon.ctl("verify", used)
    assert (said.stdout, said.returncode) == ("valid\n", 0), said.stderr
    return used


# The host's clock


def test_a_clock_that_is_set_back_is_said_and_verify_waits_until_it_is_accepted(
    running: Daemon, clock: Clock
) -> None:
    assert "behind" not in running.ctl("status").stdout
    set_by(clock, -HOUR)
    wait_until(lambda: "clock_behind" in running.log(), "nothing is said")
    (said,) = [line for line in running.log().splitlines() if "clock_set" in line]
    assert "-3600 s" in said
    status = running.ctl("status")
    assert "s behind what it was" in status.stdout
    assert "pki2factl clock accept" in status.stdout
    assert running.ctl("status", "--check").returncode == 6
    assert HOUR - 60 < json.loads(running.ctl("status", "--json").stdout)["clock_behind"] <= HOUR

    refused = running.ctl("verify", code(clock))
    assert (refused.stdout, refused.returncode) == ("", 5)
    assert "pki2factl clock accept" in refused.stderr
    assert running.ctl("generate").stdout.strip() == code(clock)

    accepted = running.ctl("clock", "accept")
    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert accepted.stdout.startswith("accepted 20")
    use(running, clock)
    wait_until(lambda: "clock_caught_up" in running.log(), "it is not said that it is good again")
    assert "behind" not in running.ctl("status").stdout


def test_a_clock_that_was_set_back_while_the_daemon_was_down_is_said_at_the_start(
    running: Daemon, clock: Clock
) -> None:
    running.stop()
    clock.set(clock.now() - HOUR)
    running.start(**environment(clock))
    wait_until(lambda: "clock_behind" in running.log(), "nothing is said")
    assert running.ctl("verify", code(clock)).returncode == 5
    running.ctl("clock", "accept")
    running.kill()
    running.start(**environment(clock))
    use(running, clock)


def test_a_clock_that_passes_what_it_was_is_good_again_by_itself(running: Daemon, clock: Clock) -> None:
    set_by(clock, -HOUR)
    assert running.ctl("verify", code(clock)).returncode == 5
    set_by(clock, HOUR + 1)
    use(running, clock)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [None, Daemon.stop, Daemon.kill], ids=["running", "stopped", "killed"])
def test_codes_that_were_used_ahead_are_not_good_again_when_their_time_comes(
    running: Daemon, clock: Clock, ends: Callable[[Daemon], object] | None
) -> None:
    def restart() -> None:
        if ends is not None:
            ends(running)
            running.start(**environment(clock))
            clock.wait_for_a_look()

    set_by(clock, HOUR)
    begin_step(clock)
    used_at = clock.now()
    used = [use(running, clock, step) for step in (-1, 0, 1)]
    restart()
    set_by(clock, -HOUR)
    refused = running.ctl("verify", code(clock))  # the watermark is an hour ahead
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "clock accept" in refused.stderr
    accepted = json.loads(running.ctl("clock", "accept", "--json").stdout)
    assert accepted["time"] < accepted["spent_from"] < used_at < accepted["spent_until"]
    restart()
    begin_step(clock)
    begin_step(clock)  # two periods, at most
    use(running, clock)

    for late in (-45, -15, 15, 45, 75):
        clock.set(used_at + late)
        for again in used:
            assert running.ctl("verify", again).returncode == 5
    clock.set(used_at + 130)
    assert [running.ctl("verify", again).stdout for again in used] == ["invalid\n"] * 3
    use(running, clock)


@pytest.mark.slow
def test_what_stays_spent_is_said_and_status_says_it_when_the_time_has_come(
    running: Daemon, clock: Clock
) -> None:
    set_by(clock, HOUR)
    used_at = clock.now()
    use(running, clock)
    set_by(clock, -HOUR)
    accepted, spent = running.ctl("clock", "accept").stdout.splitlines()
    assert accepted.startswith("accepted 20")
    assert "stay spent" in spent
    since, until = (
        datetime.fromisoformat(found).timestamp()
        for found in re.findall(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", spent)
    )
    assert clock.now() < since < used_at < until <= used_at + 60
    assert "verify answers for all accounts from" not in running.ctl("status").stdout
    clock.set(until - 1)
    assert "verify answers for all accounts from" in running.ctl("status").stdout
    clock.set(until + 90)
    assert "verify answers for all accounts from" not in running.ctl("status").stdout


def test_only_administrators_of_all_accounts_say_that_the_clock_is_right(
    running: Daemon, clock: Clock
) -> None:
    running.configure(f'[[access]]\nrole = "admin"\nwho = [{UID}]\naccounts = ["default"]\n')
    running.root.chmod(0o755)
    running.reload()
    set_by(clock, -HOUR)
    user = as_user(UID)
    refused = running.ctl("clock", "accept", command=user)
    assert refused.returncode == 4
    assert "for all accounts" in refused.stderr
    assert running.ctl("verify", code(clock)).returncode == 5


def test_clock_alone_is_not_enough(running: Daemon) -> None:
    assert running.ctl("clock").returncode == 2
    assert running.ctl("clock", "set").returncode == 2


@pytest.fixture
def timesync(daemon: Daemon) -> Iterator[Mounts]:
    """A mount namespace in which systemd-timesyncd has not set the clock yet."""
    mounts = Mounts("mount -t tmpfs tmpfs /run\nmkdir -p /run/systemd/timesync")
    yield mounts
    daemon.close()
    mounts.close()


@pytest.mark.slow
def test_a_clock_that_timesyncd_has_set_is_synchronised(
    daemon: Daemon, clock: Clock, timesync: Mounts, seal: Seal
) -> None:
    daemon.deliver("default", seal(SEED))
    clock.set(time.time())
    daemon.start(command=timesync.enter, **environment(clock))
    assert "clock: not set by systemd-timesyncd" in daemon.ctl("status").stdout
    set_by(clock, HOUR)
    set_by(clock, -HOUR)
    assert json.loads(daemon.ctl("status", "--json").stdout)["clock_behind"] == 0  # it was not believed
    timesync.path("/run/systemd/timesync/synchronized").touch()
    wait_until(lambda: "clock: synchronised" in daemon.ctl("status").stdout, "it is not seen")
    set_by(clock, HOUR)
    set_by(clock, -HOUR)
    assert json.loads(daemon.ctl("status", "--json").stdout)["clock_behind"] > HOUR - 60
    assert daemon.ctl("verify", code(clock)).returncode == 5


# Provers' clocks


def test_an_authenticator_that_is_off_is_followed_by_two_of_its_codes(running: Daemon, clock: Clock) -> None:
    begin_step(clock)
    assert running.ctl("verify", code(clock, 5)).stdout == "invalid\n"
    said = running.ctl("resync", "default", "--stdin", input=f"{code(clock, 4)}\n{code(clock, 5)}\n")
    assert (said.stdout, said.returncode) == ("default: the authenticator is +5 steps from now\n", 0)
    used = use(running, clock, 6)
    assert running.ctl("verify", used).stdout == "invalid\n"
    assert running.ctl("verify", code(clock)).stdout == "invalid\n"
    accounts = running.ctl("accounts").stdout
    assert "drift: +6" in accounts
    assert "offset: +5" in accounts
    running.kill()
    running.start(**environment(clock))
    clock.set(clock.now() + 60)
    use(running, clock, 5)


def test_codes_that_do_not_follow_each_other_are_refused(running: Daemon, clock: Clock) -> None:
    begin_step(clock)
    for steps in ((5, 4), (4, 6), (11, 12)):
        codes = " ".join(code(clock, step) for step in steps)
        refused = running.ctl("resync", "default", "--stdin", input=codes)
        assert (refused.stdout, refused.returncode) == ("", 6), steps
    assert "offset" not in running.ctl("accounts").stdout


@pytest.mark.parametrize("given", ["123456", "123456 123457 123458", ""])
def test_it_has_to_be_two_codes(running: Daemon, given: str) -> None:
    refused = running.ctl("resync", "default", "--stdin", input=given)
    assert refused.returncode == 2
    assert "two codes" in refused.stderr


def test_without_a_terminal_codes_come_from_standard_input(running: Daemon) -> None:
    refused = running.ctl("resync", "default")
    assert refused.returncode == 2
    assert "--stdin" in refused.stderr


def test_accounts_shows_the_drift_of_an_authenticator_and_nothing_of_one_that_is_right(
    running: Daemon, clock: Clock
) -> None:
    begin_step(clock)
    use(running, clock)
    assert "drift" not in running.ctl("accounts").stdout
    for steps in (-1, 1, -1):
        clock.set(clock.now() + 90)
        use(running, clock, steps)
    assert "drift: +0 -1 +1 -1" in running.ctl("accounts").stdout
    (account,) = json.loads(running.ctl("accounts", "--json").stdout)
    assert (account["drift"], account["offset"]) == ([0, -1, 1, -1], 0)
    clock.set(clock.now() + 90)
    assert running.ctl("verify", code(clock, -2)).stdout == "invalid\n"  # it widens no window

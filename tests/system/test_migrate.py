"""`pki2factl migrate`: from the old service's plain files to a daemon that goes on where it ended."""

import os
import re
import stat

import pytest
from support.daemon import as_user, ctl, wait_until
from support.oldservice import BASE, OLD_LINES, OTHER_SEED, SEED, OldService, oathtool, relay
from support.preload import Clock

UID = 4711


# The seed


def test_the_daemon_makes_oathtools_codes_of_the_old_seed(beside: OldService) -> None:
    done = beside.migrate(log=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"loaded default\nnow to be destroyed: {beside.seed}\n"
    beside.assert_makes_codes_of(SEED)


def test_what_to_do_next_is_hinted(beside: OldService) -> None:
    hints = beside.migrate().stderr
    assert all(line.startswith("pki2factl: hint: ") for line in hints.splitlines())
    assert "stop the old service" in hints
    assert f"with --shred, or run: shred -u {beside.log} {beside.seed}\n" in hints
    assert "backups" in hints


def test_it_stays_over_a_restart(beside: OldService) -> None:
    beside.migrate()
    beside.daemon.kill()
    beside.daemon.start()
    beside.assert_makes_codes_of(SEED)


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " \t{}", "\n\n{} \n\n"])
def test_white_space_around_the_seed_is_no_part_of_it(beside: OldService, around: str) -> None:
    beside.seed.write_text(around.format(SEED), newline="")
    beside.migrated(log=False)
    beside.assert_makes_codes_of(SEED)


def test_another_account_may_take_it(beside: OldService) -> None:
    beside.load(OTHER_SEED)
    assert beside.migrated("--account=web", log=False)["account"] == "web"
    beside.assert_makes_codes_of(SEED, "web")
    beside.assert_makes_codes_of(OTHER_SEED)


def test_as_json_it_says_what_was_done_and_what_is_left_to_do(beside: OldService) -> None:
    first, again = beside.migrated(), beside.migrated("--shred")
    both = [str(beside.log), str(beside.seed)]
    log = str(beside.daemon.codes_log)
    same = {"account": "default", "log": log}
    assert first == {**same, "changed": True, "plaintext": both, "destroyed": []}
    assert again == {**same, "changed": False, "plaintext": [], "destroyed": both}
    beside.seed.write_text(SEED)
    assert beside.migrated(log=False) == {
        **same,
        "changed": False,
        "log": None,
        "plaintext": both[1:],
        "destroyed": [],
    }


# The log


def test_the_minute_log_goes_on_from_the_old_one_with_no_second_line_for_a_minute(
    timed: OldService, clock: Clock
) -> None:
    said = timed.minute_log()
    done = timed.migrate()
    assert done.returncode == 0, done.stderr
    assert f"continued {timed.daemon.codes_log}\n" in done.stdout
    clock.wait_for_a_look()
    assert timed.minute_log() == OLD_LINES + said
    clock.set(BASE + 60 + 5)
    wait_until(lambda: timed.minute_log() != OLD_LINES + said, "the daemon does not go on")
    stamp, code = re.fullmatch(
        r"2024-01-31 12:31:(\d\d) - 2FA Code: (\d{6})\n", timed.minute_log().removeprefix(OLD_LINES + said)
    ).groups()  # type: ignore[union-attr]
    assert code == oathtool(SEED, BASE + 60 + int(stamp))
    assert stat.S_IMODE(timed.daemon.codes_log.stat().st_mode) == 0o600
    assert timed.log.read_text() == OLD_LINES


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "2024-01-31 12:30:01 UTC - 2FA Code: 000003",
        "2024-01-31 12:30:01 UTC 2FA Code: 000003",
        "2024-01-31 12:30:01 UTC - 000003",
        "2024-01-31T12:30:01 2FA=000003",
        "2024-01-31T12:30:01Z OTP=000003",
        "2024-01-31 12:30:01 utc - 2fa code: 000003",
    ],
)
def test_the_lines_of_other_services_of_the_family_are_continued_in_the_minute_logs_form(
    timed: OldService, clock: Clock, line: str
) -> None:
    said = timed.minute_log()
    timed.log.write_text(f"{line}\n")
    for _ in range(2):
        timed.migrated()
        clock.wait_for_a_look()
        assert timed.minute_log() == "2024-01-31 12:30:01 - 2FA Code: 000003\n" + said


@pytest.mark.slow
def test_a_log_of_codes_alone_is_continued(timed: OldService) -> None:
    timed.log.write_text("000001\n000002\n")
    timed.migrated()
    assert timed.minute_log().startswith("000001\n000002\n")


def test_a_line_that_cannot_be_read_is_shown_and_kept(beside: OldService) -> None:
    strange = "31.01.2024 12:30 code 000003\n"
    beside.log.write_text(OLD_LINES + strange)
    done = beside.migrate()
    assert done.returncode == 0
    assert f"{beside.log}: line 5 is 31.01.2024 12:30 code …; it is kept as it is" in done.stderr
    assert beside.minute_log().startswith(OLD_LINES + strange)


@pytest.mark.slow
def test_a_minute_that_the_old_log_lacks_gets_its_line_at_once(timed: OldService) -> None:
    timed.log.write_text(OLD_LINES.replace("12:30:01", "12:29:31"))
    timed.migrate()
    wait_until(lambda: timed.minute_log().count("12:30:") == 2, "there is no line for this minute")


@pytest.mark.slow
def test_where_there_is_no_minute_log_it_begins_with_the_old_lines(timed: OldService, clock: Clock) -> None:
    timed.daemon.codes_log.unlink()
    timed.log.write_text(OLD_LINES.removesuffix("\n"))
    timed.migrated()
    clock.wait_for_a_look()
    assert timed.minute_log() == OLD_LINES
    assert stat.S_IMODE(timed.daemon.codes_log.stat().st_mode) == 0o600
    assert os.listdir(timed.daemon.log_dir) == ["codes.log"]


@pytest.mark.slow
def test_the_log_is_continued_once_however_often_it_is_run(timed: OldService, clock: Clock) -> None:
    said = timed.minute_log()
    timed.migrated()
    assert timed.migrated()["changed"] is False
    more = "2024-01-31 12:30:31 - 2FA Code: 000004\n"  # the old service was not stopped
    timed.log.write_text(OLD_LINES + more)
    for _ in range(2):
        timed.migrated()
        assert timed.minute_log() == OLD_LINES + more + said
    clock.set(BASE + 65)
    wait_until(lambda: timed.minute_log().count(" 12:31:") == 1, "the daemon does not go on")
    written = timed.minute_log()
    timed.migrated()
    assert timed.minute_log() == written


@pytest.mark.slow
def test_a_log_is_continued_also_for_an_account_that_has_the_seed_already(
    timed: OldService, clock: Clock
) -> None:
    timed.load(SEED)
    wait_until(lambda: "2FA Code" in timed.minute_log(), "there is no line for the account")
    written = timed.minute_log()
    assert timed.migrated()["changed"] is False
    clock.wait_for_a_look()
    assert timed.minute_log() == OLD_LINES + written


@pytest.mark.slow
def test_whatever_else_is_in_the_old_log_is_kept_to_the_byte(beside: OldService) -> None:
    odd = b"\xff\0\r\n\n" + OLD_LINES.encode() + b"Traceback (most recent call last):\n"
    beside.log.write_bytes(odd)
    said = beside.daemon.codes_log.read_bytes()
    beside.migrated()
    assert beside.daemon.codes_log.read_bytes().startswith(odd + said)


def test_a_line_that_is_being_written_while_the_log_is_put_in_place_is_not_lost(timed: OldService) -> None:
    said = timed.minute_log()
    late = "2024-01-31 12:30:21 - a line of the daemon\n"
    replaced = []

    # What the daemon does when it has opened the file just before: the line goes to the file that is
    # gone by now, and only after it a request is answered.
    with timed.daemon.codes_log.open("a") as opened:

        def write_late(_request: bytes) -> None:
            if not replaced and timed.minute_log().startswith(OLD_LINES):
                replaced.append(True)
                opened.write(late)
                opened.flush()

        with relay(timed.daemon, write_late) as through:
            done = timed.migrate(through=through)
    assert done.returncode == 0, done.stderr
    assert replaced
    assert timed.minute_log() == OLD_LINES + said + late


@pytest.mark.slow
def test_a_log_of_another_system_ends_its_lines_otherwise_and_counts_too(
    timed: OldService, clock: Clock
) -> None:
    timed.log.write_text(OLD_LINES, newline="\r\n")
    said = timed.minute_log()
    timed.migrated()
    clock.wait_for_a_look()
    assert timed.daemon.codes_log.read_bytes() == (OLD_LINES.replace("\n", "\r\n") + said).encode()


@pytest.mark.slow
def test_of_the_file_that_was_exchanged_no_more_is_read_than_a_daemon_can_have_written(
    timed: OldService,
) -> None:
    with timed.daemon.codes_log.open("a") as opened:

        def grow(_request: bytes) -> None:
            if timed.minute_log().startswith(OLD_LINES):
                opened.truncate(1024 * 1024 * 1024)

        with relay(timed.daemon, grow) as through:
            done = timed.migrate(through=through)
    assert done.returncode == 0, done.stderr
    assert timed.daemon.codes_log.stat().st_size < 100_000


# Where things are


def test_key_and_minute_log_are_found_in_the_users_own_places(old: OldService) -> None:
    user = as_user(UID) if os.geteuid() == 0 else []
    home = old.daemon.root
    config = home / ".config" / "pki2fad"
    old.daemon.log_dir = home / ".local" / "state" / "pki2fad" / "log"
    old.daemon.codes_log = old.daemon.log_dir / "codes.log"
    config.mkdir(parents=True)
    old.public.rename(config / "host.pub.pem")
    old.daemon.log_dir.mkdir(parents=True)
    if user:
        old.daemon.give_to(UID)
    old.daemon.start(command=user)
    files = [f"--seed-file={old.seed}", f"--log={old.log}"]
    done = ctl(home, "--socket", str(old.daemon.socket), "migrate", *files, command=user)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: old.minute_log().count("2FA Code") == 4, "the daemon does not go on")
    assert old.minute_log().startswith(OLD_LINES)

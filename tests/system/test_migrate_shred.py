"""`pki2factl migrate`: what it destroys, and what it does not let a hostile log directory make it do."""

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Mounts, as_user, wait_until
from support.oldservice import OLD_LINES, OTHER_SEED, SEED, OldService, relay
from support.peers import require_root

pytestmark = pytest.mark.slow  # migrations of the old family

UID = 4711


def test_with_shred_the_old_files_are_overwritten_and_gone(beside: OldService) -> None:
    other_name = beside.daemon.root / "other-name"
    os.link(beside.seed, other_name)
    with beside.log.open() as reader:
        done = beside.migrate("--shred")
        left = reader.buffer.read()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2:] == [f"destroyed {beside.log}", f"destroyed {beside.seed}"]
    assert os.listdir(beside.data) == []
    assert len(other_name.read_bytes()) == len(SEED)
    assert SEED[:8].encode() not in other_name.read_bytes()
    assert len(left) == len(OLD_LINES)
    assert b"2FA Code" not in left
    assert beside.minute_log().startswith(OLD_LINES)
    beside.assert_makes_codes_of(SEED)
    assert "backups" in done.stderr
    assert "shred -u" not in done.stderr


def test_what_is_not_named_is_not_destroyed(beside: OldService) -> None:
    beside.migrated("--shred", log=False)
    assert os.listdir(beside.data) == ["last_code.txt"]
    assert beside.log.read_text() == OLD_LINES


def test_while_the_log_cannot_be_destroyed_the_seeds_file_stays_so_that_it_can_be_run_again(
    beside: OldService,
) -> None:
    mount = 'mount -t tmpfs none "$1" && cp "$2" "$1" && mount -o remount,ro "$1"'
    fixed = beside.daemon.root / "fixed"
    fixed.mkdir()
    mounts = Mounts(mount, str(fixed), str(beside.log))
    with contextlib.closing(mounts):
        beside.log = fixed / beside.log.name
        done = beside.migrate("--shred", "--json", command=mounts.enter)
        again = beside.migrate("--shred", command=mounts.enter)
    assert done.returncode == 7
    assert (again.returncode, again.stderr) == (7, done.stderr)
    assert f"error: cannot destroy {beside.log}: Read-only file system\n" in done.stderr
    assert f"again with --shred, or run: shred -u {beside.log} {beside.seed}\n" in done.stderr
    data = json.loads(done.stdout)
    assert (data["destroyed"], data["plaintext"]) == ([], [str(beside.log), str(beside.seed)])
    assert (data["error"], data["message"]) == (
        "unusable_path",
        f"cannot destroy {beside.log}: Read-only file system",
    )
    assert beside.seed.read_text() == SEED


def before_the_last_request(change: Callable[[], object]) -> Callable[[bytes], None]:
    """For a relay: changes something when all is read and loaded, and the codes are compared."""
    asked = []

    def see(request: bytes) -> None:
        if b"generate" in request:
            asked.append(request)
            if len(asked) == 2:
                change()

    return see


def test_a_line_that_comes_to_the_old_log_meanwhile_is_not_destroyed_but_continued_next_time(
    beside: OldService,
) -> None:
    line = "2024-01-31 12:31:01 - 2FA Code: 777777\n"

    def append() -> None:
        with beside.log.open("a") as log:
            log.write(line)

    with relay(beside.daemon, before_the_last_request(append)) as through:
        done = beside.migrate("--shred", through=through)
    assert done.returncode == 7
    assert f"{beside.log} has changed since it was read" in done.stderr
    assert (beside.seed.read_text(), beside.log.read_text()) == (SEED, OLD_LINES + line)
    beside.migrated("--shred")
    assert beside.minute_log().startswith(OLD_LINES + line)
    assert os.listdir(beside.data) == []


def test_a_seeds_file_that_is_exchanged_meanwhile_is_not_destroyed(beside: OldService) -> None:
    def exchange() -> None:
        beside.data.rename(beside.daemon.root / "moved")
        beside.data.mkdir()
        beside.seed.write_text(OTHER_SEED)

    with relay(beside.daemon, before_the_last_request(exchange)) as through:
        done = beside.migrate("--shred", log=False, through=through)
    assert done.returncode == 7
    assert f"{beside.seed} has changed since it was read" in done.stderr
    assert beside.seed.read_text() == OTHER_SEED
    assert (beside.daemon.root / "moved" / "seed.txt").read_text() == SEED


def test_when_only_the_seeds_file_is_left_the_log_is_not_to_be_named_again(beside: OldService) -> None:
    def touch() -> None:
        os.utime(beside.seed)

    with relay(beside.daemon, before_the_last_request(touch)) as through:
        done = beside.migrate("--shred", through=through)
    assert done.returncode == 7
    assert f"again with --shred without --log, or run: shred -u {beside.seed}\n" in done.stderr
    assert os.listdir(beside.data) == ["seed.txt"]
    beside.migrated("--shred", log=False)
    assert os.listdir(beside.data) == []


def test_nothing_is_destroyed_if_the_daemon_does_not_make_the_codes_of_the_seed(old: OldService) -> None:
    old.daemon.configure("[minute_log]\naccounts = []\n")  # or a line may come in between
    old.daemon.start()
    asked = []

    def replace_the_seed(request: bytes) -> None:
        """Somebody loads another seed just before the daemon is asked for a code of the loaded one."""
        if b"generate" in request:
            asked.append(request)
        if len(asked) == 2:
            old.load(OTHER_SEED, "--replace")

    with relay(old.daemon, replace_the_seed) as through:
        error = old.refused(log=False, code=6, through=through)
    assert len(asked) == 2
    assert "default has another seed" in error


# Run by root, where another user owns the log directory


@pytest.fixture
def theirs(old: OldService) -> OldService:
    """A daemon of another user's, not started, and old files of root's."""
    require_root()
    old.daemon.root.chmod(0o755)
    old.daemon.log_dir.mkdir(mode=0o700)
    old.daemon.give_to(UID)
    for path in (old.data, old.seed, old.log):
        os.chown(path, 0, 0)
        path.chmod(0o700)
    return old


@pytest.mark.parametrize("there", [True, False], ids=["with a minute log", "without"])
def test_the_continued_log_is_the_daemons_own_and_it_goes_on(theirs: OldService, there: bool) -> None:
    theirs.start(command=as_user(UID))
    if not there:
        theirs.daemon.codes_log.unlink()
    theirs.migrated("--shred")
    wait_until(lambda: theirs.minute_log().count("2FA Code") == 4, "the daemon does not go on")
    assert theirs.minute_log().startswith(OLD_LINES)
    status = theirs.daemon.codes_log.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (UID, UID, 0o600)
    assert "minute_log_failed" not in theirs.daemon.log()
    assert os.listdir(theirs.daemon.log_dir) == ["codes.log"]


PLANTED = {
    "symbolic link": Path.symlink_to,
    "hard link": Path.hardlink_to,
    "fifo": lambda path, _: os.mkfifo(path),
}


@pytest.mark.parametrize("put", PLANTED.values(), ids=PLANTED)
def test_what_was_planted_for_the_minute_log_is_not_followed(
    theirs: OldService, put: Callable[[Path, Path], None]
) -> None:
    secret = theirs.data / "secret"
    secret.write_text("root's own\n")
    put(theirs.daemon.codes_log, secret)
    theirs.daemon.start(command=as_user(UID))
    error = theirs.refused(code=7)
    assert f"cannot open {theirs.daemon.codes_log}: " in error
    assert not theirs.has_account()


def test_what_was_planted_as_the_temporary_file_is_not_followed(theirs: OldService) -> None:
    theirs.start(command=as_user(UID))
    victim = theirs.data / "victim"
    victim.write_text("root's own\n")
    script = 'ln -s "$1" "$2.$$.tmp" && shift 2 && exec "$@"'  # the process stays the same
    command = ["sh", "-euc", script, "sh", str(victim), str(theirs.daemon.codes_log)]
    theirs.migrated(command=command)
    assert victim.read_text() == "root's own\n"
    assert victim.stat().st_uid == 0
    assert theirs.minute_log().startswith(OLD_LINES)
    assert os.listdir(theirs.daemon.log_dir) == ["codes.log"]


def test_a_directory_that_is_exchanged_for_a_link_leads_root_nowhere(theirs: OldService) -> None:
    daemon = theirs.daemon
    daemon.codes_log = daemon.log_dir / "web" / "codes.log"
    daemon.configure(f'[minute_log]\npath = "{daemon.codes_log}"\n')
    daemon.give_to(UID)
    for path in (theirs.data, theirs.seed, theirs.log):
        os.chown(path, 0, 0)
    theirs.start(command=as_user(UID))
    victim = theirs.data / "victim"
    victim.mkdir(0o755)
    theirs.data.chmod(0o755)
    done = []

    def exchange(_request: bytes) -> None:
        if not done:
            done.append(True)
            daemon.codes_log.parent.rename(daemon.log_dir / "moved")
            daemon.codes_log.parent.symlink_to(victim)
            os.chown(daemon.codes_log.parent, UID, UID, follow_symlinks=False)

    with relay(daemon, exchange) as through:
        refused = theirs.migrate("--shred", through=through)
    assert (refused.returncode, refused.stdout) == (7, "")
    assert f"cannot write {daemon.codes_log}: Permission denied" in refused.stderr
    assert os.listdir(victim) == []
    assert theirs.seed.read_text() == SEED


def test_a_log_directory_in_which_roots_group_exchanges_things_is_refused(theirs: OldService) -> None:
    theirs.daemon.give_to(0)
    os.chown(theirs.daemon.log_dir, 0, UID)
    theirs.daemon.log_dir.chmod(0o775)
    theirs.daemon.start()
    wait_until(theirs.daemon.codes_log.exists, "there is no minute log")
    before = theirs.minute_log()
    done = theirs.migrate("--shred")
    assert (done.returncode, done.stdout) == (7, "")
    assert f"its group may write to {theirs.daemon.log_dir}" in done.stderr
    assert (theirs.minute_log(), theirs.seed.read_text()) == (before, SEED)

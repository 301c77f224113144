"""Every administrative change, and every attempt at one, is one line of the log with the field `audit`."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

import pytest
from support.daemon import Daemon, as_user, code_of, wait_until
from support.preload import Clock, environment
from support.raw import Seal

from pki2fad.client import Client
from pki2fad.crypto import rsakeys
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import Pki2fadError
from pki2fad.rules.otp import Parameters
from pki2fad.transfer import batch

ONE, TWO, THREE = (f"{number} seed of the audit tests......".encode() for number in ("a", "b", "c"))
NOTICE, WARNING, ERROR = 5, 4, 3  # as syslog has them
OWN = str(os.geteuid())
UID = 4242

Line = tuple[int, str, dict[str, str]]


def start(daemon: Daemon, **env: str) -> Daemon:
    """Start it with its log as the journal would read it."""
    daemon.stderr.touch()
    status = daemon.stderr.stat()
    return daemon.start(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}", **env)


@pytest.fixture
def running(daemon: Daemon, seal: Seal) -> Daemon:
    """A daemon with the account default."""
    daemon.root.chmod(0o755)
    start(daemon)
    with daemon.client() as client:
        client.load(seal(ONE))
    return daemon


def audit(daemon: Daemon) -> list[Line]:
    """Priority, event and fields of all such lines, taken apart as a shell would."""
    lines = []
    for line in daemon.log().splitlines():
        event, *words = shlex.split(line[3:]) if line.startswith("<") else [""]
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        if "audit" in fields:
            lines.append((int(line[1]), event, fields))
    return lines


def of(daemon: Daemon, call: Callable[[Client], object]) -> Line:
    """The one line that a call leaves, also when it is refused."""
    before = len(audit(daemon))
    with daemon.client() as client, suppress(Pki2fadError):
        call(client)
    (line,) = audit(daemon)[before:]
    return line


def is_own(fields: dict[str, str]) -> bool:
    return (fields["uid"], fields["pid"]) == (OWN, str(os.getpid()))


def test_a_load_says_what_came_of_it(running: Daemon, seal: Seal) -> None:
    deadline = int(time.time()) + 3600
    loads: list[tuple[Callable[[Client], object], str]] = [
        (lambda client: client.load(seal(ONE), "deploy"), "added"),
        (lambda client: client.load(seal(ONE), "deploy"), "unchanged"),
        (lambda client: client.load(seal(TWO), "deploy", replace=True), "replaced"),
        (lambda client: client.load(seal(THREE), "deploy", successor=True, deadline=deadline), "successor"),
    ]
    for call, done in loads:
        priority, event, fields = of(running, call)
        assert (priority, event, fields["audit"], fields["account"]) == (NOTICE, "load", done, "deploy")
        assert is_own(fields)
    assert datetime.fromisoformat(fields["deadline"]).timestamp() == deadline
    assert fields["cutover"] == "False"


def test_a_removal_is_one_line(running: Daemon) -> None:
    priority, event, fields = of(running, lambda client: client.remove())
    assert (priority, event, fields["audit"], fields["account"]) == (NOTICE, "remove", "removed", "default")
    assert is_own(fields)


def test_a_resynchronisation_says_by_how_much(running: Daemon) -> None:
    step = int(time.time()) // 30 + 3
    codes = code_of(ONE, step), code_of(ONE, step + 1)
    priority, event, fields = of(running, lambda client: client.resync(*codes))
    assert (priority, event, fields["audit"], fields["account"]) == (
        NOTICE,
        "resync",
        "resynchronised",
        "default",
    )
    assert fields["offset"] in ("3", "4")
    assert not any(code in running.log() for code in codes)


def test_an_accepted_clock_says_of_when(running: Daemon) -> None:
    priority, event, fields = of(running, lambda client: client.clock_accept())
    assert (priority, event, fields["audit"]) == (NOTICE, "clock_accept", "accepted")
    assert abs(datetime.fromisoformat(fields["accepted_time"]).timestamp() - time.time()) < 60
    assert is_own(fields)


def test_locking_and_unlocking_are_lines(running: Daemon) -> None:
    calls: list[tuple[Callable[[Client], object], str, str]] = [
        (lambda client: client.lock(), "lock", "locked"),
        (lambda client: client.lock(), "lock", "unchanged"),
        (lambda client: client.unlock(), "unlock", "unlocked"),
        (lambda client: client.unlock(), "unlock", "unchanged"),
    ]
    for call, method, done in calls:
        priority, event, fields = of(running, call)
        assert (priority, event, fields["audit"]) == (NOTICE, method, done)
        assert is_own(fields)


def test_a_wrong_passphrase_is_a_warning_without_it(daemon: Daemon, host_key: PrivateKey) -> None:
    daemon.install_key(rsakeys.private_pem(host_key, b"horse"))
    start(daemon)
    priority, event, fields = of(daemon, lambda client: client.unlock("battery"))
    assert (priority, event) == (WARNING, "refused")
    assert (fields["method"], fields["audit"], fields["code"]) == ("unlock", "refused", "bad_request")
    assert "passphrase" in fields["reason"]
    assert is_own(fields)
    assert of(daemon, lambda client: client.unlock("horse"))[2]["audit"] == "unlocked"
    assert not any(word in daemon.log() for word in ("battery", "horse"))


def test_an_idle_lock_is_a_line(daemon: Daemon) -> None:
    daemon.configure("[lock]\nidle = 1\n")
    start(daemon)
    wait_until(lambda: audit(daemon), "it does not lock")
    ((priority, event, fields),) = audit(daemon)
    assert (priority, event, fields["audit"]) == (NOTICE, "locked", "locked")


def test_a_key_rotation_says_which_key_came_and_which_went(
    running: Daemon, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    old, new = (rsakeys.fingerprint(key.public_key()) for key in (host_key, other_key))
    pem = rsakeys.private_pem(other_key)
    priority, event, fields = of(running, lambda client: client.rotate(pem))
    assert (priority, event, fields["audit"], fields["fingerprint"]) == (NOTICE, "rotate", "rotated", new)
    assert is_own(fields)
    priority, event, fields = of(running, lambda client: client.rotate_finish(new))
    assert (priority, event, fields["audit"], fields["dropped"]) == (NOTICE, "rotate_finish", "dropped", old)
    assert of(running, lambda client: client.rotate_finish(new))[2]["audit"] == "unchanged"
    assert "PRIVATE" not in running.log()


def test_a_backup_says_who_can_open_it(running: Daemon, host_key: PrivateKey, other_key: PrivateKey) -> None:
    keys = [key.public_key() for key in (host_key, other_key)]
    pem = b"".join(rsakeys.public_pem(key) for key in keys)
    priority, event, fields = of(running, lambda client: client.backup(pem))
    assert (priority, event, fields["audit"], fields["accounts"]) == (NOTICE, "backup", "copied", "1")
    assert set(fields["to"].split()) == {rsakeys.fingerprint(key) for key in keys}
    assert is_own(fields)


def test_a_restore_says_which_accounts_changed(running: Daemon, seal: Seal, host_key: PrivateKey) -> None:
    with running.client() as client:
        for name in ("stays", "changes", "comes"):
            client.load(seal(TWO), name)
        data = client.backup(rsakeys.public_pem(host_key.public_key()))
        client.remove("comes")
        client.load(seal(THREE), "changes", replace=True)
    priority, event, fields = of(running, lambda client: client.restore(data))
    assert (priority, event, fields["method"], fields["code"]) == (
        WARNING,
        "refused",
        "restore",
        "account_exists",
    )
    priority, event, fields = of(running, lambda client: client.restore(data, replace=True))
    assert (priority, event, fields["audit"], fields["accounts"]) == (NOTICE, "restore", "restored", "4")
    assert set(fields["changed"].split(", ")) == {"comes", "changes"}
    assert is_own(fields)


def test_a_batch_says_which_accounts_changed(running: Daemon, host_key: PrivateKey) -> None:
    seeds = [batch.Unsealed(name, Parameters(), bytearray(32)) for name in ("comes", "default", "too")]
    with MasterKey() as master:
        data = batch.pack(seeds, master.wrap(host_key.public_key()), master)
    assert of(running, lambda client: client.load_batch(data))[2]["code"] == "account_exists"
    priority, event, fields = of(running, lambda client: client.load_batch(data, replace=True))
    assert (priority, event, fields["audit"], fields["accounts"]) == (NOTICE, "load_batch", "loaded", "3")
    assert (fields["added"], fields["replaced"]) == ("comes, too", "default")
    assert is_own(fields)
    assert of(running, lambda client: client.load_batch(data))[2]["audit"] == "unchanged"


@pytest.mark.slow
def test_of_very_many_accounts_a_restore_names_some(
    running: Daemon, seal: Seal, host_key: PrivateKey
) -> None:
    sealed = seal(TWO)
    with running.client() as client:
        for number in range(210):
            client.load(sealed, f"account-{number}")
        data = client.backup(rsakeys.public_pem(host_key.public_key()))
        for number in range(210):
            client.remove(f"account-{number}")
    _, _, fields = of(running, lambda client: client.restore(data))
    assert fields["changed"].endswith(" and 10 more")
    assert len(fields["changed"].split(", ")) == 200


# Tries what only administrators may, and says what it tried.
TRY = """
import sys
from pki2fad.client import Client
from pki2fad.errors import Forbidden
with Client(sys.argv[1], 30) as client:
    for method, arguments in {
        "load": [b"x", "default"],
        "load_batch": [b"x"],
        "remove": ["default"],
        "resync": ["123456", "654321"],
        "clock_accept": [],
        "rotate": [b"x"],
        "rotate_finish": ["x"],
        "backup": [b"x"],
        "restore": [b"x"],
        "lock": [],
        "unlock": ["x"],
        "accounts": [],
        "recipients": [],
    }.items():
        try:
            getattr(client, method)(*arguments)
        except Forbidden:
            print(method)
"""


def test_a_stranger_who_tries_leaves_a_line_each_time(running: Daemon) -> None:
    before = len(audit(running))
    command = [*as_user(UID), sys.executable, "-P", "-c", TRY, str(running.socket)]
    tried = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    lines = audit(running)[before:]
    assert len(tried) == 13
    assert [fields["method"] for _, _, fields in lines] == tried
    for priority, event, fields in lines:
        assert (priority, event, fields["audit"]) == (WARNING, "refused", "refused")
        assert (fields["uid"], fields["code"]) == (str(UID), "forbidden")
    assert lines[0][2]["account"] == "default"


def test_a_seed_file_says_what_came_of_it(daemon: Daemon, seal: Seal) -> None:
    path = daemon.deliver("deploy", seal(ONE))
    start(daemon)
    for seed, done in ((ONE, "unchanged"), (TWO, "replaced")):
        daemon.deliver("deploy", seal(seed))  # sealed anew, so another file
        daemon.reload()
        assert [line[2]["audit"] for line in audit(daemon) if line[1] == "seed_loaded"][-1] == done
    loaded = [line for line in audit(daemon) if line[1] == "seed_loaded"]
    assert [line[0] for line in loaded] == [NOTICE] * 3
    assert loaded[0][2] == {"path": str(path), "account": "deploy", "audit": "added"}


def test_a_seed_file_that_is_ignored_is_a_line(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("writable", seal(ONE)).chmod(0o666)
    daemon.deliver("damaged", b"x" * 384)
    start(daemon)
    assert {
        (priority, event, fields["account"], fields["audit"]) for priority, event, fields in audit(daemon)
    } == {
        (ERROR, "seed_ignored", "writable", "refused"),
        (ERROR, "seed_ignored", "damaged", "refused"),
    }


@pytest.mark.parametrize(("cutover", "done"), [(True, "promoted"), (False, "dropped")])
def test_a_deadline_that_came_is_a_line(
    daemon: Daemon, clock: Clock, seal: Seal, cutover: bool, done: str
) -> None:
    clock.set(time.time())
    start(daemon, **environment(clock))
    with daemon.client() as client:
        client.load(seal(ONE))
        deadline = int(clock.now()) + 60
        client.load(seal(TWO), successor=True, deadline=deadline, cutover=cutover)
        clock.set(deadline + 1)
        client.clock_accept()
    daemon.stop()
    start(daemon, **environment(clock))
    daemon.ctl("status")  # answered after what is due at a start
    (line,) = [line for line in audit(daemon) if line[1] == "successor_due"]
    assert line == (NOTICE, "successor_due", {"account": "default", "audit": done})


def test_a_first_code_that_changes_the_seed_is_a_line(running: Daemon, seal: Seal) -> None:
    with running.client() as client:
        client.load(seal(TWO), successor=True)
        before = len(audit(running))
        assert client.verify(code_of(TWO, int(time.time()) // 30))
    ((priority, event, fields),) = audit(running)[before:]
    assert (priority, event, fields["audit"], fields["account"]) == (NOTICE, "verify", "promoted", "default")


def test_a_reload_says_which_settings_changed(running: Daemon) -> None:
    running.reload()
    running.configure('[minute_log]\naccounts = []\n[[access]]\nrole = "verify"\nwho = [4242]\n')
    running.reload()
    running.configure("no toml")
    running.reload()
    lines = [(priority, event, fields) for priority, event, fields in audit(running) if "reload" in event]
    assert [(priority, event, fields["audit"]) for priority, event, fields in lines] == [
        (NOTICE, "reloaded", "reloaded"),
        (NOTICE, "reloaded", "reloaded"),
        (ERROR, "reload_failed", "refused"),
    ]
    assert lines[0][2]["changed"] == "nothing"
    assert set(lines[1][2]["changed"].split()) >= {"access", "minute_log"}


def test_what_only_asks_is_no_change(running: Daemon) -> None:
    before = audit(running)
    for command in (["generate"], ["verify", "0000000"], ["accounts"], ["status"], ["metrics"]):
        running.ctl(*command)
    running.ctl("recipients", "list")
    assert audit(running) == before

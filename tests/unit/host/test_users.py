"""Names of uids: found by a thread, so that nobody waits for a name service."""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support import peers
from support.daemon import wait_until

from pki2fad.errors import Unavailable
from pki2fad.host.users import Users
from pki2fad.rules.access import OVERFLOW_ID, Access

NOBODYS = next(uid for uid in range(400_000, 500_000) if uid not in {user.pw_uid for user in pwd.getpwall()})


def become(check: Callable[[], bool]) -> bool:
    wait_until(check, "it does not become true")
    return True


def is_looked_up(name: Callable[[int], str | None], uid: int) -> bool:
    """True if the name of a uid, or that it has none, is known."""
    try:
        name(uid)
    except Unavailable:
        return False
    return True


def test_a_user_is_known_when_a_thread_has_looked() -> None:
    users = Users()
    user = pwd.getpwnam("daemon").pw_uid
    assert become(lambda: users.is_user(user))
    assert become(lambda: is_looked_up(users.name, NOBODYS))
    assert not users.is_user(NOBODYS)


def test_a_uid_pays_with_those_without_a_name_until_it_is_looked_up() -> None:
    user = pwd.getpwnam("daemon").pw_uid
    access = Access([], 0, Users())
    assert access.payer(0) == 0  # of the configuration
    assert access.payer(user) == OVERFLOW_ID
    assert become(lambda: access.payer(user) == user)
    assert become(lambda: is_looked_up(access.user_name, NOBODYS))
    assert access.payer(NOBODYS) == OVERFLOW_ID


def test_a_name_is_known_as_soon_as_its_user_is() -> None:
    access, user = Access([], 0, Users()), pwd.getpwnam("daemon")
    assert access.user_name(0) == pwd.getpwuid(0).pw_name  # of the configuration
    assert become(lambda: access.payer(user.pw_uid) == user.pw_uid)
    assert access.user_name(user.pw_uid) == user.pw_name


# A name service that does not answer: /etc/passwd is a FIFO that nobody writes to.
HANGING = """
import os, subprocess, sys
os.mkfifo("passwd")
subprocess.run(["mount", "--bind", "passwd", "/etc/passwd"], check=True)
from pki2fad.errors import Unavailable
from pki2fad.host.users import Users
users = Users()
print([users.is_user(uid) for uid in range(1000)].count(True), flush=True)
try:
    users.name(5)
except Unavailable as error:
    print(error, flush=True)
os._exit(0)
"""


def test_a_name_service_that_hangs_holds_up_nothing(tmp_path: Path) -> None:
    peers.require_root()
    command = [peers.require("unshare"), "--mount", "--", sys.executable, "-P", "-c", HANGING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("0\nthe name of uid 5 is being looked up; try again\n", "")


def test_the_name_is_that_of_the_system() -> None:
    assert Users().look_up(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name
    assert Users().look_up(NOBODYS) is None


MEMBERS = """
import subprocess
subprocess.run(["mount", "--bind", "group", "/etc/group"], check=True)
from pki2fad.host.users import Users
from pki2fad.rules.access import Access, Rule
access = Access([Rule("verify", ("@ops",))], 0, Users())
print(access.payer(USER), access.payer(OTHER))
"""


def test_members_of_a_group_with_a_role_are_known_at_once(tmp_path: Path) -> None:
    peers.require_root()
    user, other = pwd.getpwnam("daemon"), pwd.getpwnam("bin")
    (tmp_path / "group").write_text(
        f"root:x:0:\nops:x:61001:{user.pw_name},gone\nothers:x:61002:{other.pw_name}\n"
    )
    script = MEMBERS.replace("USER", str(user.pw_uid)).replace("OTHER", str(other.pw_uid))
    command = [peers.require("unshare"), "--mount", "--", sys.executable, "-P", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (f"{user.pw_uid} {OVERFLOW_ID}\n", "")

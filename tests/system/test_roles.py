"""Who may do what, by what the kernel attests of the caller, shown with other users' processes."""

import grp
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, Mounts, as_user
from support.raw import Seal

SEED = b"a seed of the role tests........"
UID = 4242
GID = 5252
NOBODY = 65534  # what the kernel shows for whoever has no id here

METHODS = ("generate", "verify", "load", "remove", "accounts")

# Tries every method, in a way that does nothing where it is allowed, and prints those that are.
TRY = """
import sys
from pki2fad.client import Client
from pki2fad.errors import Forbidden, Refusal
account = sys.argv[2]
with Client(sys.argv[1], 30) as client:
    for method, arguments in {
        "generate": [account],
        "verify": ["1234567", account],  # one digit too many to be good
        "load": [bytes(384), account],  # opens to nothing
        "remove": ["no-such-account"],
        "accounts": [],
    }.items():
        try:
            getattr(client, method)(*arguments)
            print(method)
        except Forbidden:
            pass
        except Refusal:
            print(method)
"""


def existing_user() -> "pwd.struct_passwd":
    return next(user for user in pwd.getpwall() if user.pw_uid not in (0, NOBODY))


def existing_group() -> "grp.struct_group":
    return next(group for group in grp.getgrall() if group.gr_gid not in (0, NOBODY))


@pytest.fixture
def served(daemon: Daemon, seal: Seal) -> Daemon:
    """A daemon of root's, not started, that others can reach, with two accounts."""
    daemon.root.chmod(0o755)
    daemon.deliver("default", seal(SEED))
    daemon.deliver("deploy", seal(SEED))
    return daemon


def grant(daemon: Daemon, role: str, who: "str | int", *accounts: str) -> None:
    name = f'"{who}"' if isinstance(who, str) else who
    only = f"accounts = {list(accounts)}\n" if accounts else ""
    daemon.configure(f'[[access]]\nrole = "{role}"\nwho = [{name}]\n{only}')


def allowed(daemon: Daemon, user: list[str], account: str = "default") -> set[str]:
    """What this user may do."""
    command = [*user, sys.executable, "-P", "-c", TRY, str(daemon.socket), account]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_who_has_no_role_is_told_which_one_it_takes(served: Daemon) -> None:
    served.start()
    done = served.ctl("generate", command=as_user(UID))
    assert done.returncode == 4
    assert done.stdout == ""
    assert "pki2factl: error: forbidden: " in done.stderr
    assert "generate" in done.stderr
    assert str(UID) in done.stderr


def test_root_may_do_everything_and_others_may_do_nothing(served: Daemon) -> None:
    served.start()
    assert allowed(served, as_user(0)) == set(METHODS)
    assert allowed(served, as_user(UID)) == set()
    assert allowed(served, as_user(UID, gid=0, groups=[0])) == set()


def test_the_daemons_own_user_may_do_everything_and_another_may_not_connect(served: Daemon) -> None:
    user = as_user(UID)
    served.give_to(UID)
    served.start(command=user)
    assert allowed(served, user) == set(METHODS)
    assert allowed(served, as_user(0)) == set(METHODS)
    refused = served.ctl("status", command=as_user(UID + 1))
    assert refused.returncode == 3
    assert "Permission denied" in refused.stderr


def test_anyone_may_ask_for_the_status_which_names_no_account(served: Daemon) -> None:
    served.start()
    for user in (as_user(UID), as_user(NOBODY)):
        done = served.ctl("status", "--json", command=user)
        assert done.returncode == 0
        assert "deploy" not in done.stdout


@pytest.mark.parametrize(
    ("role", "methods"),
    [("generate", {"generate"}), ("verify", {"verify"}), ("admin", {"load", "remove", "accounts"})],
)
def test_a_role_is_for_its_methods_alone(served: Daemon, role: str, methods: set[str]) -> None:
    grant(served, role, UID)
    served.start()
    assert allowed(served, as_user(UID)) == methods
    assert allowed(served, as_user(UID + 1)) == set()


def test_a_user_can_be_named(served: Daemon) -> None:
    user = existing_user()
    grant(served, "generate", user.pw_name)
    served.start()
    assert allowed(served, as_user(user.pw_uid)) == {"generate"}
    assert allowed(served, as_user(UID, groups=[user.pw_uid])) == set()


@pytest.mark.parametrize("primary", [True, False], ids=["primary", "supplementary"])
def test_a_group_can_be_named(served: Daemon, primary: bool) -> None:
    group = existing_group()
    grant(served, "verify", f"@{group.gr_name}")
    served.start()
    member = as_user(UID, gid=group.gr_gid) if primary else as_user(UID, groups=[GID, group.gr_gid])
    assert allowed(served, member) == {"verify"}
    assert allowed(served, as_user(UID)) == set()


def test_a_role_for_some_accounts_is_for_no_other(served: Daemon) -> None:
    grant(served, "generate", UID, "deploy")
    served.start()
    user = as_user(UID)
    assert allowed(served, user, "deploy") == {"generate"}
    assert allowed(served, user, "default") == set()
    assert allowed(served, user, "no-such-account") == set()


def test_an_admin_of_some_accounts_sees_no_other(served: Daemon) -> None:
    grant(served, "admin", UID, "deploy")
    served.start()
    done = served.ctl("accounts", command=as_user(UID))
    assert done.returncode == 0
    assert "deploy" in done.stdout
    assert "default" not in done.stdout


def test_who_may_not_ask_does_not_learn_what_accounts_there_are(served: Daemon) -> None:
    served.start()
    user = as_user(UID)
    answers = [served.ctl("generate", account, command=user).stderr for account in ("default", "missing")]
    assert answers[0] == answers[1]


def test_entries_add_up(served: Daemon) -> None:
    grant(served, "generate", UID, "deploy")
    file = served.config_dir / "pki2fad.toml"
    first = file.read_text()
    grant(served, "verify", UID)
    file.write_text(first + file.read_text())
    served.start()
    assert allowed(served, as_user(UID), "deploy") == {"generate", "verify"}
    assert allowed(served, as_user(UID)) == {"verify"}


def test_the_overflow_id_never_has_a_role(served: Daemon) -> None:
    grant(served, "generate", NOBODY)
    served.start()
    assert allowed(served, as_user(NOBODY)) == set()


def test_the_overflow_group_never_has_a_role(served: Daemon) -> None:
    group = next((group for group in grp.getgrall() if group.gr_gid == NOBODY), None)
    if group is None:
        pytest.skip("no group has the overflow id here")
    grant(served, "generate", f"@{group.gr_name}")
    served.start()
    assert allowed(served, as_user(UID, groups=[NOBODY])) == set()


def test_above_256_groups_none_counts_and_the_log_says_so(served: Daemon) -> None:
    group = existing_group()
    grant(served, "generate", f"@{group.gr_name}")
    served.start()
    few = as_user(UID, groups=[group.gr_gid, *range(100_000, 100_255)])
    assert allowed(served, few) == {"generate"}
    assert "groups_ignored" not in served.log()
    many = as_user(UID, groups=[group.gr_gid, *range(100_000, 100_256)])
    assert allowed(served, many) == set()
    assert f"uid={UID}" in next(line for line in served.log().splitlines() if "groups_ignored" in line)


@pytest.fixture
def with_groups(served: Daemon, tmp_path: Path) -> Iterator[Mounts]:
    """A mount namespace in which the default groups exist."""
    groups = tmp_path / "group"
    groups.write_text(
        Path("/etc/group").read_text() + f"pki2fad-verify:x:{GID}:\npki2fad-generate:x:{GID + 1}:\n"
    )
    mounts = Mounts('mount --bind "$1" /etc/group', str(groups))
    yield mounts
    served.close()
    mounts.close()


def test_the_default_groups_have_their_roles(served: Daemon, with_groups: Mounts) -> None:
    served.start(command=with_groups.enter)
    assert allowed(served, as_user(UID, groups=[GID])) == {"verify"}
    assert allowed(served, as_user(UID, groups=[GID + 1])) == {"generate"}
    assert allowed(served, as_user(UID, groups=[GID, GID + 1])) == {"verify", "generate"}


def test_a_request_is_logged_with_its_caller_and_without_the_code(served: Daemon) -> None:
    grant(served, "verify", UID)
    served.start()
    served.ctl("verify", "246802", command=as_user(UID))
    served.ctl("verify", "246802", command=as_user(UID + 1))
    verdict, refusal = [line for line in served.log().splitlines() if "account=default" in line][-2:]
    assert f"verify uid={UID} pid=" in verdict
    assert "valid=False" in verdict
    assert f"uid={UID + 1} " in refusal
    assert "code=forbidden" in refusal
    assert "246802" not in served.log()

"""Roles: who has which, by what the kernel says of a peer and what the rules say of the system's names."""

import grp
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from support import peers

from pki2fad.errors import ConfigError
from pki2fad.host.users import Users
from pki2fad.rules.access import Access, Peer, Rule

OWN_UID = 54_321
OVERFLOW = 65_534
STRANGER = 54_322

ROLES = ("verify", "generate", "admin", "relay", "enroll")
USERS = [entry for entry in pwd.getpwall() if entry.pw_uid not in (0, OVERFLOW)]
GROUPS = [entry for entry in grp.getgrall() if entry.gr_gid not in (0, OVERFLOW)]


def peer(uid: int = STRANGER, *gids: int) -> Peer:
    return Peer(4711, uid, frozenset(gids))


def roles_of(rules: Access, one: Peer, account: str = "default") -> list[str]:
    return [role for role in ROLES if rules.allows(one, role, account)]


def has_roles(rules: Access, one: Peer) -> list[str]:
    return [role for role in ROLES if rules.has_role(one, role)]


@pytest.mark.parametrize("uid", [0, OWN_UID])
def test_root_and_the_daemons_own_user_may_do_everything(uid: int) -> None:
    rules = Access([], OWN_UID, Users())
    assert roles_of(rules, peer(uid)) == list(ROLES)
    assert roles_of(rules, peer(uid), "any.other@account") == list(ROLES)
    assert has_roles(rules, peer(uid)) == list(ROLES)


def test_nobody_else_may_do_anything() -> None:
    rules = Access([], OWN_UID, Users())
    gids = [entry.gr_gid for entry in GROUPS if not entry.gr_name.startswith("pki2fad-")]
    assert roles_of(rules, peer(STRANGER, 0, OWN_UID, *gids)) == []
    assert has_roles(rules, peer(STRANGER, 0, OWN_UID, *gids)) == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_that_one_and_no_other(role: str) -> None:
    rules = Access([Rule(role, (STRANGER,))], OWN_UID, Users())
    assert roles_of(rules, peer()) == [role]
    assert has_roles(rules, peer()) == [role]
    assert roles_of(rules, peer(STRANGER + 1)) == []


@pytest.mark.parametrize("entry", USERS[:5], ids=lambda entry: entry.pw_name)
def test_a_user_is_known_by_name(entry: pwd.struct_passwd) -> None:
    rules = Access([Rule("generate", (entry.pw_name,))], OWN_UID, Users())
    assert roles_of(rules, peer(entry.pw_uid)) == ["generate"]
    assert roles_of(rules, peer(STRANGER, entry.pw_uid)) == []  # as a group it is another number


@pytest.mark.parametrize("entry", GROUPS[:5], ids=lambda entry: entry.gr_name)
def test_a_group_is_known_by_name_and_any_of_a_peers_groups_counts(entry: grp.struct_group) -> None:
    rules = Access([Rule("verify", (f"@{entry.gr_name}",))], OWN_UID, Users())
    assert roles_of(rules, peer(STRANGER, 4_000_000, entry.gr_gid)) == ["verify"]
    assert roles_of(rules, peer(entry.gr_gid)) == []  # as a user it is another number


def test_one_rule_may_name_users_groups_and_uids() -> None:
    user, group = USERS[0], GROUPS[-1]
    rules = Access([Rule("admin", (user.pw_name, f"@{group.gr_name}", STRANGER))], OWN_UID, Users())
    for one in (peer(user.pw_uid), peer(STRANGER + 1, group.gr_gid), peer(STRANGER)):
        assert roles_of(rules, one) == ["admin"]
    assert roles_of(rules, peer(STRANGER + 1)) == []


def test_a_uid_needs_no_name_on_this_system() -> None:
    uid = next(uid for uid in range(3_000_000, 4_000_000) if not _is_known(uid))
    assert roles_of(Access([Rule("admin", (uid,))], OWN_UID, Users()), peer(uid)) == ["admin"]


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def test_a_rule_for_some_accounts_is_for_those_alone() -> None:
    rules = Access([Rule("generate", (STRANGER,), ("deploy", "backup"))], OWN_UID, Users())
    assert roles_of(rules, peer(), "deploy") == ["generate"]
    assert roles_of(rules, peer(), "backup") == ["generate"]
    assert roles_of(rules, peer(), "default") == []
    assert roles_of(rules, peer(), "deploy2") == []
    assert has_roles(rules, peer()) == ["generate"]
    assert has_roles(rules, peer(STRANGER + 1)) == []


def test_the_accounts_of_registrars_are_patterns_for_whole_names() -> None:
    patterns = ("web-*", "shop?", "[ab]c")
    rules = Access([Rule("registrar", (STRANGER,), (one,)) for one in patterns], OWN_UID, Users())
    for name in ("web-", "web-1", "web-*", "shop1", "ac", "bc"):
        assert rules.allows(peer(), "registrar", name), name
    for name in ("web", "xweb-1", "Web-1", "shop", "shop12", "cc", "abc", "[ab]c", ""):
        assert not rules.allows(peer(), "registrar", name), name
    assert not rules.allows_everywhere(peer(), "registrar")
    assert not rules.allows(peer()._replace(verify_only=True), "registrar", "web-1")


def test_no_other_role_has_patterns() -> None:
    rules = Access([Rule("admin", (STRANGER,), ("web-*",))], OWN_UID, Users())
    assert not rules.allows(peer(), "admin", "web-1")


def test_a_rule_for_a_group_and_some_accounts_is_for_those_alone() -> None:
    group = GROUPS[0]
    rules = Access([Rule("admin", (f"@{group.gr_name}",), ("deploy",))], OWN_UID, Users())
    assert roles_of(rules, peer(STRANGER, group.gr_gid), "deploy") == ["admin"]
    assert roles_of(rules, peer(STRANGER, group.gr_gid), "default") == []


def test_a_rule_for_no_account_gives_nothing() -> None:
    rules = Access([Rule("admin", (STRANGER,), ())], OWN_UID, Users())
    assert roles_of(rules, peer()) == []
    assert has_roles(rules, peer()) == []


def test_rules_add_up() -> None:
    rules = Access(
        [
            Rule("generate", (STRANGER,), ("deploy",)),
            Rule("generate", (STRANGER,), ("backup",)),
            Rule("generate", (STRANGER + 1,), ("deploy",)),
            Rule("verify", (STRANGER,)),
        ],
        OWN_UID,
        Users(),
    )
    assert roles_of(rules, peer(), "deploy") == ["verify", "generate"]
    assert roles_of(rules, peer(), "backup") == ["verify", "generate"]
    assert roles_of(rules, peer(), "default") == ["verify"]
    assert roles_of(rules, peer(STRANGER + 1), "deploy") == ["generate"]
    assert has_roles(rules, peer()) == ["verify", "generate"]


@pytest.mark.parametrize("accounts", [None, ("default",)])
def test_the_ids_of_those_that_the_kernel_cannot_name_never_have_a_role(
    accounts: tuple[str, ...] | None,
) -> None:
    users = [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == OVERFLOW]
    groups = [f"@{entry.gr_name}" for entry in grp.getgrall() if entry.gr_gid == OVERFLOW]
    rules = Access([Rule(role, (OVERFLOW, *users, *groups), accounts) for role in ROLES], OVERFLOW, Users())
    for one in (peer(OVERFLOW), peer(OVERFLOW, OVERFLOW), peer(STRANGER, OVERFLOW)):
        assert roles_of(rules, one) == []
        assert has_roles(rules, one) == []


def test_a_group_does_not_help_those_that_the_kernel_cannot_name() -> None:
    group = GROUPS[0]
    rules = Access(
        [Rule("admin", (f"@{group.gr_name}",), accounts) for accounts in (None, ("deploy",))], 0, Users()
    )
    assert roles_of(rules, peer(STRANGER, group.gr_gid), "deploy") == ["admin"]
    assert roles_of(rules, peer(OVERFLOW, group.gr_gid), "deploy") == []
    assert has_roles(rules, peer(OVERFLOW, group.gr_gid)) == []


@pytest.mark.parametrize("who", ["no-such-user", "1000000000", "@", "root:"])
def test_a_user_that_there_is_not_is_named(who: str) -> None:
    with pytest.raises(ConfigError, match="access") as caught:
        Access([Rule("verify", (who,))], OWN_UID, Users())
    assert repr(who.removeprefix("@")) in str(caught.value)


@pytest.mark.parametrize("accounts", [None, ("deploy",)])
def test_a_group_that_there_is_not_is_named(accounts: tuple[str, ...] | None) -> None:
    with pytest.raises(ConfigError, match="access: there is no group 'no-such-group' on this system"):
        Access([Rule("verify", ("root", "@no-such-group"), accounts)], OWN_UID, Users())


def with_groups(tmp_path: Path, *groups: str) -> list[str]:
    """The roles, one word a group, of members of 61001 and 61002 on a system with just these groups."""
    peers.require_root()
    (tmp_path / "group").write_text("".join(f"{group}\n" for group in ("root:x:0:", *groups)))
    script = f"""
import subprocess
subprocess.run(["mount", "--bind", {str(tmp_path / "group")!r}, "/etc/group"], check=True)
from pki2fad.host.users import Users
from pki2fad.rules.access import Access, Peer
rules = Access([], {OWN_UID}, Users())
for gid in (61001, 61002):
    peer = Peer(1, {STRANGER}, frozenset([gid]))
    print("+".join(role for role in {ROLES} if rules.allows(peer, role, "default")) or "nothing")
"""
    command = [peers.require("unshare"), "--mount", "--", sys.executable, "-P", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_default_group_has_its_role_where_it_exists(tmp_path: Path) -> None:
    both = ("pki2fad-verify:x:61001:", "pki2fad-generate:x:61002:")
    assert with_groups(tmp_path, *both) == ["verify", "generate"]
    assert with_groups(tmp_path, *both[:1]) == ["verify", "nothing"]


def test_a_system_without_the_default_groups_needs_none(tmp_path: Path) -> None:
    assert with_groups(tmp_path) == ["nothing", "nothing"]


def test_rights_are_kept_apart_for_callers_that_differ_in_anything_but_the_process() -> None:
    access = Access([Rule("verify", (4001,)), Rule("generate", (4001,), ("deploy",))], 0, Users())
    callers = [
        Peer(pid, uid, frozenset(gids), only)
        for pid in (1, 2)
        for uid in (0, 4001, 4002)
        for gids in ((), (0,))
        for only in (False, True)
    ]
    for _ in range(2):
        for caller in callers:
            may = caller.uid in (0, 4001)
            assert access.allows(caller, "verify", "deploy") == may
            assert access.allows(caller, "generate", "deploy") == (may and not caller.verify_only)
            assert access.allows(caller, "generate", "other") == (caller.uid == 0 and not caller.verify_only)

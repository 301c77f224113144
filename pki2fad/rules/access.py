"""Who may do what: from the peer, as the kernel attests it, to its roles."""

import contextlib
import fnmatch
import grp
import pwd
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pki2fad.errors import ConfigError

VERIFY = "verify"
GENERATE = "generate"
ADMIN = "admin"
RELAY = "relay"  # may name the origin of a request: failures then count for that origin
MONITOR = "monitor"  # may read the counts of requests and answers, and nothing else
ENROLL = "enroll"  # may make the account of its own user name, and no other
REGISTRAR = "registrar"  # may enrol other users: for accounts that match its patterns
ROLES = (VERIFY, GENERATE, ADMIN, RELAY, MONITOR, ENROLL, REGISTRAR)

# The roles that count on the socket that only verifies.
_VERIFYING = (VERIFY, RELAY)

# Groups that have a role without any configuration, where they exist.
DEFAULT_GROUPS = {VERIFY: "pki2fad-verify", GENERATE: "pki2fad-generate", MONITOR: "pki2fad-monitor"}

# Callers whose rights are kept, so that nothing is looked up for each request.
_CALLERS = 1024

# The kernel shows this for every id that has no mapping here: it may be anybody.
OVERFLOW_ID = 65534


class Peer(NamedTuple):
    """The other end of a connection: SO_PEERCRED and SO_PEERGROUPS, never what a message says."""

    pid: int
    uid: int
    gids: frozenset[int]  # primary and supplementary; empty for a peer in more than 256 groups
    verify_only: bool = False  # it came over the socket that only verifies


class Rights:
    """What one caller may do: roles for all accounts, and roles for some."""

    __slots__ = ("_some", "everywhere")

    def __init__(self, everywhere: frozenset[str], some: Mapping[str, Container[str]]) -> None:
        self.everywhere = everywhere
        self._some = some  # accounts by role

    def allows(self, role: str, account: str) -> bool:
        """True for the role for this account."""
        return role in self.everywhere or account in self._some.get(role, ())

    def has(self, role: str) -> bool:
        """True for the role for any account at all."""
        return role in self.everywhere or role in self._some


class Patterns:
    """The names that match one of these patterns as a whole, for example `web-*`."""

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(fnmatch.fnmatchcase(name, one) for one in self._patterns)


class Rule(NamedTuple):
    """One `[[access]]` entry: a role for users, `@groups` and uids, for some accounts or all.

    For registrars `accounts` are patterns.
    """

    role: str
    who: tuple[str | int, ...]
    accounts: tuple[str, ...] | None = None


class Users(Protocol):
    """The users of this system, by uid. Only `look_up` may block."""

    def look_up(self, uid: int) -> str | None:
        """The user's name, None if there is none. May block."""

    def name(self, uid: int) -> str | None:
        """The same; raises `Unavailable` until the name was looked up."""

    def is_user(self, uid: int) -> bool:
        """True if the uid is known to have a name."""

    def is_being_looked_up(self, uid: int) -> bool:
        """True until it is known whether the uid has a name."""


@dataclass(slots=True)
class _Grant:
    uids: set[int] = field(default_factory=set)
    gids: set[int] = field(default_factory=set)

    def add(self, uids: Iterable[int] = (), gids: Iterable[int] = ()) -> None:
        """Grant it to these too."""
        self.uids.update(uids)
        self.gids.update(gids)

    def covers(self, peer: Peer) -> bool:
        return peer.uid in self.uids or not self.gids.isdisjoint(peer.gids)


class Access:
    """The rules with all names resolved, as they are at start or reload.

    The daemon's own user and root have every role. Raises `ConfigError` for a name in a rule that the
    system does not know. May block: it asks the name service for the names in the rules. `users` knows the
    uids that were looked up before.
    """

    def __init__(self, rules: Iterable[Rule], own_uid: int, users: Users) -> None:
        self._everywhere = {role: _Grant({0, own_uid}) for role in ROLES}
        self._accounts: dict[tuple[str, str], _Grant] = {}
        self._named = {0, own_uid}  # uids of the configuration
        self._users = users
        for role, name in DEFAULT_GROUPS.items():
            group = _group(name)
            if group is not None:
                self._everywhere[role].add(gids=(group.gr_gid,))
                self._named |= _members(group)
        for rule in rules:
            for grant in self._grants(rule):
                for who in rule.who:
                    self._named |= _add(grant, who)
        for grant in (*self._everywhere.values(), *self._accounts.values()):
            grant.uids.discard(OVERFLOW_ID)
            grant.gids.discard(OVERFLOW_ID)
        self._some, self._some_verifying = self._union(ROLES), self._union(_VERIFYING)
        self._names = {uid: users.look_up(uid) for uid in self._named}
        self._rights: dict[tuple[object, ...], Rights] = {}  # by all of a peer but its pid

    def allows(self, peer: Peer, role: str, account: str) -> bool:
        """True if the peer has the role for this account."""
        return self.rights(peer).allows(role, account)

    def allows_everywhere(self, peer: Peer, role: str) -> bool:
        """True if the peer has the role for all accounts."""
        return role in self.rights(peer).everywhere

    def has_role(self, peer: Peer, role: str) -> bool:
        """True if the peer has the role for any account at all."""
        return self.rights(peer).has(role)

    def rights(self, peer: Peer) -> Rights:
        """What the peer may do. It is looked up once for all callers like it."""
        caller = peer[1:]
        rights = self._rights.get(caller)
        if rights is None:
            if len(self._rights) >= _CALLERS:
                self._rights.clear()
            rights = self._rights[caller] = self._look_up(peer)
        return rights

    def _look_up(self, peer: Peer) -> Rights:
        everywhere = {role for role, grant in self._everywhere.items() if grant.covers(peer)}
        some: dict[str, set[str]] = {}
        for (role, account), grant in self._accounts.items():
            if grant.covers(peer):
                some.setdefault(role, set()).add(account)
        return Rights(
            frozenset(role for role in everywhere if _may_have(peer, role)),
            {
                role: Patterns(accounts) if role == REGISTRAR else frozenset(accounts)
                for role, accounts in some.items()
                if _may_have(peer, role)
            },
        )

    def has_some_role(self, peer: Peer) -> bool:
        """True if the peer has any role that counts on its socket."""
        if peer.uid == OVERFLOW_ID:
            return False
        return (self._some_verifying if peer.verify_only else self._some).covers(peer)

    def payer(self, uid: int) -> int:
        """The uid whose budget pays for this uid's failures and connections.

        Uids without a user share one budget, since anyone with a user namespace has thousands of them. So
        do uids that have not been looked up yet.
        """
        return uid if uid in self._named or self._users.is_user(uid) else OVERFLOW_ID

    def is_being_looked_up(self, uid: int) -> bool:
        """True until it is known whether the uid has a user. Its payer may change then."""
        return uid not in self._named and self._users.is_being_looked_up(uid)

    def user_name(self, uid: int) -> str | None:
        """The name of the user with this uid, None if there is none.

        Never blocks: raises `Unavailable` for a uid outside the configuration that is being looked up.
        """
        return self._names[uid] if uid in self._names else self._users.name(uid)

    def _union(self, roles: Iterable[str]) -> _Grant:
        """All users and groups that have one of these roles for any account."""
        union = _Grant()
        for grant in (
            *(self._everywhere[role] for role in roles),
            *(grant for (role, _), grant in self._accounts.items() if role in roles),
        ):
            union.add(grant.uids, grant.gids)
        return union

    def _grants(self, rule: Rule) -> list[_Grant]:
        if rule.accounts is None:
            return [self._everywhere[rule.role]]
        return [self._accounts.setdefault((rule.role, name), _Grant()) for name in rule.accounts]


def _may_have(peer: Peer, role: str) -> bool:
    return peer.uid != OVERFLOW_ID and (role in _VERIFYING or not peer.verify_only)


def _add(grant: _Grant, who: str | int) -> set[int]:
    """Grant the role to a user, a uid or a `@group`; returns the uids of the users and members."""
    if isinstance(who, int):
        named = {who}
    elif who.startswith("@"):
        group = _group(who[1:])
        if group is None:
            raise ConfigError(f"access: there is no group {who[1:]!r} on this system")
        grant.add(gids=(group.gr_gid,))
        return _members(group)
    else:
        try:
            named = {pwd.getpwnam(who).pw_uid}
        except KeyError:
            raise ConfigError(f"access: there is no user {who!r} on this system") from None
    grant.add(named)
    return named


def key_gid(group: str | int | None) -> int | None:
    """The gid that the setting `key_group` names. Raises `ConfigError` for an unknown name."""
    gid = group
    if isinstance(group, str):
        found = _group(group)
        if found is None:
            raise ConfigError(f"key_group: there is no group {group!r} on this system")
        gid = found.gr_gid
    return None if gid == OVERFLOW_ID else gid  # type: ignore[return-value]  # it is no name any more


def _members(group: grp.struct_group) -> set[int]:
    """The uids of the members that a group lists: not those that have it as their primary group."""
    uids = set()
    for name in group.gr_mem:
        with contextlib.suppress(KeyError):  # the user was removed, and the name stayed
            uids.add(pwd.getpwnam(name).pw_uid)
    return uids


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None

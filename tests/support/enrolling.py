"""A host with users, registrars and administrators that enrol, and what they ask for."""

import pwd
from typing import Any

import pytest

from pki2fad.errors import Refusal
from pki2fad.rules.access import OVERFLOW_ID, Peer, Rule
from pki2fad.rules.throttle import Throttle
from support.agents import SEED, make_agent, reference_code
from support.host import Host

USER = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, OVERFLOW_ID))
NAME = USER.pw_name


def peer_of(uid: int) -> Peer:
    return Peer(1, uid, frozenset({uid}))


ALICE = peer_of(USER.pw_uid)
REGISTRAR, OTHER_REGISTRAR, ADMIN, ADMIN_OF_ONE = map(peer_of, range(5001, 5005))
RULES = (
    Rule("enroll", (ALICE.uid,)),
    Rule("registrar", (REGISTRAR.uid,), ("web-*", "shop")),
    Rule("registrar", (OTHER_REGISTRAR.uid,), ("web-1",)),
    Rule("admin", (ADMIN.uid,)),
    Rule("admin", (ADMIN_OF_ONE.uid,), ("web-1",)),
)


def throttled_host(host: Host) -> Host:
    """The same with throttling."""
    throttle = Throttle(b"secret", (), host.reading)
    host.agent = make_agent(host.keyring, RULES, watch=host.watch, throttle=throttle)
    return host


def code_of(host: Host, seed: bytes = SEED, ahead: int = 0) -> str:
    return reference_code(seed, host.step() + ahead)


def enroll(host: Host, peer: Peer, **args: Any) -> bytes:
    """The new seed."""
    return bytes.fromhex(host.call("enroll", peer, **args)["seed"])


def confirm(host: Host, seed: bytes, peer: Peer, ahead: int = 0, **args: Any) -> bool:
    return bool(host.call("enroll_confirm", peer, code=code_of(host, seed, ahead), **args)["valid"])


def refused(host: Host, method: str, peer: Peer, **args: Any) -> type[Refusal]:
    with pytest.raises(Refusal) as caught:
        host.call(method, peer, **args)
    return type(caught.value)


def labels(host: Host, name: str) -> list[str]:
    return [one.label for one in host.keyring.accounts[name].authenticators]

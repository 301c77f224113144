"""Enrolment: who gets a seed for what account, what its first code does, and what it is until then."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import (
    OTHER_SEED,
    ROOT,
    STARTED,
    at,
    call,
    make_agent,
    make_keyring,
    oathtool_code,
    reference_code,
    sealed,
)
from support.host import Host
from support.sites import Site

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey, private_pem
from pki2fad.errors import (
    AccountExists,
    BadRequest,
    Forbidden,
    Locked,
    NoSuchAccount,
    Throttled,
    Unavailable,
    UnusableState,
)
from pki2fad.methods.agent import Agent
from pki2fad.rules import enrolments
from pki2fad.rules.access import OVERFLOW_ID, Peer, Rule
from pki2fad.rules.otp import Parameters
from pki2fad.rules.throttle import Throttle
from pki2fad.wire.messages import Request

USER, OTHER_USER = [entry for entry in pwd.getpwall() if entry.pw_uid not in (0, OVERFLOW_ID)][:2]
NAME = USER.pw_name
NAMELESS = next(uid for uid in range(60_000, 65_000) if uid not in {one.pw_uid for one in pwd.getpwall()})


def peer_of(uid: int) -> Peer:
    return Peer(1, uid, frozenset({uid}))


ALICE, BOB = peer_of(USER.pw_uid), peer_of(OTHER_USER.pw_uid)
RULES = (
    Rule("enroll", (ALICE.uid, BOB.uid, NAMELESS, OVERFLOW_ID)),
    Rule("verify", (BOB.uid,)),
    Rule("relay", (BOB.uid,)),
)
LIFETIME = 600


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path / "state.db", MasterKey(), rules=RULES) as host:
        yield host


def enroll(host: Host, peer: Peer = ALICE) -> bytes:
    """The new seed."""
    return bytes.fromhex(host.call("enroll", peer)["seed"])


def confirm(host: Host, seed: bytes, ahead: int = 0, peer: Peer = ALICE) -> bool:
    code = reference_code(seed, host.step() + ahead)
    return bool(host.call("enroll_confirm", peer, code=code)["valid"])


def names(host: Host) -> list[str]:
    return [row["account"] for row in host.call("accounts")]


# Who gets what


def test_a_user_gets_a_new_seed_and_its_first_code_makes_the_account(host: Host) -> None:
    given = host.call("enroll", ALICE)
    seed = bytes.fromhex(given.pop("seed"))
    of = {"algorithm": "SHA1", "digits": 6, "period": 30}
    assert given == {"account": NAME, **of, "expires_in": LIFETIME}
    assert len(seed) == 32
    assert host.call("enroll_confirm", ALICE, code=oathtool_code(seed, host.wall)) == {"valid": True}
    host.wait(30)
    assert host.call("generate", account=NAME)["code"] == oathtool_code(seed, host.wall)
    host.restart()
    assert names(host) == [NAME]
    assert host.verify(host.step(), NAME, seed)


def test_nobody_but_root_and_the_daemons_own_user_may_without_a_rule(master: MasterKey) -> None:
    agent = make_agent(make_keyring(master=master), own_uid=OTHER_USER.pw_uid)
    for peer in (ALICE, peer_of(NAMELESS)):  # the latter is not looked for in vain
        for method, args in (("enroll", {}), ("enroll_confirm", {"code": "123456"})):
            with pytest.raises(Forbidden, match="this needs the role 'enroll'"):
                call(agent, method, peer, STARTED, **args)
    assert call(agent, "enroll", ROOT, STARTED)["account"] == pwd.getpwuid(0).pw_name
    assert call(agent, "enroll", BOB, STARTED)["account"] == OTHER_USER.pw_name


def test_a_rule_for_some_accounts_is_for_users_of_these_names(master: MasterKey) -> None:
    rules = [Rule("enroll", (ALICE.uid, BOB.uid), (NAME, "somebody"))]
    agent = make_agent(make_keyring(master=master), rules)
    assert call(agent, "enroll", ALICE, STARTED)["account"] == NAME
    with pytest.raises(Forbidden):
        call(agent, "enroll", BOB, STARTED)


@pytest.mark.parametrize("args", [{"account": "root"}, {"account": NAME}])
def test_the_role_enroll_lets_no_message_say_for_whom_it_is(host: Host, args: dict[str, Any]) -> None:
    with pytest.raises(Forbidden, match="'registrar'"):
        host.call("enroll", ALICE, **args)
    with pytest.raises(Forbidden, match="'registrar'"):
        host.call("enroll_confirm", ALICE, code="123456", **args)


@pytest.mark.parametrize("args", [{"uid": 0}, {"seed": b"x"}])
def test_no_message_says_with_what_seed(host: Host, args: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        host.call("enroll", ALICE, **args)
    with pytest.raises(BadRequest):
        host.call("enroll_confirm", ALICE, code="123456", **args)


@pytest.mark.parametrize("uid", [NAMELESS, OVERFLOW_ID])
def test_who_has_no_name_gets_nothing(host: Host, uid: int) -> None:
    for method, args in (("enroll", {}), ("enroll_confirm", {"code": "123456"})):
        with pytest.raises(Forbidden):
            host.call(method, peer_of(uid), **args)


def test_the_log_has_the_account_also_of_what_is_refused(host: Host) -> None:
    for _ in range(2):
        request = Request(1, "enroll", {})
        answer = host.agent.handle(request, ALICE, host.reading)
        assert request.account == NAME
        host.call("load", account=NAME, sealed=sealed(OTHER_SEED), replace=True)
    assert isinstance(answer.refusal, AccountExists)


# Where there is an account


def test_a_user_who_has_an_account_gets_no_seed(host: Host) -> None:
    seed = enroll(host)
    assert confirm(host, seed)
    for method, args in (("enroll", {}), ("enroll_confirm", {"code": "123456"})):
        with pytest.raises(AccountExists, match="administrator"):
            host.call(method, ALICE, **args)
    host.wait(30)
    assert host.verify(host.step(), NAME, seed)


def test_an_account_that_an_administrator_loads_meanwhile_stays_as_it_is(host: Host) -> None:
    seed = enroll(host)
    host.load(NAME, OTHER_SEED)
    with pytest.raises(AccountExists):
        confirm(host, seed)
    host.call("remove", account=NAME)
    with pytest.raises(NoSuchAccount):  # nor does it come back after that
        confirm(host, seed)


def test_an_administrator_removes_the_account_and_the_user_gets_another_seed(host: Host) -> None:
    first = enroll(host)
    assert confirm(host, first)
    host.call("remove", account=NAME)
    second = enroll(host)
    assert second != first
    assert not confirm(host, first, 1)
    assert confirm(host, second, 1)


# The first code


def test_the_first_code_is_spent_also_across_restarts(host: Host) -> None:
    seed = enroll(host)
    assert confirm(host, seed, 1)
    for _ in range(2):
        assert not host.verify(host.step(), NAME, seed)
        assert not host.verify(host.step() + 1, NAME, seed)
        host.kill()
    host.wait(60)
    assert host.verify(host.step(), NAME, seed)
    assert names(host) == [NAME]


@pytest.mark.parametrize("ahead", [-1, 0, 1])
def test_a_code_of_the_window_is_right(host: Host, ahead: int) -> None:
    assert confirm(host, enroll(host), ahead)
    assert host.call("accounts")[0]["drift"] == [ahead]


@pytest.mark.parametrize("ahead", [-3, -2, 2, 3])
def test_a_code_beside_the_window_is_wrong_and_a_right_one_may_follow(host: Host, ahead: int) -> None:
    seed = enroll(host)
    assert not confirm(host, seed, ahead)
    assert names(host) == []
    assert confirm(host, seed)


@pytest.mark.parametrize("code", ["", "12345", "123456789", "12345x", " 123456", "\uff11\uff12\uff13456"])
def test_what_is_no_code_is_a_bad_request(host: Host, code: str) -> None:
    enroll(host)
    with pytest.raises(BadRequest, match="digits"):
        host.call("enroll_confirm", ALICE, code=code)


def test_the_code_of_another_user_is_wrong(host: Host) -> None:
    seeds = {ALICE: enroll(host), BOB: enroll(host, BOB)}
    assert not confirm(host, seeds[BOB], peer=ALICE)
    assert not confirm(host, seeds[ALICE], peer=BOB)
    assert names(host) == []
    assert confirm(host, seeds[ALICE], peer=ALICE)
    with pytest.raises(AccountExists):
        confirm(host, seeds[ALICE], 1, ALICE)
    assert names(host) == [NAME]


def test_after_a_restart_of_the_machine_no_seed_waits_and_a_new_one_waits_for_the_clock(host: Host) -> None:
    seed = enroll(host)
    assert confirm(host, seed)
    bobs = enroll(host, BOB)
    host.wait(30)
    assert host.verify(host.step(), NAME, seed)  # from now on there is a lease
    host.reboot()
    with pytest.raises(NoSuchAccount):
        confirm(host, bobs, peer=BOB)
    bobs = enroll(host, BOB)
    with pytest.raises(Unavailable):
        confirm(host, bobs, peer=BOB)
    host.wait(host.keyring.floors[30] - host.wall)
    assert not confirm(host, bobs, -1, BOB)
    assert confirm(host, bobs, peer=BOB)


# While it waits


def test_what_waits_is_no_account_to_anything_else(host: Host) -> None:
    seed = enroll(host)
    code = reference_code(seed, host.step())
    unknown = host.call("verify", BOB, account="nobody-knows", code=code)
    assert host.call("verify", BOB, account=NAME, code=code) == unknown == {"valid": False}
    for method, args in (("generate", {}), ("verify", {"code": code})):
        with pytest.raises(NoSuchAccount):
            host.call(method, account=NAME, **args)
    assert names(host) == []
    assert host.call("status")["accounts"] == 0
    assert confirm(host, seed)  # no code was spent


def test_an_administrator_removes_what_waits(host: Host) -> None:
    seed = enroll(host)
    host.call("remove", account=NAME)
    with pytest.raises(NoSuchAccount):
        confirm(host, seed)
    with pytest.raises(NoSuchAccount):
        host.call("remove", account=NAME)


def test_another_seed_takes_the_place_of_the_first(host: Host) -> None:
    first, second = enroll(host), enroll(host)
    assert not confirm(host, first)
    assert confirm(host, second)


def test_it_expires_whatever_the_wall_clock_does(host: Host) -> None:
    seed = enroll(host)
    host.uptime += LIFETIME - 1
    host.wall -= 20  # less than the watch sees
    assert not confirm(host, os.urandom(32))
    host.uptime += 1
    with pytest.raises(NoSuchAccount, match="expired"):
        confirm(host, seed)


@pytest.mark.parametrize("forget", ["lock", "restart", "kill"])
def test_nothing_of_it_outlives_a_lock_or_a_restart(host: Host, forget: str) -> None:
    seed = enroll(host)
    if forget == "lock":
        host.call("lock")
        for method, args in (("enroll", {}), ("enroll_confirm", {"code": "123456"})):
            with pytest.raises(Locked):
                host.call(method, ALICE, **args)
        host.call("unlock")
    else:
        getattr(host, forget)()
    with pytest.raises(NoSuchAccount):
        confirm(host, seed)


def test_a_new_host_key_ends_what_waits(tmp_path: Path, host_key: PrivateKey, other_key: PrivateKey) -> None:
    with Site(tmp_path / "state.db", host_key) as site:
        seed = enroll(site, ROOT)
        site.call("rotate", private=private_pem(other_key))
        with pytest.raises(NoSuchAccount):
            confirm(site, seed, peer=ROOT)
        assert confirm(site, enroll(site, ROOT), peer=ROOT)


def test_a_bounded_number_waits(host: Host) -> None:
    waiting = host.keyring.enrolments
    for number in range(enrolments.LIMIT):
        new = host.keyring.seal(f"user-{number}", bytearray(20), Parameters())
        waiting.add(new, 70_000 + number, host.uptime)
    with pytest.raises(Unavailable, match="too many enrolments") as caught:
        enroll(host)
    assert caught.value.retry_after == LIFETIME
    host.wait(LIFETIME)
    enroll(host)
    assert waiting.labels(NAME) == ["main"]
    assert waiting.labels("user-0") == []


def test_what_could_not_be_kept_is_no_account_and_the_code_stays_good(host: Host) -> None:
    seed = enroll(host)
    host.store.close()
    with pytest.raises(UnusableState):
        confirm(host, seed)
    host.store = type(host.store)(str(host.path))
    assert names(host) == []
    assert confirm(host, seed)


# Throttling


@pytest.fixture
def agent(master: MasterKey) -> Agent:
    return make_agent(make_keyring(master=master), RULES, throttle=Throttle(b"secret", (), STARTED))


def guess(agent: Agent, method: str, peer: Peer, **args: Any) -> None:
    assert call(agent, method, peer, STARTED, **args) == {"valid": False}


def test_wrong_codes_are_throttled_and_a_new_seed_gives_no_new_budget(agent: Agent) -> None:
    for _ in range(4):
        call(agent, "enroll", ALICE, STARTED)
        guess(agent, "enroll_confirm", ALICE, code="0000000")
    seed = bytes.fromhex(call(agent, "enroll", ALICE, STARTED)["seed"])
    code = reference_code(seed, int(STARTED.wall) // 30)
    with pytest.raises(Throttled) as caught:
        call(agent, "enroll_confirm", ALICE, STARTED, code=code)
    assert caught.value.retry_after == 60
    later = at(STARTED.wall + 60)
    code = reference_code(seed, int(later.wall) // 30)
    assert call(agent, "enroll_confirm", ALICE, later, code=code) == {"valid": True}


def test_the_budget_is_that_of_verify(agent: Agent) -> None:
    call(agent, "enroll", BOB, STARTED)
    for method, args in [("verify", {"account": OTHER_USER.pw_name}), ("enroll_confirm", {})] * 2:
        guess(agent, method, BOB, code="0000000", **args)
    for method, args in [("verify", {"account": OTHER_USER.pw_name}), ("enroll_confirm", {})]:
        with pytest.raises(Throttled):
            call(agent, method, BOB, STARTED, code="0000000", **args)


def test_who_guesses_at_a_name_keeps_its_user_from_no_account(agent: Agent) -> None:
    args: dict[str, Any] = {"account": NAME, "code": "0000000"}
    for number in range(162 // 3):  # the budget of a name
        guess(agent, "verify", BOB, **args, origin=f"192.0.2.{number}")
    with pytest.raises(Throttled):
        guess(agent, "verify", BOB, **args, origin="192.0.2.200")
    seed = bytes.fromhex(call(agent, "enroll", ALICE, STARTED)["seed"])
    code = reference_code(seed, int(STARTED.wall) // 30)
    assert call(agent, "enroll_confirm", ALICE, STARTED, code=code) == {"valid": True}


def test_who_gave_the_first_code_is_known_to_the_new_account(agent: Agent) -> None:
    seed = bytes.fromhex(call(agent, "enroll", ALICE, STARTED)["seed"])
    code = reference_code(seed, int(STARTED.wall) // 30)
    assert call(agent, "enroll_confirm", ALICE, STARTED, code=code) == {"valid": True}
    for peer, known in ((ALICE, True), (BOB, False)):
        caller = call(agent, "throttled", ROOT, STARTED, account=NAME, uid=peer.uid)["caller"]
        assert caller["known"] is known

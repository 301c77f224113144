"""Who may make recovery codes, and what it takes."""

import pwd
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import OTHER_SEED, ROOT, STEP, STRANGER, at_step, make_agent, reference_code, sealed
from support.host import Host
from support.recovery import create, is_good

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadRequest, Forbidden, NoSuchAccount, Refusal, Throttled, UnusableState
from pki2fad.rules.access import OVERFLOW_ID, Peer, Rule
from pki2fad.rules.otp import Parameters
from pki2fad.rules.throttle import Throttle
from pki2fad.wire.messages import Request

USER, OTHER_USER = [entry for entry in pwd.getpwall() if entry.pw_uid not in (0, OVERFLOW_ID)][:2]
NAME, SEED = USER.pw_name, b"12345678901234567890"


def peer_of(uid: int) -> Peer:
    return Peer(1, uid, frozenset({uid}))


USER_PEER, OTHER_PEER = peer_of(USER.pw_uid), peer_of(OTHER_USER.pw_uid)
ADMIN, ADMIN_OF_ONE, VERIFIER = peer_of(5001), peer_of(5002), peer_of(5003)
RULES = (
    Rule("enroll", (USER_PEER.uid, OTHER_PEER.uid)),
    Rule("verify", (USER_PEER.uid, VERIFIER.uid)),
    Rule("admin", (ADMIN.uid,)),
    Rule("admin", (ADMIN_OF_ONE.uid,), (NAME,)),
)


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    """A host with an account of a user."""
    with Host(tmp_path / "state.db", master, at_step(STEP).wall, RULES) as host:
        host.load(NAME)
        yield host


def code_of_now(host: Host, seed: bytes = SEED) -> str:
    return reference_code(seed, host.step())


def refusal(host: Host, peer: Peer, **args: str) -> Refusal:
    with pytest.raises(Refusal) as raised:
        create(host, NAME, peer, **args)
    return raised.value


def has_codes(host: Host) -> bool:
    return host.keyring.accounts[NAME].recovery is not None


def test_an_administrator_of_all_accounts_needs_no_code(host: Host) -> None:
    for peer in (ADMIN, ROOT):
        codes = create(host, NAME, peer)
        assert len(set(codes)) == 10
        assert all(re.fullmatch("[0-9A-Z]{5}-[0-9A-Z]{5}", code) for code in codes)
        assert is_good(host, codes[0], NAME)


@pytest.mark.parametrize("peer", [ADMIN_OF_ONE, VERIFIER, STRANGER, peer_of(OVERFLOW_ID)], ids=str)
@pytest.mark.parametrize("with_code", [False, True])
def test_nobody_else_may_make_them_for_others(host: Host, peer: Peer, with_code: bool) -> None:
    code = {"code": code_of_now(host)} if with_code else {}
    refused = refusal(host, peer, **code)
    assert type(refused) is Forbidden
    assert not has_codes(host)
    assert host.verify(host.step(), NAME)  # the code is not spent


def test_a_user_makes_those_of_their_own_account_with_a_code_which_is_spent(host: Host) -> None:
    codes = create(host, NAME, USER_PEER, code=code_of_now(host))
    assert not host.verify(host.step(), NAME)
    host.kill()
    assert not host.verify(host.step(), NAME)
    assert is_good(host, codes[0], NAME)


def test_a_user_makes_none_for_another_account(host: Host) -> None:
    refused = refusal(host, OTHER_PEER, code=code_of_now(host))
    assert (type(refused), "your own user name" in str(refused)) == (Forbidden, True)
    assert not has_codes(host)
    assert host.verify(host.step(), NAME)


def test_a_user_without_a_code_makes_none(host: Host) -> None:
    assert type(refusal(host, USER_PEER)) is Forbidden
    assert not has_codes(host)


@pytest.mark.parametrize("used", [False, True])
def test_a_recovery_code_makes_no_others_and_is_not_used_by_that(host: Host, used: bool) -> None:
    code, *_ = create(host, NAME)
    if used:
        assert is_good(host, code, NAME)
    assert type(refusal(host, USER_PEER, code=code)) is BadRequest
    assert is_good(host, code, NAME) is not used


@pytest.mark.parametrize("code", ["", "12345", "123456789", " 123456"])
def test_what_is_no_code_is_bad_request(host: Host, code: str) -> None:
    assert type(refusal(host, USER_PEER, code=code)) is BadRequest
    assert type(refusal(host, ROOT, code=code)) is BadRequest


def test_a_spent_or_wrong_code_makes_none(host: Host) -> None:
    assert host.verify(host.step(), NAME)
    for code in (code_of_now(host), "0000000"):
        assert type(refusal(host, USER_PEER, code=code)) is Forbidden
        assert type(refusal(host, ROOT, code=code)) is Forbidden  # a code that is given counts
    assert not has_codes(host)


def test_without_an_account_there_are_no_codes(host: Host) -> None:
    host.call("remove", account=NAME)
    assert type(refusal(host, ROOT)) is NoSuchAccount
    assert type(refusal(host, USER_PEER, code="123456")) is NoSuchAccount


def test_wrong_codes_are_throttled_with_those_of_verify(host: Host) -> None:
    throttle = Throttle(b"secret", (), host.reading)
    host.agent = make_agent(host.keyring, RULES, throttle=throttle, watch=host.watch)
    for _ in range(2):
        assert type(refusal(host, USER_PEER, code="0000000")) is Forbidden
        assert host.call("verify", USER_PEER, account=NAME, code="0000000") == {"valid": False}
    assert type(refusal(host, USER_PEER, code=code_of_now(host))) is Throttled
    with pytest.raises(Throttled):
        host.call("verify", USER_PEER, account=NAME, code="0000000")
    assert create(host, NAME)  # an administrator does not guess


@pytest.mark.parametrize("label", ["main", "phone"])
def test_a_code_of_any_authenticator_will_do(host: Host, label: str) -> None:
    account = host.keyring.accounts[NAME]
    phone = host.keyring.seal(NAME, bytearray(OTHER_SEED), Parameters(), label="phone")
    host.keyring.put(account.with_authenticator(phone))
    seed = SEED if label == "main" else OTHER_SEED
    codes = create(host, NAME, USER_PEER, code=code_of_now(host, seed))
    host.restart()
    assert not host.verify(host.step(), NAME, seed)
    assert is_good(host, codes[0], NAME)


def test_the_first_code_of_a_successor_will_do_and_ends_the_one_before(host: Host) -> None:
    host.call("load", account=NAME, sealed=sealed(OTHER_SEED), successor=True)
    codes = create(host, NAME, USER_PEER, code=code_of_now(host, OTHER_SEED))
    host.restart()
    assert not host.verify(host.step(), NAME)
    assert not host.verify(host.step(), NAME, OTHER_SEED)
    assert host.verify(host.step() + 1, NAME, OTHER_SEED)
    assert is_good(host, codes[0], NAME)


def test_where_the_codes_cannot_be_stored_the_old_ones_stay(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = create(host, NAME)

    def full(*_: object) -> None:
        raise UnusableState("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(host.store, "keep", full)
        with pytest.raises(UnusableState):
            create(host, NAME)
    assert is_good(host, old[0], NAME)


def test_the_audit_says_what_was_made_and_not_the_codes(host: Host) -> None:
    asked = Request(1, "recovery_create", {"account": NAME})
    for done in ("created", "replaced"):
        answer = host.agent.handle(asked, ROOT, host.reading)
        host.keep(answer.change)
        assert (answer.audit, answer.details) == (done, None)
        shown = f"{answer!r} {answer.change!r}"
        assert not [
            code for code in answer.result["codes"] if code in shown or code.replace("-", "") in shown
        ]
    refused = host.agent.handle(Request(1, "recovery_create", {"account": NAME}), ADMIN_OF_ONE, host.reading)
    assert refused.audit == "refused"

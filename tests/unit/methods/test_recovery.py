"""Recovery codes: each is good once, for ever, and to those who may not know, nothing shows who has some."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import OTHER_SEED, ROOT, SEED, STEP, at_step, call, make_agent, make_keyring, sealed
from support.host import Host
from support.recovery import NO_CODE, create, is_good

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadRequest, Locked, NoSuchAccount, Throttled, Unavailable, UnusableState
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer, Rule
from pki2fad.rules.changes import Answer, RecoverySpend, Rotation
from pki2fad.rules.pieces import finish
from pki2fad.rules.throttle import Throttle
from pki2fad.wire.messages import Request

NOW = at_step(STEP)
VERIFIER = Peer(3, 4713, frozenset({4713}))  # who may not know which accounts there are
RULES = (Rule("verify", (VERIFIER.uid,)),)


def answered(agent: Agent, code: str, peer: Peer = VERIFIER, account: str = "default") -> Answer:
    return agent.handle(Request(1, "verify", {"account": account, "code": code}), peer, NOW)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host with an account, under a master key that no other test has."""
    with Host(tmp_path / "state.db", MasterKey(), NOW.wall) as host:
        host.load()
        yield host


# Once


def test_each_code_is_good_once(host: Host) -> None:
    codes = create(host)
    assert [is_good(host, code) for code in codes * 2] == [True] * 10 + [False] * 10


def test_a_code_is_good_once_however_it_is_typed(host: Host) -> None:
    code, *_ = create(host)
    typed = [
        code.lower().replace("-", ""),
        code,
        code.replace("-", ""),
        code.replace("0", "o").replace("1", "L"),
    ]
    assert [is_good(host, one) for one in typed] == [True, False, False, False]


@pytest.mark.parametrize("end", [Host.restart, Host.kill, Host.reboot])
def test_a_used_code_stays_used_over_a_restart(host: Host, end: Any) -> None:
    first, second, *_ = create(host)
    assert is_good(host, first)
    end(host)
    assert [is_good(host, first), is_good(host, second), is_good(host, second)] == [False, True, False]


def test_of_equal_codes_in_one_turn_one_is_good(host: Host) -> None:
    code, *_ = create(host)
    request = Request(1, "verify", {"account": "default", "code": code})
    first, second = (host.agent.handle(request, ROOT, host.reading) for _ in range(2))
    assert host.keep(first.change, second.change)
    assert (first.result, second.result) == ({"valid": True}, {"valid": False})
    assert second.reason == "replayed"


def test_a_code_that_another_process_used_is_not_good(host: Host) -> None:
    code, *_ = create(host)
    host.keep(RecoverySpend("default", 1))
    assert not is_good(host, code)


def test_a_code_whose_use_could_not_be_stored_is_not_good_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, *_ = create(host)

    def full(*_: object) -> None:
        raise UnusableState("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(host.store, "keep", full)
        with pytest.raises(UnusableState):
            is_good(host, code)
    assert not is_good(host, code)


def test_a_new_set_replaces_the_old_one(host: Host) -> None:
    old, new = create(host), create(host)
    assert not set(old) & set(new)
    host.restart()
    assert [is_good(host, code) for code in old] == [False] * 10
    assert [is_good(host, code) for code in new] == [True] * 10


# What becomes of the account


def test_the_codes_stay_with_the_account_whatever_is_loaded(host: Host) -> None:
    codes = iter(create(host))
    host.load(seed=OTHER_SEED)
    assert is_good(host, next(codes))
    host.call("load", sealed=sealed(SEED), successor=True)
    assert is_good(host, next(codes))
    assert host.verify(host.step())  # the successor takes over
    assert is_good(host, next(codes))
    host.call("unthrottle")
    host.call("load", sealed=sealed(bytes(range(20))), label="phone", digits=8)
    assert is_good(host, next(codes))
    host.call("remove", label="main")
    assert is_good(host, next(codes))
    host.restart()
    assert is_good(host, next(codes))


def test_removing_the_account_ends_its_codes(host: Host) -> None:
    codes = create(host)
    host.call("remove")
    host.load()
    assert [is_good(host, code) for code in codes] == [False] * 10
    host.restart()
    assert [is_good(host, code) for code in codes] == [False] * 10


def test_the_codes_of_one_account_are_not_those_of_another(host: Host) -> None:
    host.load("other", OTHER_SEED)
    codes, others = create(host), create(host, "other")
    assert [is_good(host, code, "other") for code in codes] == [False] * 10
    assert is_good(host, others[0], "other")


@pytest.mark.parametrize("restart", [False, True])
def test_the_codes_are_good_under_another_master_key(host: Host, restart: bool) -> None:
    first, second, *_ = create(host)
    new = MasterKey()
    new.adopt_digests(host.keyring.master)
    resealed = finish(host.keyring.all_resealed(new))
    assert is_good(host, first)  # meanwhile
    rotation = Rotation(new, {}, resealed, new.sealed_digest_key())
    host.keep(rotation)
    finish(host.agent.memory.applied(rotation))
    if restart:
        host._master = new
        host.restart()
        finish(host.keyring.checked(new))
    assert [is_good(host, first), is_good(host, second)] == [False, True]


def test_a_locked_daemon_checks_no_recovery_code(host: Host) -> None:
    code, *_ = create(host)
    host.keyring.lock()
    with pytest.raises(Locked):
        is_good(host, code)


def test_neither_the_clock_nor_a_floor_holds_a_recovery_code_back(host: Host) -> None:
    first, second, *_ = create(host)
    host.wait(300)
    host.verify(host.step())  # there is a lease
    host.wait(600)
    host.set(host.wall - 500)
    with pytest.raises(Unavailable):
        host.verify(host.step())
    assert is_good(host, first)
    host.reboot()
    assert is_good(host, second)


# What is told


def test_administrators_see_how_many_are_left(host: Host) -> None:
    def explained(code: str) -> dict[str, Any]:
        result: dict[str, Any] = host.call("verify", code=code, explain=True)
        return result

    assert explained(NO_CODE) == {"valid": False, "recovery": None}
    first, second, *_ = create(host)
    assert explained(first) == {"valid": True, "recovery": 9}
    assert explained(first) == {"valid": False, "reason": "used", "recovery": 9}
    assert explained(NO_CODE) == {"valid": False, "recovery": 9}
    assert host.call("verify", code=second) == {"valid": True}
    with pytest.raises(NoSuchAccount):
        host.call("verify", account="nobody", code=NO_CODE, explain=True)


def test_accounts_says_how_many_are_left(host: Host) -> None:
    def left() -> int | None:
        answer = call(host.agent, "accounts", ROOT, host.reading)
        count: int | None = answer[0]["recovery"]
        return count

    assert left() is None
    codes = create(host)
    assert left() == 10
    assert [is_good(host, code) for code in codes] == [True] * 10
    assert left() == 0
    host.restart()
    assert left() == 0


@pytest.mark.parametrize("code", ["K7QM4-2XW9", "K7QM4-2XW9U", "K7QM4 2XW9T", "123456789", "12345", ""])
def test_what_is_neither_a_code_nor_a_recovery_code_is_bad_request(host: Host, code: str) -> None:
    with pytest.raises(BadRequest, match="6 to 8 digits, or a recovery code like K7QM4-2XW9T"):
        is_good(host, code)


def test_the_log_has_the_use_and_not_the_code(host: Host) -> None:
    code, *_ = create(host)
    answer = host.agent.handle(Request(1, "verify", {"code": code}), ROOT, host.reading)
    assert (answer.audit, answer.details) == ("recovered", {"left": 9})
    shown = re.sub("[^0-9A-Z]", "", f"{answer!r} {answer.change!r} {answer.details!r}".upper())
    assert code.replace("-", "") not in shown


# What a wrong one costs, and who sees what


@pytest.fixture
def throttling() -> Agent:
    """An agent that throttles, with the account `default`, and `codes` and `two` with codes."""
    keyring = make_keyring({"default": SEED, "codes": SEED, "two": SEED})
    agent = make_agent(keyring, RULES, throttle=Throttle(b"secret", (), NOW))
    two = keyring.accounts["two"]
    phone = keyring.seal("two", bytearray(OTHER_SEED), two.parameters, label="phone")
    keyring.put(two.with_authenticator(phone))
    for name in ("codes", "two"):
        call(agent, "recovery_create", ROOT, NOW, account=name)
    return agent


def test_a_wrong_recovery_code_is_counted_with_wrong_codes(throttling: Agent) -> None:
    wrong = ["000000", NO_CODE, "1111111", NO_CODE]
    for code in wrong:
        assert answered(throttling, code).result == {"valid": False}
    for code in ("000000", NO_CODE):
        refusal = answered(throttling, code).refusal
        assert isinstance(refusal, Throttled)
        assert refusal.retry_after == 60


@pytest.mark.parametrize("account", ["default", "codes", "nobody", "two"])
def test_answers_do_not_show_whether_there_are_recovery_codes(throttling: Agent, account: str) -> None:
    seen = []
    for _ in range(6):
        answer = answered(throttling, NO_CODE, account=account)
        seen.append((answer.result, answer.reason, str(answer.refusal), answer.audit))
    wait = "there were too many wrong codes; try again at "
    assert [result for result, *_ in seen] == [{"valid": False}] * 4 + [None] * 2
    assert [refusal[: len(wait)] for _, _, refusal, _ in seen[4:]] == [wait] * 2


def test_a_wrong_one_costs_three_units_whatever_the_account_has(throttling: Agent) -> None:
    for account in ("default", "codes", "two"):
        change = answered(throttling, NO_CODE, account=account).change
        assert change.tally.level.units == 3  # type: ignore[union-attr]


def test_a_used_one_costs_nothing_and_a_right_one_clears_the_failures(throttling: Agent) -> None:
    codes = call(throttling, "recovery_create", ROOT, NOW, account="codes")["codes"]
    for _ in range(4):
        answered(throttling, NO_CODE, account="codes")
    assert answered(throttling, codes[0], account="codes").refusal is not None
    throttling = make_agent(throttling._keyring, RULES, throttle=Throttle(b"secret", (), NOW))
    for _ in range(3):
        answered(throttling, NO_CODE, account="codes")
    assert answered(throttling, codes[0], account="codes").result == {"valid": True}
    for _ in range(20):
        assert answered(throttling, codes[0], account="codes").reason == "replayed"
    for _ in range(4):
        assert answered(throttling, NO_CODE, account="codes").reason == "wrong"


class CountingKey(MasterKey):
    """A master key that counts what it opens and seals."""

    def __init__(self) -> None:
        super().__init__()
        self.opened_sizes: list[int] = []

    def opened(self, sealed: bytes, associated: bytes) -> Any:
        self.opened_sizes.append(len(sealed) + len(associated))
        return super().opened(sealed, associated)


def test_without_a_set_or_an_account_the_same_work_is_done() -> None:
    master = CountingKey()
    keyring = make_keyring({"default": SEED, "codes": SEED}, master=master)
    agent = make_agent(keyring, RULES)
    call(agent, "recovery_create", ROOT, NOW, account="codes")
    answered(agent, NO_CODE)
    work = []
    for account in ("default", "codes", "nobody"):
        master.opened_sizes.clear()
        answered(agent, NO_CODE, account=account)
        work.append(tuple(master.opened_sizes))
    assert len(set(work)) == 1
    assert len(work[0]) == 1

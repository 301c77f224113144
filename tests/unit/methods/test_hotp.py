"""HOTP: tokens with a button, whose counters make the codes (RFC 4226)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import OTHER_SEED, ROOT, SEED, STEP, Syncs, at_step, oathtool_hotp, sealed
from support.authenticators import EIGHT, HOTP, is_good, load, token_code
from support.host import Host
from support.stores import keep

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadRequest
from pki2fad.rules import otp
from pki2fad.rules.changes import REJECTED, REPLAYED, WRONG, Spend
from pki2fad.rules.otp import Parameters
from pki2fad.wire.messages import Request

# RFC 4226 appendix D, for the counters 0 to 9
VECTORS = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    """A host with an account that has a token, and nothing else."""
    with Host(tmp_path / "state.db", master, at_step(STEP).wall) as host:
        load(host, "main", SEED, HOTP)
        yield host


def counter(host: Host, account: str = "default") -> int:
    """The next one that is accepted, as `accounts` says."""
    (row,) = host.call("accounts", match=account)
    return int(row["authenticators"][-1]["counter"])


# Which codes are accepted


def test_the_codes_of_rfc_4226_are_accepted_in_order(host: Host) -> None:
    for code in VECTORS:
        assert is_good(host, code)
        assert not is_good(host, code)


@pytest.mark.parametrize("digits", [6, 7, 8])
@pytest.mark.parametrize("at", [0, 1, 2**31, 2**32, 2**53 - 1])
def test_oathtool_makes_the_same_codes(host: Host, digits: int, at: int) -> None:
    of = Parameters(kind="hotp", period=0, digits=digits)
    load(host, "main", OTHER_SEED, of, account="ann", counter=at)
    assert is_good(host, oathtool_hotp(OTHER_SEED, at + 1, digits), "ann")
    assert counter(host, "ann") == at + 2


@pytest.mark.parametrize("pressed", range(4))
def test_the_button_may_be_pressed_three_times_in_vain(host: Host, pressed: int) -> None:
    assert is_good(host, token_code(pressed))
    assert counter(host) == pressed + 1
    for earlier in range(pressed + 1):
        assert not is_good(host, token_code(earlier))
    assert is_good(host, token_code(pressed + 1))


def test_the_last_code_again_is_told_from_a_wrong_one(host: Host) -> None:
    assert is_good(host, token_code(0))
    for code, reason in ((token_code(0), REPLAYED), (token_code(40), WRONG)):
        request = Request(1, "verify", {"account": "default", "code": code})
        answer = host.agent.handle(request, ROOT, host.reading)
        assert (answer.result, answer.reason) == (REJECTED, reason)


def test_a_counter_that_is_further_ahead_is_refused(host: Host) -> None:
    assert not is_good(host, token_code(4))
    assert not is_good(host, token_code(40))
    assert counter(host) == 0


def test_neither_clock_nor_crash_holds_a_token_back(host: Host) -> None:
    assert is_good(host, token_code(0))
    host.reboot()
    assert is_good(host, token_code(1))
    host.set(host.wall - 10**8)
    assert is_good(host, token_code(2))
    assert not is_good(host, token_code(1))


# The counter on disk


@pytest.mark.parametrize("end", ["restart", "kill", "reboot"])
def test_no_counter_is_good_again_after_the_daemon_ended(host: Host, end: str) -> None:
    load(host, "token", OTHER_SEED, HOTP)
    for used in (0, 3):
        assert is_good(host, token_code(used))
        assert is_good(host, token_code(used, OTHER_SEED))
        getattr(host, end)()
        for earlier in range(used + 1):
            assert not is_good(host, token_code(earlier))
            assert not is_good(host, token_code(earlier, OTHER_SEED))
        assert counter(host) == used + 1


def test_a_counter_is_synced_and_a_step_is_not(host: Host) -> None:
    load(host, "main", OTHER_SEED, EIGHT, account="ann")
    host.verify(host.step(), "ann", OTHER_SEED, EIGHT)  # the lease is raised
    syncs = Syncs(host.store)
    assert is_good(host, token_code(0))
    assert syncs.count() == 1
    assert host.verify(host.step() + 1, "ann", OTHER_SEED, EIGHT)
    assert syncs.count() == 0


def test_the_counters_of_one_turn_share_one_sync(host: Host) -> None:
    names = [f"account-{number}" for number in range(20)]
    for name in names:
        load(host, "main", OTHER_SEED, HOTP, account=name)
    spends = [Spend(name, 0, 0, host.wall) for name in names]
    syncs = Syncs(host.store)
    assert keep(host.store, spends) == [True] * 20
    assert syncs.count() == 1


# Load


def test_a_counter_says_where_the_token_is(host: Host) -> None:
    load(host, "main", OTHER_SEED, HOTP, account="ann", counter=1000)
    assert counter(host, "ann") == 1000
    assert not is_good(host, token_code(999, OTHER_SEED), "ann")
    assert is_good(host, token_code(1000, OTHER_SEED), "ann")


def test_a_counter_makes_no_used_code_good_again(host: Host) -> None:
    assert is_good(host, token_code(3))
    assert not load(host, "main", SEED, HOTP, counter=0)["changed"]
    assert not load(host, "main", SEED, HOTP, counter=0, replace=True)["changed"]
    assert counter(host) == 4
    host.call("remove")
    load(host, "main", SEED, HOTP, counter=0)
    assert counter(host) == 4
    assert not is_good(host, token_code(3))


def test_the_same_token_with_a_higher_counter_moves_it_forward(host: Host) -> None:
    assert load(host, "main", SEED, HOTP, counter=50)["changed"]
    host.kill()
    assert counter(host) == 50
    assert not is_good(host, token_code(49))
    assert is_good(host, token_code(50))


def test_a_removed_token_is_remembered_for_ever(host: Host) -> None:
    assert is_good(host, token_code(2))
    load(host, "main", OTHER_SEED, account="ann")
    host.call("remove")
    host.wait(400 * 86_400)
    for name in ("one", "two", "three"):  # each makes the state look for what it may forget
        load(host, "main", name.encode() * 8, account=name)
        host.call("remove", account=name)
    host.restart()
    load(host, "token", SEED, HOTP, account="ann")
    assert counter(host, "ann") == 3
    assert not is_good(host, token_code(2), "ann")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"kind": "hotp", "period": 30}, "hotp has no period"),
        ({"kind": "motp"}, "one of totp, hotp"),
        ({"kind": ""}, "one of totp, hotp"),
        ({"counter": 1}, "only an authenticator of the kind hotp has a counter"),
        ({"kind": "totp", "counter": 0}, "only an authenticator of the kind hotp has a counter"),
        ({"kind": "hotp", "counter": -1}, "counter must be 0 to"),
        ({"kind": "hotp", "counter": otp.LAST_COUNTER + 1}, "counter must be 0 to"),
        ({"kind": "hotp", "digits": 9}, "6, 7 or 8"),
    ],
)
def test_what_contradicts_the_kind_is_a_bad_request(host: Host, args: dict[str, object], told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        host.call("load", account="ann", sealed=sealed(OTHER_SEED), **args)
    assert [row["account"] for row in host.call("accounts")] == ["default"]


def test_a_token_may_follow_a_phone_and_a_phone_a_token(host: Host) -> None:
    load(host, "main", OTHER_SEED, EIGHT, successor=True)
    assert is_good(host, token_code(0))
    assert host.verify(host.step(), seed=OTHER_SEED, of=EIGHT)
    assert not is_good(host, token_code(1))
    load(host, "main", SEED, HOTP, successor=True, counter=10)
    assert host.verify(host.step() + 1, seed=OTHER_SEED, of=EIGHT)
    assert not is_good(host, token_code(9))
    assert is_good(host, token_code(10))
    host.restart()
    assert counter(host) == 11


def test_generate_is_refused(host: Host) -> None:
    for args in ({}, {"label": "main"}):
        with pytest.raises(BadRequest, match="made for TOTP only"):
            host.call("generate", **args)
    assert counter(host) == 0


# Resync


def resync(host: Host, first: int, second: int, **args: str) -> object:
    return host.call("resync", first=token_code(first), second=token_code(second), **args)


@pytest.mark.parametrize("first", [0, 1, 4, 50, 98])
def test_two_codes_in_a_row_move_the_counter(host: Host, first: int) -> None:
    assert resync(host, first, first + 1) == {"account": "default", "counter": first + 2}
    host.kill()
    assert counter(host) == first + 2
    assert not is_good(host, token_code(first + 1))
    assert is_good(host, token_code(first + 2))


@pytest.mark.parametrize(("first", "second"), [(99, 100), (500, 501), (5, 7), (6, 5), (5, 5)])
def test_other_codes_leave_the_counter(host: Host, first: int, second: int) -> None:
    with pytest.raises(BadRequest, match="within the next 100 counters"):
        resync(host, first, second)
    assert counter(host) == 0


def test_used_codes_move_no_counter_back(host: Host) -> None:
    assert is_good(host, token_code(3))
    with pytest.raises(BadRequest):
        resync(host, 2, 3)
    with pytest.raises(BadRequest):
        resync(host, 3, 4)
    assert counter(host) == 4


def test_resync_follows_the_token_of_that_label(host: Host) -> None:
    load(host, "main", OTHER_SEED, EIGHT, account="ann")
    load(host, "token", SEED, HOTP, account="ann")
    codes = {"first": token_code(20), "second": token_code(21)}
    with pytest.raises(BadRequest, match="within 10 steps of now"):
        host.call("resync", account="ann", **codes)
    assert host.call("resync", account="ann", label="token", **codes)["counter"] == 22
    assert counter(host, "ann") == 22

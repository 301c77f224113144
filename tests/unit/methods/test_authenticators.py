"""Several authenticators for an account: loading, removing, generating, and what is spent for which."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import OTHER_SEED, ROOT, SEED, STEP, at_step, reference_code, sealed
from support.authenticators import EIGHT, HOTP, is_good, labels, load, seed_of, token_code
from support.host import Host

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import AccountExists, BadRequest, NoSuchAccount, Refusal
from pki2fad.rules.otp import Parameters
from pki2fad.wire.messages import Request

PHONE, TABLET = SEED, OTHER_SEED


@pytest.fixture
def host(tmp_path: Path, master: MasterKey) -> Iterator[Host]:
    """A host with an account that has a phone."""
    with Host(tmp_path / "state.db", master, at_step(STEP).wall) as host:
        load(host, "main", PHONE, EIGHT)
        yield host


def code(host: Host, seed: bytes, of: Parameters = EIGHT, ahead: int = 0) -> str:
    return reference_code(seed, host.step(of.period) + ahead, of)


# Load


def test_a_new_label_adds_an_authenticator_without_replace(host: Host) -> None:
    assert load(host, "tablet", TABLET, EIGHT) == {"account": "default", "changed": True, "authenticators": 2}
    assert labels(host) == ["main", "tablet"]
    assert is_good(host, code(host, PHONE))
    assert is_good(host, code(host, TABLET))


def test_without_a_label_load_is_about_main(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    with pytest.raises(AccountExists, match=r"^account 'default' has another seed"):
        host.call("load", sealed=sealed(seed_of(3)))
    assert host.call("load", sealed=sealed(seed_of(3)), replace=True)["authenticators"] == 2
    assert labels(host) == ["main", "tablet"]
    assert not is_good(host, code(host, PHONE))
    assert is_good(host, code(host, TABLET))


def test_the_same_again_changes_nothing_and_says_how_many_there_are(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    same = {"account": "default", "changed": False, "authenticators": 2}
    assert load(host, "tablet", TABLET, EIGHT) == same
    assert load(host, "main", PHONE, EIGHT, replace=True) == same


def test_another_seed_under_a_label_needs_replace(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    with pytest.raises(AccountExists, match="authenticator 'tablet' of account 'default'"):
        load(host, "tablet", seed_of(3), EIGHT)
    assert load(host, "tablet", seed_of(3), EIGHT, replace=True)["changed"]
    assert not is_good(host, code(host, TABLET))
    assert is_good(host, code(host, seed_of(3)))


@pytest.mark.parametrize("seed", [PHONE, PHONE + bytes(3)], ids=["the same", "the same HMACs"])
@pytest.mark.parametrize("replace", [False, True])
def test_one_seed_cannot_be_two_authenticators(host: Host, seed: bytes, *, replace: bool) -> None:
    with pytest.raises(BadRequest, match="has this seed already, as 'main'"):
        load(host, "tablet", seed, EIGHT, replace=replace)
    load(host, "tablet", TABLET, EIGHT)
    with pytest.raises(BadRequest, match="has this seed already, as 'main'"):
        load(host, "tablet", seed, EIGHT, replace=True)


def test_a_seed_that_waits_cannot_be_another_authenticator(host: Host) -> None:
    load(host, "main", TABLET, EIGHT, successor=True)
    with pytest.raises(BadRequest, match="has this seed already, as 'main'"):
        load(host, "tablet", TABLET, EIGHT)
    load(host, "tablet", seed_of(3), EIGHT)
    with pytest.raises(BadRequest, match="has this seed already, as 'main'"):
        load(host, "tablet", TABLET, EIGHT, successor=True)


def test_an_account_has_at_most_four(host: Host) -> None:
    for number in range(1, 4):
        load(host, f"more-{number}", seed_of(number), EIGHT)
    with pytest.raises(BadRequest, match="has 4 authenticators; remove one first"):
        load(host, "fifth", seed_of(5), EIGHT)
    assert load(host, "more-1", seed_of(5), EIGHT, replace=True)["authenticators"] == 4
    host.call("remove", label="more-2")
    assert load(host, "fifth", seed_of(2), EIGHT)["authenticators"] == 4


@pytest.mark.parametrize("label", ["", "-x", ".x", "a b", "ä", "x" * 33, "a@b", "a/b"])
def test_a_label_of_another_form_is_a_bad_request(host: Host, label: str) -> None:
    for method in ("load", "generate", "remove"):
        with pytest.raises(BadRequest, match="a label has 1 to 32"):
            host.call(method, label=label, **({"sealed": sealed(TABLET)} if method == "load" else {}))


@pytest.mark.parametrize("method", ["remove", "generate"])
def test_a_label_that_is_nil_does_not_mean_all(host: Host, method: str) -> None:
    with pytest.raises(BadRequest, match="'label' is not of type str"):
        host.call(method, label=None)
    assert labels(host) == ["main"]


def test_the_first_authenticator_may_have_another_label(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT, account="ann")
    (row,) = host.call("accounts", match="ann")
    assert (row["digits"], [one["label"] for one in row["authenticators"]]) == (8, ["tablet"])
    with pytest.raises(NoSuchAccount, match="no authenticator 'main'"):
        load(host, "main", seed_of(3), EIGHT, account="ann", successor=True)
    assert load(host, "main", seed_of(3), account="ann")["authenticators"] == 2
    (row,) = host.call("accounts", match="ann")
    assert row["digits"] == 6  # of main, which is not the first


def test_a_successor_follows_the_authenticator_of_its_label(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    load(host, "tablet", seed_of(3), EIGHT, successor=True)
    assert is_good(host, code(host, TABLET))
    assert is_good(host, code(host, PHONE))
    assert is_good(host, code(host, seed_of(3)))
    assert labels(host) == ["main", "tablet"]
    assert not is_good(host, code(host, TABLET, ahead=1))
    assert is_good(host, code(host, PHONE, ahead=1))


# Remove


def test_remove_with_a_label_leaves_the_others(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    result = host.call("remove", label="main")
    assert result == {"account": "default", "label": "main", "authenticators": 1}
    assert not is_good(host, code(host, PHONE))
    assert is_good(host, code(host, TABLET))
    assert labels(host) == ["tablet"]
    host.restart()
    assert labels(host) == ["tablet"]


def test_the_last_authenticator_is_not_removed_by_label(host: Host) -> None:
    with pytest.raises(BadRequest, match="'main' is the last authenticator"):
        host.call("remove", label="main")
    with pytest.raises(NoSuchAccount, match="no authenticator 'tablet'"):
        host.call("remove", label="tablet")
    assert is_good(host, code(host, PHONE))


def test_remove_without_a_label_takes_the_whole_account(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    assert host.call("remove") == {"account": "default"}
    assert host.call("accounts") == []
    host.restart()
    assert host.call("accounts") == []


# Generate


def test_generate_is_of_the_first_totp_authenticator_or_the_one_named(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    assert host.call("generate")["code"] == code(host, PHONE)
    assert host.call("generate", label="tablet")["code"] == code(host, TABLET)
    with pytest.raises(NoSuchAccount, match="no authenticator 'watch'"):
        host.call("generate", label="watch")


def test_generate_passes_over_a_token(host: Host) -> None:
    load(host, "main", seed_of(3), HOTP, account="ann")
    with pytest.raises(BadRequest, match="has no TOTP authenticator, and codes are made for TOTP only"):
        host.call("generate", account="ann")
    load(host, "tablet", TABLET, EIGHT, account="ann")
    assert host.call("generate", account="ann")["code"] == code(host, TABLET)
    with pytest.raises(BadRequest, match="authenticator 'main' of account 'ann' is not TOTP"):
        host.call("generate", account="ann", label="main")


def test_generate_gives_no_code_of_a_successor_before_its_time(host: Host) -> None:
    load(host, "main", seed_of(3), HOTP, account="ann")
    load(host, "main", TABLET, EIGHT, account="ann", successor=True)
    with pytest.raises(BadRequest, match="made for TOTP only"):
        host.call("generate", account="ann")


# Verify


def test_the_log_says_which_authenticator_matched(host: Host) -> None:
    def matched(given: str) -> str | None:
        answer = host.agent.handle(Request(1, "verify", {"code": given}), ROOT, host.reading)
        host.keep(answer.change)
        return answer.matched

    assert matched(code(host, PHONE)) is None  # there is only one
    load(host, "tablet", TABLET, EIGHT)
    assert matched(code(host, TABLET)) == "tablet"
    assert matched(code(host, PHONE, ahead=1)) == "main"
    assert matched("00000000") is None


def test_a_code_of_two_authenticators_is_spent_for_both(host: Host) -> None:
    counter = next(at for at in range(10**6) if token_code(at, TABLET) == reference_code(SEED, STEP))
    load(host, "main", SEED, account="ann")
    load(host, "token", TABLET, HOTP, account="ann", counter=counter)
    assert is_good(host, token_code(counter, TABLET), "ann")
    for _ in range(2):
        assert not is_good(host, token_code(counter, TABLET), "ann")
        (row,) = host.call("accounts", match="ann")
        assert row["last_used"] == STEP * 30
        assert row["authenticators"][1]["counter"] == counter + 1
        host.kill()


def test_a_code_that_one_of_two_has_spent_is_not_good(host: Host) -> None:
    counter = next(at for at in range(10**6) if token_code(at, TABLET) == reference_code(SEED, STEP))
    load(host, "main", SEED, account="ann")
    assert is_good(host, reference_code(SEED, STEP), "ann")
    load(host, "token", TABLET, HOTP, account="ann", counter=counter)
    assert not is_good(host, token_code(counter, TABLET), "ann")


def test_one_that_is_unavailable_keeps_no_other_out(host: Host) -> None:
    host.reboot()  # codes that were used before may not be on record
    load(host, "token", TABLET, HOTP)
    with pytest.raises(Exception, match="not on record"):
        host.call("verify", code=code(host, PHONE))
    assert is_good(host, token_code(0, TABLET))
    with pytest.raises(Exception, match="not on record"):
        host.call("verify", code="000000")


def test_when_each_was_used_last_is_listed(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    load(host, "token", seed_of(3), HOTP)
    assert is_good(host, code(host, TABLET))
    assert is_good(host, token_code(2, seed_of(3)))
    for _ in range(2):
        (row,) = host.call("accounts")
        used = {one["label"]: one["last_used"] for one in row["authenticators"]}
        assert used == {"main": None, "tablet": STEP * 30, "token": int(host.wall)}
        host.kill()


# A used code stays used


@pytest.mark.parametrize("kind", ["totp", "hotp"])
@pytest.mark.parametrize("end", [None, "kill"])
def test_a_seed_under_another_label_has_its_used_codes(host: Host, kind: str, end: str | None) -> None:
    of = HOTP if kind == "hotp" else EIGHT
    used = token_code(2, TABLET) if kind == "hotp" else code(host, TABLET, ahead=1)
    load(host, "tablet", TABLET, of)
    assert is_good(host, used)
    host.call("remove", label="tablet")
    if end is not None:
        getattr(host, end)()
    load(host, "renamed", TABLET, of)
    assert not is_good(host, used)


@pytest.mark.parametrize("kind", ["totp", "hotp"])
@pytest.mark.parametrize("end", [None, "kill"])
def test_a_seed_that_moves_to_another_account_has_its_used_codes(
    host: Host, kind: str, end: str | None
) -> None:
    of = HOTP if kind == "hotp" else EIGHT
    used = token_code(2, TABLET) if kind == "hotp" else code(host, TABLET, ahead=1)
    load(host, "main", seed_of(3), EIGHT, account="ann")
    load(host, "tablet", TABLET, of)
    assert is_good(host, used)
    host.call("remove")
    if end is not None:
        getattr(host, end)()
    load(host, "tablet", TABLET, of, account="ann")
    assert not is_good(host, used, "ann")


def test_wrong_codes_are_counted_also_while_one_authenticator_is_unavailable(
    tmp_path: Path, master: MasterKey
) -> None:
    with Host(tmp_path / "counted.db", master, at_step(STEP).wall) as host:
        load(host, "main", PHONE, EIGHT)
        load(host, "token", TABLET, HOTP)
        host.reboot()
        host.agent._throttle.enabled = True
        refusals = []
        for number in range(5):
            try:
                host.call("verify", code=f"{number:06}")
            except Refusal as refusal:
                refusals.append(refusal.code)
        assert refusals == ["unavailable"] * 4 + ["throttled"]


def test_who_gave_a_right_code_of_any_authenticator_is_known_after_a_sigkill(host: Host) -> None:
    load(host, "tablet", TABLET, EIGHT)
    host.agent._throttle.enabled = True
    assert host.call("verify", code="00000000") == {"valid": False}
    assert is_good(host, code(host, TABLET))
    tally = host.keyring.accounts["default"].tally
    assert tally.marks
    host.kill()
    assert host.keyring.accounts["default"].tally == tally

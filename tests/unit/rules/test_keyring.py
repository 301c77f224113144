"""The keyring: what a sealed seed is bound to, what is spent, what is shown."""

from collections.abc import Callable

import pytest
from support.agents import OTHER_SEED, SEED, STEP, make_keyring

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadSeal, Unavailable
from pki2fad.rules import otp
from pki2fad.rules.account import Account
from pki2fad.rules.authenticator import Successor, fixed_facts
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.rules.pieces import finish
from pki2fad.rules.seals import check


@pytest.fixture
def keyring() -> Keyring:
    return make_keyring({"default": SEED})


# What is shown


def test_nothing_shows_a_seed_a_code_or_a_sealed_seed(keyring: Keyring) -> None:
    account = keyring.accounts["default"]
    codes = keyring.codes.of(account, otp.window(STEP))
    shown = f"{account!r} {account} {keyring!r} {keyring.accounts!r}"
    assert "'default'" in shown
    for secret in (*codes, SEED.decode(), SEED.hex(), repr(account.sealed)[2:-1], account.sealed.hex()):
        assert secret not in shown


# Seals


def changed(account: Account, **changes: object) -> Account:
    """The account with some of what makes it exchanged, as an edited row of the state would have it."""
    made = {slot: getattr(account, slot) for slot in ("name", "parameters", "sealed", "fixed", "last_step")}
    return Account(**{**made, **changes})


def test_a_seed_opens_in_its_own_account(keyring: Keyring) -> None:
    check([keyring.accounts["default"]], keyring.master)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"fixed": fixed_facts(bytes(16), b"own".ljust(16), bytes(16), 0, b"")},
        {"fixed": fixed_facts(bytes(16), bytes(16), bytes(16), 0, b"default")},
        {"parameters": Parameters(period=0, kind="hotp")},
        {"parameters": Parameters("SHA256")},
        {"parameters": Parameters(digits=8)},
        {"parameters": Parameters(period=60)},
        {"parameters": Parameters(period=3)},
        {"sealed": b""},
        {"sealed": bytes(12)},
        {"sealed": bytes(28)},
        {"sealed": bytes(48)},
    ],
    ids=str,
)
def test_a_sealed_seed_opens_under_no_other_name_ids_kind_or_parameters(
    keyring: Keyring, changes: dict[str, object]
) -> None:
    account = changed(keyring.accounts["default"], **changes)
    with pytest.raises(BadSeal):
        check([account], keyring.master)
    with pytest.raises(BadSeal):
        keyring.codes.of(account, otp.window(STEP))


def test_a_seed_that_0_1_0_sealed_opens_for_no_other_name(keyring: Keyring) -> None:
    old = Account("ann", Parameters(), b"", fixed_facts(b"id".ljust(16), bytes(16), bytes(16), 0, b"ann"))
    sealed = keyring.master.seal(bytearray(SEED), b"pki2fad account 1\0ann\0SHA1\x006\x0030")
    check([changed(old, sealed=sealed)], keyring.master)
    with pytest.raises(BadSeal):
        check([changed(old, name="bob", sealed=sealed)], keyring.master)


def test_two_accounts_cannot_swap_their_sealed_seeds() -> None:
    keyring = make_keyring({"a": SEED, "b": OTHER_SEED})
    a, b = keyring.accounts["a"], keyring.accounts["b"]
    for account in (changed(a, sealed=b.sealed), changed(b, sealed=a.sealed)):
        with pytest.raises(BadSeal):
            check([account], keyring.master)


def test_no_byte_of_a_sealed_seed_can_be_changed_or_left_out(keyring: Keyring) -> None:
    account = keyring.accounts["default"]
    edits: list[Callable[[int], bytes]] = [
        lambda i: account.sealed[:i] + bytes([account.sealed[i] ^ 1]) + account.sealed[i + 1 :],
        lambda i: account.sealed[:i],
        lambda i: account.sealed[:i] + b"\0" + account.sealed[i:],
    ]
    for edit in edits:
        for position in range(len(account.sealed)):
            with pytest.raises(BadSeal):
                check([changed(account, sealed=edit(position))], keyring.master)


@pytest.mark.parametrize("bad", range(4))
def test_one_bad_seal_among_others_of_any_length_is_found_and_named(keyring: Keyring, bad: int) -> None:
    seeds = [SEED, bytes(16), bytes(64), OTHER_SEED]
    accounts = [
        keyring.seal(f"a{number}", bytearray(seed), Parameters()) for number, seed in enumerate(seeds)
    ]
    check(accounts, keyring.master)
    sealed = accounts[bad].sealed
    accounts[bad] = changed(accounts[bad], sealed=sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(BadSeal, match=f"account 'a{bad}'"):
        check(accounts, keyring.master)


@pytest.mark.parametrize("where", ["an account", "a successor"])
def test_no_master_key_unlocks_seeds_that_do_not_open(where: str) -> None:
    keyring, master = make_keyring({"a": SEED, "b": OTHER_SEED}), MasterKey()
    a, b = keyring.accounts["a"], keyring.accounts["b"]
    for account in (a, b):
        account.sealed = keyring.resealed(account, master, account.associated)
    successor = changed(b, sealed=a.sealed)
    if where == "an account":
        keyring.put(successor)
    else:
        keyring.put(b.replaced(b, b.changed(successor=Successor(successor, None, cutover=False))))
    with pytest.raises(BadSeal, match="account 'b'"):
        finish(keyring.checked(master))


def test_another_master_key_opens_nothing(keyring: Keyring) -> None:
    with pytest.raises(BadSeal):
        check([keyring.accounts["default"]], MasterKey())


def test_a_seed_is_sealed_differently_each_time(keyring: Keyring) -> None:
    assert len({keyring.seal("default", bytearray(SEED), Parameters()).sealed for _ in range(10)}) == 10


# Watermarks


def test_a_digest_is_that_of_what_makes_the_same_hmacs_under_one_master_key(keyring: Keyring) -> None:
    def digest(of: Keyring, seed: bytes = SEED, *parameters: object, name: str = "default") -> bytes:
        return of.seal(name, bytearray(seed), Parameters(*parameters)).digest  # type: ignore[arg-type]

    assert digest(keyring) == digest(keyring, name="other")
    others = {
        digest(keyring),
        digest(keyring, OTHER_SEED),
        digest(keyring, SEED + b"0"),
        digest(keyring, SEED, "SHA256"),
        digest(keyring, SEED, "SHA1", 6, 60),
        digest(make_keyring()),
    }
    assert len(others) == 6
    assert digest(keyring) == digest(keyring, SEED, "SHA1", 7) == digest(keyring, SEED + bytes(2))
    assert not any(SEED in each for each in others)


def test_the_watermark_of_a_seed_that_is_gone_only_grows(keyring: Keyring) -> None:
    account = keyring.accounts.pop("default")
    for last_step, remembered in ((-1, -1), (STEP, STEP), (STEP - 5, STEP), (STEP + 1, STEP + 1)):
        account.last_step = last_step
        keyring.gone.remember(account.seeds, STEP * 30.0)
        assert keyring.seal("default", bytearray(SEED), Parameters()).last_step == remembered
    assert keyring.seal("default", bytearray(OTHER_SEED), Parameters()).last_step == -1


def test_a_live_account_passes_its_own_watermark_on_and_not_an_older_one(keyring: Keyring) -> None:
    account = keyring.accounts["default"]
    account.last_step = STEP
    keyring.gone.remember(account.seeds, STEP * 30.0)
    account.last_step = STEP + 3
    assert keyring.seal("default", bytearray(SEED), Parameters()).last_step == STEP + 3


@pytest.mark.parametrize(
    ("floors", "watermark"),
    [
        ({}, 1000),
        ({60: 10**9}, 1000),
        ({30: 0}, 1000),
        ({30: 1001 * 30}, 1000),
        ({30: 1002 * 30}, 1001),
        ({30: 2000 * 30}, 1999),
    ],
)
def test_a_floor_lifts_the_watermark_to_the_step_before_it(
    keyring: Keyring, floors: dict[int, int], watermark: int
) -> None:
    account = keyring.accounts["default"]
    account.last_step = 1000
    keyring.raise_floors(floors)
    assert keyring.watermark(account) == watermark
    assert account.last_step == 1000


def test_what_all_accounts_have_in_common_is_known_without_a_look_at_them(keyring: Keyring) -> None:
    ahead = keyring.seal("ahead", bytearray(OTHER_SEED), Parameters(period=60))
    ahead.last_step = 10**9
    keyring.put(ahead)
    assert {*keyring.kinds()} == {(30, 0), (60, 0)}
    assert keyring.latest(beyond=0) == 10**9 * 60
    assert keyring.latest(beyond=10**9 * 60) == 0
    keyring.drop("ahead")
    assert {*keyring.kinds()} == {(30, 0)}
    assert keyring.latest(beyond=10**6) == 0
    keyring.spend(keyring.accounts["default"], STEP, b"", None)
    assert keyring.latest(beyond=0) == STEP * 30


# Ids


def test_an_account_that_is_made_again_has_the_id_of_before(keyring: Keyring) -> None:
    before = keyring.accounts["default"].account_id
    keyring.drop("default")
    keyring.put(keyring.seal("default", bytearray(OTHER_SEED), Parameters()))
    assert keyring.accounts["default"].account_id == before
    assert keyring.seal("other", bytearray(SEED), Parameters()).account_id != before


def test_what_was_sealed_for_another_id_of_its_name_is_refused() -> None:
    keyring = make_keyring()
    late = keyring.seal("default", bytearray(SEED), Parameters())
    keyring.take_up(late)
    keyring.put(keyring.seal("default", bytearray(OTHER_SEED), Parameters()))
    with pytest.raises(Unavailable):
        keyring.take_up(late)
    keyring.drop("default")
    with pytest.raises(Unavailable):
        keyring.take_up(late)

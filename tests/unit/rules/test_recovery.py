"""Recovery codes: their form, what is kept of them, and what a code is compared with."""

import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import SEED, make_keyring

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadSeal
from pki2fad.rules import seals
from pki2fad.rules.authenticator import Authenticator
from pki2fad.rules.otp import Parameters
from pki2fad.rules.pieces import finish
from pki2fad.rules.recovery import CODES, ENTROPY, Recovery, new_codes, new_set
from pki2fad.wire import forms

RANDOM = bytes(range(ENTROPY))
KNOWN = ["K7QM4-2XW9T", "01234-56789", *new_codes(RANDOM)[2:]]


class CountingKey(MasterKey):
    """A master key that keeps the buffers in which it opened something."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[bytearray] = []

    @contextmanager
    def opened(self, sealed: bytes, associated: bytes) -> Iterator[bytearray]:
        with super().opened(sealed, associated) as key:
            assert key == bytes(range(32))
            self.buffers.append(key)
            yield key


@pytest.fixture
def master() -> Iterator[CountingKey]:
    with CountingKey() as key:
        yield key


@pytest.fixture
def recovery(master: CountingKey) -> Recovery:
    return new_set("ann", bytes(16), KNOWN, key=bytearray(range(32)), master=master, made=1)


# The codes


def test_a_set_has_ten_codes_of_fifty_bits_in_crockfords_alphabet() -> None:
    codes = new_codes(RANDOM)
    assert len(set(codes)) == CODES == 10
    for code in codes:
        assert re.fullmatch("[0-9A-HJKMNP-TV-Z]{5}-[0-9A-HJKMNP-TV-Z]{5}", code), code


@given(st.binary(min_size=ENTROPY, max_size=ENTROPY), st.integers(0, ENTROPY - 1), st.integers(1, 31))
def test_five_bits_of_each_random_byte_count(random: bytes, place: int, other: int) -> None:
    changed = bytearray(random)
    changed[place] ^= other
    assert new_codes(bytes(changed)) != new_codes(random)


@pytest.mark.parametrize(
    "typed",
    ["K7QM4-2XW9T", "K7QM42XW9T", "k7qm4-2xw9t", "k7Qm42xW9t", "01234-56789", "O1234-56789", "oi2345678g"],
)
def test_any_case_is_a_recovery_code_with_the_hyphen_or_without(typed: str) -> None:
    assert forms.is_recovery_code(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "-",
        "K7QM4-2XW9",
        "K7QM42XW9",
        "K7QM42XW9TT",
        "K7QM4--2XW9T",
        "K7QM-42XW9T",
        "-K7QM42XW9T",
        "K7QM42XW9T-",
        "K7QM4 2XW9T",
        "K7QM4-2XW9T ",
        "K7QM4-2XW9T\n",
        "K7QM4-2XW9U",
        "K7QM4-2XW9u",
        "K7QM4\u20102XW9T",  # another hyphen
        "\uff2b7QM4-2XW9T",  # full-width
        "K7QM4-2XW9\u0131",  # becomes an I in upper case
        "K7QM4-2XW9\u017f",  # becomes an S
        "123456",
        "12345678",
        b"K7QM4-2XW9T",
        1234567890,
        None,
    ],
    ids=repr,
)
def test_nothing_else_is_a_recovery_code(typed: object) -> None:
    assert not forms.is_recovery_code(typed)


@given(st.text(max_size=12))
def test_no_text_is_both_a_code_and_a_recovery_code(text: str) -> None:
    assert not (forms.is_code(text) and forms.is_recovery_code(text))


# What is compared


@pytest.mark.parametrize("place", range(CODES))
def test_each_code_has_a_bit_of_its_own(recovery: Recovery, master: CountingKey, place: int) -> None:
    assert recovery.match(KNOWN[place], master) == 1 << place


@pytest.mark.parametrize(
    ("typed", "bit"),
    [
        ("k7qm4-2xw9t", 1),
        ("K7qm42XW9t", 1),
        ("0123456789", 2),
        ("oi234-56789", 2),
        ("OL234-56789", 2),
        ("ol23456789", 2),
        ("K7QM4-2XW9V", 0),
        ("00000-00000", 0),
    ],
)
def test_a_code_is_the_same_however_it_is_typed(
    recovery: Recovery, master: CountingKey, typed: str, bit: int
) -> None:
    assert recovery.match(typed, master) == bit


def test_a_used_code_still_matches_and_is_left_no_more(recovery: Recovery, master: CountingKey) -> None:
    assert recovery.left == CODES
    recovery.spend(1)
    recovery.spend(1)
    assert recovery.left == CODES - 1
    assert recovery.match(KNOWN[0], master) == 1
    assert recovery.used == 1


def test_all_ten_hashes_are_compared_whichever_matches(
    recovery: Recovery, master: CountingKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for code in (KNOWN[0], KNOWN[9], "00000-00000"):
        compared.clear()
        recovery.match(code, master)
        assert b"".join(compared) == recovery.hashes


# What is kept


def test_hashes_are_hmac_sha_256_under_a_key_of_their_own(recovery: Recovery) -> None:
    plain = [code.replace("-", "").encode() for code in KNOWN]
    assert recovery.hashes == b"".join(hmac.digest(bytes(range(32)), code, "sha256") for code in plain)


def test_the_key_is_wiped_when_codes_were_hashed_or_compared(master: CountingKey) -> None:
    key = bytearray(range(32))
    recovery = new_set("ann", bytes(16), KNOWN, key=key, master=master, made=1)
    recovery.match(KNOWN[0], master)
    assert (key, master.buffers) == (bytes(32), [bytes(32)])


def test_nothing_shows_a_code_or_what_is_kept_of_it(recovery: Recovery) -> None:
    shown = f"{recovery!r} {recovery}"
    assert shown == "Recovery('ann', left=10) Recovery('ann', left=10)"


def test_the_key_opens_for_no_other_account_and_for_no_seed(recovery: Recovery, master: CountingKey) -> None:
    seals.check([recovery], master)
    other = Recovery("ann", b"another account.", recovery.sealed, recovery.hashes, used=0, made=1)
    seed = Authenticator("ann", Parameters(), recovery.sealed, bytes(16) * 3 + bytes(6))
    for one in (other, seed):
        with pytest.raises(BadSeal, match="account 'ann'"):
            seals.check([one], master)


# In an account


def test_the_codes_stay_with_every_copy_of_an_account(recovery: Recovery) -> None:
    keyring = make_keyring({"ann": SEED})
    account = keyring.accounts["ann"].with_recovery(recovery)
    assert account.authenticators[0].is_like(keyring.accounts["ann"])
    phone = keyring.seal("ann", bytearray(b"another seed of twenty"), Parameters(), label="phone")
    two = account.with_authenticator(phone)
    alone = two.without("phone")
    assert alone is not None
    copies = [
        two,
        alone,
        account.with_tally(account.tally),
        account.settled(2.0**40),
        account.replaced(account, phone),
    ]
    assert [copy.recovery for copy in copies] == [recovery] * len(copies)


def test_no_master_key_unlocks_codes_whose_key_does_not_open() -> None:
    keyring = make_keyring({"ann": SEED})
    ann = keyring.accounts["ann"]
    made = new_set("ann", ann.account_id, KNOWN, key=bytearray(32), master=keyring.master, made=1)
    keyring.put(ann.with_recovery(made))
    finish(keyring.checked(keyring.master))
    made.reseal(made.sealed[:-1] + bytes([made.sealed[-1] ^ 1]))
    with pytest.raises(BadSeal, match="recovery codes of account 'ann': what is sealed in the state"):
        finish(keyring.checked(keyring.master))


def test_another_master_key_seals_the_key_anew_and_nothing_is_good_again() -> None:
    keyring = make_keyring({"ann": SEED})
    ann = keyring.accounts["ann"]
    made = new_set("ann", ann.account_id, KNOWN, key=bytearray(range(32)), master=keyring.master, made=1)
    keyring.put(ann.with_recovery(made))
    before, new = made.sealed, MasterKey()
    resealed = finish(keyring.all_resealed(new))
    made.spend(1)  # meanwhile
    assert [one for one, _ in resealed] == [*keyring.accounts["ann"].seeds, made]
    keyring.rotate(new, resealed)
    assert made.sealed != before
    finish(keyring.checked(new))
    assert (made.match(KNOWN[1], keyring.master), made.used) == (2, 1)

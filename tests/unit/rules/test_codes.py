"""Codes that are kept: when they are made, renewed, made ahead and let go."""

import contextlib
from collections.abc import Iterator

import pytest
from support.agents import SEED, STEP, make_keyring, reference_code

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.rules import otp
from pki2fad.rules.keyring import Keyring


class CountingKey(MasterKey):
    """A master key that keeps a list of the buffers in which it opened seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[bytearray] = []

    @contextlib.contextmanager
    def opened(self, sealed: bytes, associated: bytes) -> Iterator[bytearray]:
        with super().opened(sealed, associated) as seed:
            assert seed == SEED
            self.buffers.append(seed)
            yield seed

    def times(self) -> int:
        """How often a seed was opened since this was asked last."""
        times = len(self.buffers)
        self.buffers.clear()
        return times


@pytest.fixture
def master() -> Iterator[CountingKey]:
    key = CountingKey()
    yield key
    key.close()


@pytest.fixture
def keyring(master: CountingKey) -> Keyring:
    return make_keyring({"default": SEED}, master=master)


def codes_around(step: int) -> tuple[str, ...]:
    return tuple(reference_code(SEED, each) for each in (step - 1, step, step + 1))


def test_the_codes_of_a_step_are_made_once(keyring: Keyring, master: CountingKey) -> None:
    account = keyring.accounts["default"]
    first = keyring.codes.of(account, otp.window(STEP))
    assert first == codes_around(STEP)
    assert master.times() == 1
    for _ in range(1000):
        assert keyring.codes.of(account, otp.window(STEP)) is first
    assert master.times() == 0


def test_a_step_later_one_new_code_is_made_and_the_others_are_kept(
    keyring: Keyring, master: CountingKey
) -> None:
    account = keyring.accounts["default"]
    before = keyring.codes.of(account, otp.window(STEP))
    master.times()
    for step in range(STEP + 1, STEP + 10):
        after = keyring.codes.of(account, otp.window(step))
        assert after == codes_around(step)
        assert after[0] is before[1]
        assert after[1] is before[2]
        assert master.times() == 1
        before = after


@pytest.mark.parametrize("step", [STEP - 1, STEP - 2, STEP + 2, STEP + 3, STEP - 1_000_000, 0, 2**40])
def test_after_any_other_move_of_the_clock_all_codes_are_made_again(
    keyring: Keyring, master: CountingKey, step: int
) -> None:
    account = keyring.accounts["default"]
    keyring.codes.of(account, otp.window(STEP))
    master.times()
    assert keyring.codes.of(account, otp.window(step)) == codes_around(step)
    assert master.times() == 1


def test_a_code_that_was_made_ahead_needs_no_seed_when_its_step_comes(
    keyring: Keyring, master: CountingKey
) -> None:
    account = keyring.accounts["default"]
    for step in range(STEP, STEP + 5):
        assert keyring.codes.of(account, otp.window(step)) == codes_around(step)
        assert not keyring.codes.look_ahead(1)
        assert not keyring.codes.look_ahead(1)  # it is made once
        assert master.times() == (2 if step == STEP else 1)
        assert keyring.codes.of(account, otp.window(step)) == codes_around(
            step
        )  # and is not in the window yet
    assert master.times() == 0


def test_codes_are_made_ahead_for_so_many_accounts_and_for_those_in_use_alone() -> None:
    keyring = make_keyring({f"a{number}": SEED for number in range(5)})
    for account in list(keyring.accounts.values())[:3]:
        keyring.codes.of(account, otp.window(STEP))
    keyring.drop("a0")
    left = [keyring.codes.look_ahead(1) for _ in range(4)]
    assert left == [True, True, False, False]
    assert [len(account.codes) for account in keyring.accounts.values()] == [4, 4, 0, 0]


@pytest.mark.parametrize("step", [STEP - 1, STEP + 2, STEP - 1_000_000])
def test_a_code_that_was_made_ahead_is_good_for_the_step_after_alone(keyring: Keyring, step: int) -> None:
    account = keyring.accounts["default"]
    keyring.codes.of(account, otp.window(STEP))
    keyring.codes.look_ahead(1)
    assert keyring.codes.of(account, otp.window(step)) == codes_around(step)


def test_no_code_is_made_ahead_where_accounts_are_veiled() -> None:
    keyring = make_keyring({"default": SEED})
    veils = [
        keyring.codes.veiled("default", keyring.accounts["default"]),
        keyring.codes.veiled("nobody", None),
    ]
    for veil in veils:
        keyring.codes.of(veil, otp.window(STEP))
    assert not keyring.codes.look_ahead(10)
    assert [len(veil.codes) for veil in veils] == [3, 3]


def test_a_keyring_that_is_locked_has_no_codes_and_makes_none() -> None:
    keyring = make_keyring({"default": SEED})
    account = keyring.accounts["default"]
    keyring.codes.of(account, otp.window(STEP))
    keyring.lock()
    assert not keyring.codes.look_ahead(10)
    assert account.codes == ()


@pytest.mark.parametrize("step", [-3, -2, -1, 0, 1])
def test_a_step_before_1970_has_an_empty_code(keyring: Keyring, step: int) -> None:
    assert keyring.codes.of(keyring.accounts["default"], otp.window(step)) == codes_around(step)


def test_codes_are_right_when_the_clock_passes_1970(keyring: Keyring) -> None:
    account = keyring.accounts["default"]
    for step in range(-4, 4):
        assert keyring.codes.of(account, otp.window(step)) == codes_around(step)


def test_the_code_of_one_step_is_not_kept(keyring: Keyring, master: CountingKey) -> None:
    account = keyring.accounts["default"]
    kept = keyring.codes.of(account, otp.window(STEP))
    master.times()
    for _ in range(2):
        assert keyring.codes.of_step(account, STEP + 7) == reference_code(SEED, STEP + 7)
    assert master.times() == 2
    assert keyring.codes.of(account, otp.window(STEP)) is kept


def test_a_seed_is_wiped_when_its_codes_are_made(keyring: Keyring, master: CountingKey) -> None:
    keyring.codes.of(keyring.accounts["default"], otp.window(STEP))
    assert master.buffers == [bytes(len(SEED))]

"""The master key: what it seals stays sealed to it, to its account and to every byte."""

import contextlib
import inspect
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki2fad.crypto import masterkey, sealing
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.memory import LockedPage
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadSeal, UnusableKey

SEED = bytes(range(32))
ASSOCIATED = b"account 1\0default\0SHA1"


def opened(master: MasterKey, sealed: bytes, associated: bytes = ASSOCIATED) -> bytes:
    with master.opened(sealed, associated) as seed:
        return bytes(seed)


@pytest.mark.parametrize("length", [0, 16, 32, 64])
def test_what_is_sealed_opens_again(master: MasterKey, length: int) -> None:
    assert opened(master, master.seal(bytearray(range(length)), ASSOCIATED)) == bytes(range(length))


def test_the_same_seed_is_never_sealed_to_the_same_bytes(master: MasterKey) -> None:
    sealed = {master.seal(bytearray(SEED), ASSOCIATED) for _ in range(100)}
    assert len(sealed) == 100
    assert len({one[:12] for one in sealed}) == 100  # a nonce used twice would break AES-GCM
    assert not any(SEED in one for one in sealed)


def test_every_changed_byte_is_noticed(master: MasterKey) -> None:
    sealed = master.seal(bytearray(SEED), ASSOCIATED)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(BadSeal):
            opened(master, bytes(changed))
    assert opened(master, sealed) == SEED


@pytest.mark.parametrize("kept", [*range(60)])
def test_a_sealed_seed_that_was_cut_off_is_noticed(master: MasterKey, kept: int) -> None:
    sealed = master.seal(bytearray(SEED), ASSOCIATED)
    assert len(sealed) == 60
    with pytest.raises(BadSeal):
        opened(master, sealed[:kept])


@pytest.mark.parametrize("extra", [b"\0", bytes(16), bytes(60)])
def test_a_sealed_seed_with_more_behind_it_is_noticed(master: MasterKey, extra: bytes) -> None:
    with pytest.raises(BadSeal):
        opened(master, master.seal(bytearray(SEED), ASSOCIATED) + extra)


@pytest.mark.parametrize("associated", [b"", ASSOCIATED[:-1], ASSOCIATED + b"\0", b"account 1\0deploy\0SHA1"])
def test_a_seed_opens_only_for_what_it_was_sealed_for(master: MasterKey, associated: bytes) -> None:
    with pytest.raises(BadSeal):
        opened(master, master.seal(bytearray(SEED), ASSOCIATED), associated)


def test_a_seed_of_another_master_key_does_not_open(master: MasterKey) -> None:
    other = MasterKey()
    sealed = other.seal(bytearray(SEED), ASSOCIATED)
    other.close()
    with pytest.raises(BadSeal):
        opened(master, sealed)


def test_an_opened_seed_is_wiped_afterwards(master: MasterKey) -> None:
    with master.opened(master.seal(bytearray(SEED), ASSOCIATED), ASSOCIATED) as seed:
        assert seed == SEED
    assert seed == bytes(32)


def test_what_was_deciphered_of_a_changed_seed_is_wiped(
    master: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = bytearray(master.seal(bytearray(SEED), ASSOCIATED))
    sealed[-1] ^= 1  # of the tag: all before it is deciphered as it was
    buffers, make = [], masterkey._buffer_for

    def watched(sealed: bytes) -> bytearray:
        buffers.append(make(sealed))
        return buffers[-1]

    monkeypatch.setattr(masterkey, "_buffer_for", watched)
    with pytest.raises(BadSeal):
        opened(master, bytes(sealed))
    assert buffers == [bytearray(32)]


def test_an_opened_seed_is_wiped_after_an_exception_too(master: MasterKey) -> None:
    sealed = master.seal(bytearray(SEED), ASSOCIATED)
    buffers = []

    def fail() -> None:
        with master.opened(sealed, ASSOCIATED) as seed:
            buffers.append(seed)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert buffers == [bytearray(32)]


def checked_in(check: Callable[[bytes, bytes], None]) -> dict[int, bytearray]:
    """The buffers of a check, by the length of what is sealed."""
    buffers: dict[int, bytearray] = inspect.getclosurevars(check).nonlocals["buffers"]
    return buffers


@pytest.mark.parametrize("end", ["all open", "one does not"])
def test_seeds_that_were_checked_are_wiped(master: MasterKey, end: str) -> None:
    short, long = (master.seal(bytearray(SEED[:length]), ASSOCIATED) for length in (16, 32))
    with contextlib.suppress(BadSeal), master.checking() as check:
        for sealed in (short, long, short):
            check(sealed, ASSOCIATED)
        buffers = checked_in(check)
        assert buffers == {len(short): SEED[:16], len(long): SEED}
        if end == "one does not":
            check(long, b"")
    assert buffers == {len(short): bytes(16), len(long): bytes(32)}


@pytest.mark.parametrize("length", [0, 12, 27, 28, 29, 44, 59, 61, 1000])
def test_a_check_finds_what_does_not_open(master: MasterKey, length: int) -> None:
    sealed = master.seal(bytearray(SEED), ASSOCIATED)
    with master.checking() as check:
        check(sealed, ASSOCIATED)
        with pytest.raises(BadSeal):
            check((sealed * 20)[:length], ASSOCIATED)
        with pytest.raises(BadSeal):
            check(sealed, ASSOCIATED + b"\0")
        check(sealed, ASSOCIATED)


def test_another_host_key_joins_by_a_wrap_of_its_own(
    master: MasterKey, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    sealed = master.seal(bytearray(SEED), ASSOCIATED)
    for private in (host_key, other_key):
        unwrapped = MasterKey.unwrap(private, master.wrap(private.public_key()))
        assert opened(unwrapped, sealed) == SEED
        assert unwrapped.digest(bytearray(SEED), b"") == master.digest(bytearray(SEED), b"")
        unwrapped.close()


def test_a_master_key_wrapped_for_another_host_is_refused(
    master: MasterKey, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    with pytest.raises(UnusableKey):
        MasterKey.unwrap(host_key, master.wrap(other_key.public_key()))


def test_a_damaged_master_key_is_refused(master: MasterKey, host_key: PrivateKey) -> None:
    wrapped = master.wrap(host_key.public_key())
    for damaged in (b"", wrapped[:-1], wrapped + b"\0", wrapped[::-1]):
        with pytest.raises(UnusableKey):
            MasterKey.unwrap(host_key, damaged)


def test_a_wrapped_master_key_cannot_be_loaded_as_a_seed(master: MasterKey, host_key: PrivateKey) -> None:
    with pytest.raises(BadSeal):
        sealing.open_seed(host_key, master.wrap(host_key.public_key()))


@pytest.mark.parametrize("length", [16, 32, 64])  # the digits of 16 bytes are as long as a master key
def test_a_sealed_seed_cannot_be_taken_for_a_master_key(host_key: PrivateKey, length: int) -> None:
    with pytest.raises(UnusableKey):
        MasterKey.unwrap(host_key, sealing.seal_seed(host_key.public_key(), bytearray(length)))


def test_a_closed_master_key_opens_and_seals_nothing() -> None:
    key = MasterKey()
    sealed = key.seal(bytearray(SEED), ASSOCIATED)
    key.close()
    with pytest.raises((TypeError, ValueError)):
        opened(key, sealed)
    with pytest.raises((TypeError, ValueError)):
        key.seal(bytearray(SEED), ASSOCIATED)


def test_a_master_key_says_whether_its_memory_is_locked(master: MasterKey) -> None:
    page = LockedPage()
    assert master.locked == page.locked
    page.close()


seeds = st.binary(min_size=16, max_size=64)


@given(one=st.tuples(seeds, st.binary(max_size=40)), other=st.tuples(seeds, st.binary(max_size=40)))
def test_a_digest_is_the_same_for_the_same_and_only_for_the_same(
    one: tuple[bytes, bytes], other: tuple[bytes, bytes]
) -> None:
    master = MasterKey(SEED)
    first, again, second = (master.digest(bytearray(seed), data) for seed, data in (one, one, other))
    master.close()
    assert len(first) == 16
    assert first == again
    assert (first == second) == (one == other)


def test_a_digest_tells_where_the_seed_begins(master: MasterKey) -> None:
    assert master.digest(bytearray(b"SHA1" + SEED), b"") != master.digest(bytearray(SEED), b"SHA1")


def test_a_digest_says_nothing_without_its_master_key(master: MasterKey) -> None:
    other = MasterKey()
    assert master.digest(bytearray(SEED), b"") != other.digest(bytearray(SEED), b"")
    other.close()

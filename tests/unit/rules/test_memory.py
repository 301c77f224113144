"""What an account takes of memory: a million of them have to fit."""

import contextlib
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from support.agents import make_keyring
from support.oldstate import make_old
from support.stores import keep

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.rules.changes import Edit
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.state.store import Store

COUNT = 20_000
MOST = 450  # bytes of an account with one authenticator, with its place in the keyring

SEED = bytes(32)  # as issuers make them

NAMES = [f"user-{number:06}" for number in range(COUNT)]


def make_new(path: Path, master: MasterKey) -> None:
    """A state in which this version has loaded the accounts."""
    keyring = make_keyring(master=master)
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [Edit(name, 0.0, keyring.seal(name, bytearray(SEED), Parameters())) for name in NAMES])


def make_migrated(path: Path, master: MasterKey) -> None:
    """A state in which version 0.1.0 has loaded them."""
    sealed = master.seal(bytearray(SEED), b"")
    make_old(path, [(name, sealed, number.to_bytes(16)) for number, name in enumerate(NAMES)])
    Store(str(path)).close()


@pytest.mark.parametrize("make", [make_new, make_migrated])
def test_an_account_with_one_authenticator_takes_at_most_450_bytes(
    tmp_path: Path, master: MasterKey, make: Callable[[Path, MasterKey], None]
) -> None:
    path = tmp_path / "state.db"
    make(path, master)
    keyring = Keyring()
    with contextlib.closing(Store(str(path))) as store:
        gc.collect()
        tracemalloc.start()
        try:
            for account in store.accounts():
                keyring.put(account)
            del account
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(keyring.accounts) == COUNT
    assert taken / COUNT <= MOST

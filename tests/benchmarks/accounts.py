"""Accounts by number: names, seeds, codes, and a state file that holds any number of them.

They share SEEDS seeds: codes for a million seeds would take the benchmark longer than the daemon. It keeps
nothing by seed, so that this is all the same to it.
"""

import base64
import contextlib
import functools
import itertools
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.daemon import code_of
from support.stores import keep

from pki2fad.crypto import rsakeys
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey, PublicKey
from pki2fad.rules import clock
from pki2fad.rules.changes import Edit, KeyEdit
from pki2fad.rules.keyring import Keyring
from pki2fad.rules.otp import Parameters
from pki2fad.state.store import Store
from pki2fad.transfer import batch

SEEDS = 1000
PERIOD = 30  # seconds in a step, unless a state is made with another

# Steps for which a wrong code has to stay wrong: six hours.
_HORIZON = 720
_BATCH = 10_000  # accounts in one transaction


def name(number: int) -> str:
    return f"u{number:06}"


def seed(number: int) -> bytes:
    return f"the seed {number % SEEDS:05} of accounts".encode()


def base32(number: int) -> str:
    return base64.b32encode(seed(number)).decode().rstrip("=")


def step_now() -> int:
    return int(time.time()) // PERIOD


def right_codes(step: int) -> list[str]:
    """The codes of a step, by the number of the seed."""
    return [code_of(seed(number), step) for number in range(SEEDS)]


@functools.cache
def wrong_codes() -> list[str]:
    """A code for each seed that is none of its own for hours to come, and of no step just gone."""
    first = step_now() - 2
    wrong = []
    for number in range(SEEDS):
        key = seed(number)
        taken = {code_of(key, step) for step in range(first, first + _HORIZON)}
        guesses = random.Random(number)
        candidates = (f"{guesses.randrange(10**6):06}" for _ in itertools.count())
        wrong.append(next(code for code in candidates if code not in taken))
    return wrong


def write_state(directory: Path, key: PrivateKey, count: int, period: int = PERIOD) -> None:
    """A state with so many accounts, by the project's own parts: one RSA operation, not one for each."""
    directory.mkdir(mode=0o700)
    reading, parameters = clock.read(), Parameters(period=period)
    with contextlib.closing(Store(str(directory / "state.db"))) as store:
        store.begin_boot(clock.boot_id(), reading)  # made in this boot: there is nothing to wait for
        master = MasterKey()
        public = key.public_key()
        keep(store, [KeyEdit({rsakeys.fingerprint(public): master.wrap(public)})])
        keyring = Keyring(master)
        edits = (
            Edit(
                name(number),
                reading.wall,
                keyring.seal(name(number), bytearray(seed(number)), parameters),
            )
            for number in range(count)
        )
        while some := list(itertools.islice(edits, _BATCH)):
            keep(store, some)
        keyring.lock()


def batches(key: PublicKey, first: int, count: int) -> Iterator[tuple[Sequence[str], bytes]]:
    """The names and the bytes of batches for so many accounts."""
    for begin in range(first, first + count, batch.MOST):
        numbers = range(begin, min(begin + batch.MOST, first + count))
        unsealed = [batch.Unsealed(name(number), Parameters(), bytearray(seed(number))) for number in numbers]
        with MasterKey() as master:
            yield [name(number) for number in numbers], batch.pack(unsealed, master.wrap(key), master)


class States:
    """Copies of states, each of which is made once."""

    def __init__(self, directory: Path, key: PrivateKey) -> None:
        self._directory = directory
        self.key = key
        self.pem = rsakeys.private_pem(key)

    def copy(self, to: Path, count: int, period: int = PERIOD) -> None:
        made = self._directory / f"{count}-{period}"
        if not made.exists():
            write_state(made, self.key, count, period)
        shutil.copytree(made, to)


def shuffled(count: int) -> list[int]:
    """All numbers in an order that is the same in every run."""
    numbers = list(range(count))
    random.Random(count).shuffle(numbers)
    return numbers

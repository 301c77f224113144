"""What root finds in the memory of a daemon that is in use: no seed, and no master key."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support import memory
from support.daemon import Daemon, code_of, wait_until
from support.raw import Seed

from pki2fad.crypto.rsakeys import PrivateKey

pytestmark = pytest.mark.slow  # the whole memory of a daemon is searched

ACCOUNTS = 100
CALLS = 1000

# What all seeds begin with, so that one search finds any of them; 80 bits, which are whole in base32 too.
BEGINNING = os.urandom(10)


@pytest.fixture
def seeds(daemon: Daemon, host_key: PrivateKey) -> dict[str, Seed]:
    """The seeds of a hundred accounts, all in use, of a daemon that runs."""
    daemon.configure("[throttle]\nenabled = false\n")
    daemon.start()
    seeds = {f"account-{number}": Seed() for number in range(ACCOUNTS)}
    for seed in seeds.values():
        seed.hex = BEGINNING.hex() + seed.hex[2 * len(BEGINNING) :]
    with daemon.client() as client:
        for name, seed in seeds.items():
            client.load(seed.sealed(host_key), name)
        for number in range(CALLS):
            name = f"account-{number % ACCOUNTS}"
            if number % 2:
                client.verify(client.generate(name).code, name)
            else:
                client.verify("00000000", name)  # of another length: it is compared and wrong
    return seeds


def test_no_seed_is_in_memory_in_any_form(daemon: Daemon, seeds: dict[str, Seed]) -> None:
    assert len(seeds) == ACCOUNTS
    found = memory.hits(daemon.pid, {"a name": b"account-99", "a seed": BEGINNING})
    assert found.pop("a name") > 0  # the search finds what is there
    assert found == {}


def test_the_code_that_the_next_step_brings_is_made_ahead_and_no_later_one(
    daemon: Daemon, host_key: PrivateKey
) -> None:
    daemon.start()
    seed = Seed()
    with daemon.client() as client:
        client.load(seed.sealed(host_key), "deploy", digits=8, period=120)
        step = client.generate("deploy").step
        of_next, of_second = (code_of(bytes.fromhex(seed.hex), step + ahead, 8).encode() for ahead in (2, 3))
        wait_until(lambda: memory.hits(daemon.pid, {"code": of_next}), "no code was made ahead")
        later = memory.hits(daemon.pid, {"code": of_second})
        assert later == {} or client.generate("deploy").step > step


@pytest.mark.parametrize("use", ["all seeds are checked", "all seeds are used"])
def test_after_a_restart_neither(
    daemon: Daemon, seeds: dict[str, Seed], host_key: PrivateKey, use: str
) -> None:
    daemon.kill()
    daemon.start()
    if use == "all seeds are used":
        with daemon.client() as client:
            for name in seeds:
                client.generate(name)
    assert memory.hits(daemon.pid, {"a seed": BEGINNING}) == {}
    assert_the_master_key_is_hidden(daemon, host_key)


def test_the_master_key_is_not_to_be_read_where_memory_can_be_secret(
    daemon: Daemon, seeds: dict[str, Seed], host_key: PrivateKey
) -> None:
    assert seeds
    assert_the_master_key_is_hidden(daemon, host_key)


def assert_the_master_key_is_hidden(daemon: Daemon, host_key: PrivateKey) -> None:
    found = memory.hits(daemon.pid, {"master key": memory.master_key(daemon.state_file, host_key)})
    if "/secretmem" in Path(f"/proc/{daemon.pid}/maps").read_text():
        assert found == {}
    else:  # one locked page, and no copy
        assert found == {"master key": 1}


def test_no_seed_is_in_the_state_in_plain_text(daemon: Daemon, seeds: dict[str, Seed]) -> None:
    assert len(seeds) == ACCOUNTS
    daemon.stop()
    with closing(sqlite3.connect(daemon.state_file)) as database:
        assert database.execute("SELECT count(*) FROM accounts").fetchone() == (ACCOUNTS,)
    content = b"".join(
        path.read_bytes()
        for path in daemon.state_dir.iterdir()
        if path.is_file() and os.access(path, os.R_OK)
    )
    assert b"account-99" in content
    assert BEGINNING not in content
    assert BEGINNING.hex().encode() not in content

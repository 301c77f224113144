"""The vault over a real state file: what it opens, and what a rotation proves before it lets go."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.agents import ROOT, SEED, STARTED
from support.sites import Site
from support.stores import finish, keep

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadRequest, Unavailable, UnusableState
from pki2fad.rules.changes import KeyEdit
from pki2fad.rules.keyring import Keyring
from pki2fad.state.store import Store
from pki2fad.state.vault import Vault
from pki2fad.wire.messages import Request

STRAY_SLOT = """
    CREATE TRIGGER stray AFTER INSERT ON keyslots WHEN new.fingerprint = '{fingerprint}'
    BEGIN UPDATE keyslots SET wrapped = {wrapped} WHERE fingerprint = new.fingerprint; END
"""


@pytest.fixture
def site(tmp_path: Path, host_key: PrivateKey) -> Iterator[Site]:
    with Site(tmp_path / "state.db", host_key) as site:
        site.load()
        yield site


def slots(site: Site) -> set[str]:
    with closing(sqlite3.connect(site.path)) as database:
        return {row[0] for row in database.execute("SELECT fingerprint FROM keyslots")}


@pytest.mark.parametrize("what", ["does not open", "is of another master key"])
def test_a_new_slot_that_does_not_read_back_keeps_the_old_one(
    site: Site, host_key: PrivateKey, other_key: PrivateKey, what: str
) -> None:
    old, new = (rsakeys.fingerprint(key.public_key()) for key in (host_key, other_key))
    with closing(MasterKey()) as another:
        wrapped = another.wrap(other_key.public_key()) if "another" in what else bytes(384)
    # A disk that gives back something else than what was written.
    site.store.file.database.execute(STRAY_SLOT.format(fingerprint=new, wrapped=f"x'{wrapped.hex()}'"))
    with pytest.raises(UnusableState, match=what):
        site.call("rotate", private=rsakeys.private_pem(other_key))
    with pytest.raises(UnusableState, match=what):
        site.call("rotate_finish", fingerprint=new)
    assert slots(site) == {old, new}
    code = site.call("generate")["code"]
    site.kill()  # with the old key, as its file was not exchanged
    assert site.call("generate")["code"] == code


def test_a_damaged_digest_key_is_a_damaged_state_file(
    site: Site, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    site.call("rotate", private=rsakeys.private_pem(other_key))
    site.store.file.database.execute(
        "UPDATE secrets SET value = zeroblob(length(value)) WHERE name = 'digest'"
    )
    site.store.close()
    damaged = Site(site.path, host_key)
    with pytest.raises(UnusableState, match=r"state\.db is damaged"):
        damaged.start()
    damaged.store.close()


def made_up(bits: int) -> PrivateKey:
    """What looks like a key, with factors that are no primes."""
    top = 3 << (bits // 2 - 2)
    p, q = top | 0x1234567, top | 0x7654321
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, top | 1, (top >> 1) | 1, (top >> 1) | 3, 5, public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@pytest.mark.parametrize(("bits", "why"), [(3072, "does not open"), (8194, "at most 8192 are allowed")])
def test_a_rotation_to_a_key_that_cannot_be_used_changes_nothing(site: Site, bits: int, why: str) -> None:
    before = site.rows()
    recipients = site.call("recipients")
    with pytest.raises(BadRequest, match=why):
        site.call("rotate", private=rsakeys.private_pem(made_up(bits)))
    assert site.rows() == before
    assert site.call("recipients") == recipients


def test_a_lock_while_the_hosts_key_is_opened_keeps_the_daemon_locked(
    site: Site, host_key: PrivateKey
) -> None:
    site.agent.lock()
    work = site.agent.handle(Request(1, "unlock", {}), ROOT, site.reading).work
    assert work is not None
    assert callable(next(work))  # the thread derives the key meanwhile
    site.agent.lock()
    work.send(host_key)  # all seeds are looked through
    with pytest.raises(Unavailable, match="locked meanwhile"):
        work.send(host_key)
    assert site.agent.locked


def test_a_new_state_stays_locked_until_its_first_slot_is_kept(tmp_path: Path, host_key: PrivateKey) -> None:
    with closing(Store(str(tmp_path / "new.db"))) as store:
        keyring = Keyring()
        vault = Vault(keyring, store, "host.pem", oldest_seed=STARTED.wall - 3600)
        for kept in (False, True):
            steps = vault.open(host_key)
            assert next(steps) is None
            edit = steps.send(STARTED)
            assert isinstance(edit, KeyEdit)
            assert [*edit.slots] == [rsakeys.fingerprint(host_key.public_key())]
            assert (store.keyslots(), keyring.locked, keyring.floors) == ({}, True, {})
            if kept:
                keep(store, [edit])
                finish(steps, store, STARTED)
            else:
                with pytest.raises(UnusableState):
                    steps.throw(UnusableState("no space"))
        assert store.keyslots() == edit.slots
        assert keyring.floors == store.floors() == edit.floors != {}
        assert not keyring.locked
        vault.close()


def test_the_old_key_opens_the_state_until_the_end_of_a_rotation_is_kept(
    site: Site, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    old, new = (rsakeys.fingerprint(key.public_key()) for key in (host_key, other_key))
    site.call("rotate", private=rsakeys.private_pem(other_key))
    work = site.agent.handle(Request(1, "rotate_finish", {"fingerprint": new}), ROOT, site.reading).work
    assert work is not None
    edit = next(work)
    assert isinstance(edit, KeyEdit)
    assert [*edit.slots] == [new]
    with pytest.raises(UnusableState):
        work.throw(UnusableState("no space"))
    assert slots(site) == {old, new}
    sealed = sealing.seal_seed(host_key.public_key(), bytearray(SEED))
    assert site.call("load", account="old", sealed=sealed)["changed"]

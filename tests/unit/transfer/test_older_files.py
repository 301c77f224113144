"""Files of version 0.1.0, made by its commands: they are read as they were meant."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import reference_code, unpacked
from support.sites import Site

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.rules.otp import Parameters
from pki2fad.transfer import backup
from pki2fad.transfer.content import Content

OLDER = Path(__file__).parents[2] / "vectors" / "older-files"

USUAL, LONG, BATCH = Parameters(), Parameters("SHA256", 8, 60), Parameters("SHA512", 7, 30)
RFC, OTHER, SHORT = b"12345678901234567890123456789012", bytes([0xAB]) * 64, bytes([0xCD]) * 16
SEEDS = {
    "alice": (RFC, BATCH),
    "ben@host": (SHORT, BATCH),
    "carol": (SHORT, USUAL),
    "default": (RFC, USUAL),
    "dora": (OTHER, LONG),
}


@pytest.fixture
def older_key() -> PrivateKey:
    return sealing.load_private((OLDER / "host.pem").read_bytes(), "host.pem")


@pytest.fixture
def older(older_key: PrivateKey, tmp_path: Path) -> Iterator[Site]:
    """A new host with the key of the older one."""
    with Site(tmp_path / "state.db", older_key) as site:
        yield site


def content(key: PrivateKey) -> Content:
    data = (OLDER / "accounts.backup").read_bytes()
    wrapped = backup.slot(data, rsakeys.fingerprint(key.public_key()))
    with MasterKey.unwrap(key, wrapped) as master:
        return unpacked(data, master)


def test_a_backup_of_it_is_of_version_1_and_has_what_was_used(older_key: PrivateKey) -> None:
    read = content(older_key)
    step = read.created // 30
    assert read.version == 1
    assert {record.name: record.parameters for record in read.records} == {
        name: of for name, (_, of) in SEEDS.items()
    }
    by_name = {record.name: record for record in read.records}
    assert by_name["alice"].last_step == by_name["dora"].last_step == -1
    assert step - 1 <= by_name["default"].last_step <= step
    assert (by_name["carol"].offset, by_name["carol"].label, by_name["carol"].made) == (4, "main", 0)


def test_a_backup_of_it_is_restored(older: Site, older_key: PrivateKey) -> None:
    read = content(older_key)
    older.set(read.created + 5.0)
    data = (OLDER / "accounts.backup").read_bytes()
    restored = older.restore(data)
    assert (restored["accounts"], set(restored["changed"])) == (5, {*SEEDS})
    for name, (seed, of) in SEEDS.items():
        code = reference_code(seed, older.step(of.period), of)
        assert older.call("generate", account=name)["code"] == code
    used = {record.name: record.last_step for record in read.records}
    older.wait(120)
    for name in ("default", "alice"):
        seed, of = SEEDS[name]
        assert older.keyring.watermark(older.keyring.accounts[name]) >= used[name]
        assert older.verify(older.step(), name, seed, of)


def test_a_batch_of_it_is_loaded(older: Site) -> None:
    text = (OLDER / "accounts.batch").read_bytes()
    result = older.call("load_batch", batch=sealing.sealed_from_text(text))
    assert result == {"accounts": 2, "changed": ["alice", "ben@host"]}
    for name in ("alice", "ben@host"):
        seed, of = SEEDS[name]
        assert older.verify(older.step(), name, seed, of)

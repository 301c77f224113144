"""A restore of accounts with several authenticators, and of HOTP, whose later codes no backup knows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import OTHER_SEED, SEED, USUAL, oathtool_code, reference_code
from support.authenticators import HOTP, is_good, seed_of, token_code
from support.sites import Site

from pki2fad.crypto import sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import AccountExists, BadRequest
from pki2fad.rules.otp import Parameters

LONG = Parameters("SHA256", 8, 60)


@pytest.fixture
def other(tmp_path: Path, other_key: PrivateKey) -> Iterator[Site]:
    """Where they are restored, with another key and a new state."""
    with Site(tmp_path / "other.db", other_key) as other:
        yield other


def load(site: Site, label: str, seed: bytes, of: Parameters = USUAL, **more: Any) -> None:
    """Load an authenticator of the account ann."""
    sealed = sealing.seal_seed(site.key.public_key(), bytearray(seed))
    period = {"period": of.period} if of.period else {}
    fields = {"kind": of.kind, "algorithm": of.algorithm, "digits": of.digits, **period}
    site.call("load", account="ann", label=label, sealed=sealed, **fields, **more)


def listed(site: Site) -> dict[str, dict[str, Any]]:
    """The authenticators of ann, by label."""
    (row,) = site.call("accounts", match="ann")
    return {one["label"]: one for one in row["authenticators"]}


def restore(site: Site, data: bytes, **more: Any) -> Any:
    """Restore it, and wait until TOTP codes are good again."""
    result = site.restore(data, **more)
    site.wait(120)
    return result


def codes(site: Site, at: int, seed: bytes = SEED, label: str = "token") -> Any:
    """The answer to `resync` with the codes of this counter and the next."""
    first, second = (token_code(counter, seed) for counter in (at, at + 1))
    return site.call("resync", account="ann", label=label, first=first, second=second)


@pytest.fixture
def data(site: Site, other_key: PrivateKey) -> bytes:
    """A backup of ann, who has a phone that is ahead, a token and a short seed; three codes were used."""
    load(site, "main", OTHER_SEED)
    load(site, "phone", seed_of(1), LONG)
    load(site, "token", SEED, HOTP, counter=5)
    load(site, "short", seed_of(2)[:10], short=True)
    ahead = [reference_code(seed_of(1), site.step(60) + 3 + i, LONG) for i in range(2)]
    site.call("resync", account="ann", label="phone", first=ahead[0], second=ahead[1])
    assert site.verify(site.step(), "ann", OTHER_SEED)
    assert is_good(site, token_code(7), "ann")
    return site.backup(other_key)


def test_all_authenticators_come_back_with_all_that_is_known_of_them(
    site: Site, other: Site, data: bytes
) -> None:
    assert data.startswith(b"pki2fad backup 2\n")
    other.wait(3600)
    result = other.restore(data)
    inactive = [{"account": "ann", "label": "token"}]
    assert result == {"accounts": 1, "changed": ["ann"], "inactive": inactive}
    for again in (None, Site.restart, Site.kill):
        if again is not None:
            again(other)
        known, restored = listed(site), listed(other)
        assert [*restored] == [*known] == ["main", "phone", "token", "short"]
        assert (restored["token"].pop("inactive"), known["token"].pop("inactive")) == (True, False)
        for label, one in restored.items():
            assert one["made"] == known[label]["made"] == int(site.wall)
            if label in ("phone", "token"):  # how far a phone that is ahead was used since, nobody knows
                one.pop("last_used"), known[label].pop("last_used")
            assert one == known[label]
        assert restored["token"]["counter"] == 8
    other.wait(120)
    assert other.verify(other.step(), "ann", OTHER_SEED)
    assert other.verify(other.step(), "ann", seed_of(2)[:10])
    assert other.verify(other.step(60) + 4, "ann", seed_of(1), LONG)


def test_oathtools_codes_are_good_after_a_restore(other: Site, data: bytes) -> None:
    restore(other, data)
    assert is_good(other, oathtool_code(OTHER_SEED, other.wall), "ann")


def test_a_token_from_a_backup_is_inactive_until_two_of_its_codes_follow_each_other(
    site: Site, other: Site, data: bytes
) -> None:
    assert is_good(site, token_code(9), "ann")  # after the backup
    restore(other, data)
    for counter in range(12):
        assert not is_good(other, token_code(counter), "ann")
    other.kill()
    assert not is_good(other, token_code(10), "ann")
    with pytest.raises(BadRequest, match="must follow each other"):
        codes(other, 6)  # its second one was used before the backup
    assert listed(other)["token"]["inactive"]
    assert codes(other, 10)["counter"] == 12
    for again in (Site.restart, Site.kill):
        assert not listed(other)["token"]["inactive"]
        again(other)
    for counter in range(12):
        assert not is_good(other, token_code(counter), "ann")
    assert is_good(other, token_code(12), "ann")
    assert not is_good(other, token_code(12), "ann")


def test_an_account_with_nothing_but_an_inactive_token_answers_that_codes_are_wrong(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    load(site, "token", SEED, HOTP)
    other.restore(site.backup(other_key))
    assert not is_good(other, token_code(0), "ann")
    assert other.call("verify", account="ann", code=token_code(0), explain=True) == {"valid": False}
    with pytest.raises(BadRequest, match="no TOTP authenticator"):
        other.call("generate", account="ann")
    assert codes(other, 3)["counter"] == 5
    assert is_good(other, token_code(5), "ann")


def test_a_successor_of_an_inactive_token_is_good(site: Site, other: Site, other_key: PrivateKey) -> None:
    load(site, "token", SEED, HOTP)
    other.restore(site.backup(other_key))
    load(other, "token", OTHER_SEED, HOTP, successor=True)
    assert not is_good(other, token_code(1), "ann")
    assert is_good(other, token_code(1, OTHER_SEED), "ann")
    assert listed(other)["token"]["inactive"] is False


@pytest.mark.parametrize(("here", "after"), [(0, 8), (20, 20)])
def test_the_higher_counter_of_a_token_that_is_here_counts_and_it_stays_active(
    other: Site, data: bytes, here: int, after: int
) -> None:
    load(other, "token", SEED, HOTP, counter=here)
    assert "inactive" not in restore(other, data)
    assert (listed(other)["token"]["counter"], listed(other)["token"]["inactive"]) == (after, False)
    other.kill()
    assert not is_good(other, token_code(after - 1), "ann")
    assert is_good(other, token_code(after), "ann")


def test_a_token_that_is_inactive_here_stays_so(other: Site, data: bytes) -> None:
    other.restore(data)
    assert other.restore(data) == {"accounts": 1, "changed": []}
    assert listed(other)["token"]["inactive"]


def test_a_token_that_was_removed_here_begins_behind_what_it_spent(site: Site) -> None:
    load(site, "main", OTHER_SEED)
    load(site, "token", SEED, HOTP, counter=5)
    mine = site.backup()
    assert is_good(site, token_code(7), "ann")
    site.call("remove", account="ann", label="token")
    site.restore(mine)
    assert (listed(site)["token"]["counter"], listed(site)["token"]["inactive"]) == (8, True)
    with pytest.raises(BadRequest):
        codes(site, 7)
    assert codes(site, 8)["counter"] == 10


def test_a_seed_that_has_another_label_here_keeps_it(other: Site, data: bytes) -> None:
    load(other, "yubikey", SEED, HOTP)
    load(other, "main", OTHER_SEED)
    other.restore(data)
    assert [*listed(other)] == ["yubikey", "main", "phone", "short"]
    assert (listed(other)["yubikey"]["counter"], listed(other)["yubikey"]["inactive"]) == (8, False)


def test_authenticators_with_other_labels_stay_beside_those_of_the_backup(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    load(site, "main", SEED)
    load(site, "phone", OTHER_SEED)
    load(other, "phone", OTHER_SEED)
    load(other, "tablet", seed_of(3))
    assert other.restore(site.backup(other_key))["changed"] == ["ann"]
    assert [*listed(other)] == ["phone", "tablet", "main"]


def test_more_than_four_are_refused_with_what_to_do_and_nothing_changes(other: Site, data: bytes) -> None:
    load(other, "tablet", seed_of(3))
    other.load("ben", SEED)
    before = other.rows()
    for replace in (False, True):
        with pytest.raises(BadRequest, match=r"'ann' would have 5 .* pki2factl remove ann --label LABEL"):
            other.restore(data, replace=replace)
    assert other.rows() == before
    assert [*listed(other)] == ["tablet"]


def test_another_seed_is_replaced_only_when_that_is_said_and_others_stay(other: Site, data: bytes) -> None:
    load(other, "token", seed_of(4), HOTP)
    load(other, "main", OTHER_SEED)
    assert is_good(other, token_code(2, seed_of(4)), "ann")
    before = other.rows()
    with pytest.raises(AccountExists, match="ann"):
        other.restore(data)
    assert other.rows() == before
    assert restore(other, data, replace=True)["inactive"] == [{"account": "ann", "label": "token"}]
    assert [*listed(other)] == ["token", "main", "phone", "short"]
    load(other, "token", seed_of(4), HOTP, replace=True)
    assert listed(other)["token"]["counter"] == 3  # what the replaced one spent stays spent
    assert not is_good(other, token_code(2, seed_of(4)), "ann")


def test_a_restored_account_has_the_id_of_its_name_here(site: Site, other: Site, data: bytes) -> None:
    other.load("ann", seed_of(5))
    own = other.call("accounts")[0]["id"]
    other.call("remove", account="ann")
    other.restore(data)
    assert other.call("accounts")[0]["id"] == own != site.call("accounts")[0]["id"]
    assert {one.account_id.hex() for one in other.keyring.accounts["ann"].authenticators} == {own}


def test_an_account_that_is_new_here_gets_one_new_id_for_all_its_authenticators(
    site: Site, other: Site, data: bytes
) -> None:
    other.restore(data)
    other.kill()
    account = other.keyring.accounts["ann"]
    assert len({one.account_id for one in account.seeds}) == 1
    assert len({one.id for one in account.seeds}) == 4
    assert account.account_id != site.keyring.accounts["ann"].account_id


def test_a_backup_has_no_recovery_codes_and_a_restore_leaves_them(
    site: Site, other: Site, other_key: PrivateKey
) -> None:
    load(site, "main", SEED)
    load(other, "main", OTHER_SEED)
    code = site.call("recovery_create", account="ann")["codes"][0]
    here = other.call("recovery_create", account="ann")["codes"][0]
    other.restore(site.backup(other_key), replace=True)
    assert not is_good(other, code, "ann")
    assert is_good(other, here, "ann")
    other.call("remove", account="ann")
    other.restore(site.backup(other_key))
    assert other.call("accounts")[0]["recovery"] is None


def test_version_1_is_written_where_it_suffices(site: Site) -> None:
    site.load("default", SEED)
    load(site, "main", OTHER_SEED, LONG)
    assert site.backup().startswith(b"pki2fad backup 1\n")
    load(site, "phone", seed_of(1))
    assert site.backup().startswith(b"pki2fad backup 2\n")
    site.call("remove", account="ann", label="main")
    assert site.backup().startswith(b"pki2fad backup 2\n")

"""The content of backups: what is read of it, and what is refused, whoever sealed it."""

import base64
import json
from typing import Any

import pytest
from support import entries
from support.agents import unpacked

from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import BadSeal
from pki2fad.rules.otp import Parameters
from pki2fad.transfer.content import Record

SPENT = {"last_step": 5, "offset": 0, "drift": ""}
GOOD = {**entries.GOOD, **SPENT}
GOOD_2 = {**entries.GOOD_2, **SPENT, "made": 17}
HOTP = {**entries.TOKEN, **SPENT, "made": 0}
WRONG_SPENT: list[dict[str, Any]] = [
    {"last_step": -2},
    {"last_step": 2**63},
    {"last_step": 1.5},
    {"last_step": True},
    {"offset": 11},
    {"offset": -11},
    {"drift": base64.b64encode(bytes(9)).decode()},
]
WRONG = [*entries.WRONG, *WRONG_SPENT, {"made": 1}, {"label": "main"}]
WRONG_2 = [*entries.WRONG_2, *WRONG_SPENT, {"made": -1}, {"made": 2**48}, {"made": 1.0}, {"counter": 0}]
WRONG_HOTP = [{"last_step": 2**62}, {"offset": 1}, {"drift": "AA=="}, {"period": 30}, {"kind": "totp"}]


def sealed_json(data: Any, master: MasterKey, version: int = 1) -> bytes:
    """What somebody seals who knows the format."""
    return sealed_text(json.dumps(data), master, version)


def sealed_text(text: str, master: MasterKey, version: int = 1) -> bytes:
    start = b"pki2fad backup %d\n" % version + b"\0\0\0\x0c" + b'{"slots":{}}'
    return start + master.seal(bytearray(text.encode()), start)


def body(**more: Any) -> dict[str, Any]:
    return {"created": 0, "accounts": [GOOD], "floors": [], "spent": []} | more


@pytest.mark.parametrize(
    ("text", "is_read"),
    [
        ('{"created":0,"accounts":[%s],"floors":[],"spent":[]}', True),
        ('{"created":0,"accounts":[%s],"floors":[],"spent":[]}' + " " * 60_000, True),
        ('{"created":0,"accounts":[%s],"floors":[],"spent":[]}' + " " * 66_000, False),
        ('{"created":0,' + " " * 4096 + '"accounts":[%s],"floors":[],"spent":[]}', False),
        ('{"created":0,"accounts":[{' + " " * 4096 + '%s],"floors":[],"spent":[]}', False),
    ],
)
def test_what_is_longer_than_a_backup_makes_it_is_refused(
    master: MasterKey, text: str, *, is_read: bool
) -> None:
    """Before it is parsed, or after one account: nobody waits for what a sealer made large."""
    account = json.dumps(GOOD)
    sealed = sealed_text(text % (account[1:] if "[{" in text else account), master)
    if is_read:
        assert len(unpacked(sealed, master).records) == 1
    else:
        with pytest.raises(BadSeal):
            unpacked(sealed, master)


def test_what_somebody_else_packs_by_the_description_is_unpacked(master: MasterKey) -> None:
    (record,) = unpacked(sealed_json(body(), master), master).records
    assert record == Record("default", Parameters(), bytes(60), 5)


def test_what_somebody_else_packs_in_version_2_is_unpacked(master: MasterKey) -> None:
    data = sealed_json(body(accounts=[GOOD_2, HOTP | {"last_step": 2**61}]), master, 2)
    one, two = unpacked(data, master).records
    assert one == Record("default", Parameters(), bytes(60), 5, version=2, made=17)
    hotp = Parameters(period=0, kind="hotp")
    assert two == Record("default", hotp, bytes(60), 2**61, "token", 2)


def test_the_seed_of_an_authenticator_is_bound_to_its_label_and_kind_in_version_2() -> None:
    of, record = Parameters(period=0, kind="hotp"), Record("default", Parameters(), bytes(60), 5)
    assert record.associated == b"pki2fad account 1\0default\0SHA1\x006\x0030"
    hotp = Record("default", of, bytes(60), 5, "token", 2)
    assert hotp.associated == b"pki2fad account 2\0default\0token\0hotp\0SHA1\x006\x000"


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_an_account_that_cannot_be_one_is_refused(master: MasterKey, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadSeal):
        unpacked(sealed_json(body(accounts=[GOOD | wrong]), master), master)


@pytest.mark.parametrize(
    ("good", "wrong"),
    [*((GOOD_2, wrong) for wrong in WRONG_2), *((HOTP, wrong) for wrong in WRONG_HOTP)],
    ids=repr,
)
def test_an_authenticator_that_cannot_be_one_is_refused(
    master: MasterKey, good: dict[str, Any], wrong: dict[str, Any]
) -> None:
    assert unpacked(sealed_json(body(accounts=[good]), master, 2), master).records
    with pytest.raises(BadSeal):
        unpacked(sealed_json(body(accounts=[good | wrong]), master, 2), master)


def labelled(name: str, *labels: str) -> list[dict[str, Any]]:
    return [GOOD_2 | {"name": name, "label": label} for label in labels]


@pytest.mark.parametrize(
    ("accounts", "is_read"),
    [
        ([*labelled("a", "1", "2", "3", "4"), *labelled("b", "1", "2", "3", "4")], True),
        (labelled("a", "1", "2", "3", "4", "5"), False),
        (labelled("a", "1", "2", "1"), False),
        ([*labelled("a", "1"), *labelled("b", "1"), *labelled("a", "2")], False),
    ],
    ids=["four each", "five", "a label twice", "not together"],
)
def test_an_account_has_up_to_four_authenticators_that_stand_together(
    master: MasterKey, accounts: list[dict[str, Any]], *, is_read: bool
) -> None:
    data = sealed_json(body(accounts=accounts), master, 2)
    if is_read:
        assert len(unpacked(data, master).records) == len(accounts)
    else:
        with pytest.raises(BadSeal):
            unpacked(data, master)


@pytest.mark.parametrize(("good", "version"), [(GOOD, 2), (GOOD_2, 1)])
def test_a_file_has_no_authenticators_of_another_version(
    master: MasterKey, good: dict[str, Any], version: int
) -> None:
    with pytest.raises(BadSeal):
        unpacked(sealed_json(body(accounts=[good]), master, version), master)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        None,
        {},
        body(accounts=[GOOD, GOOD]),
        body(accounts=[GOOD, GOOD | {"name": "b"}, GOOD]),
        body(accounts=[[]]),
        body(created=1.5),
        body(created="now"),
        body(created=float("nan")),
        body(floors=[[30]]),
        body(floors=[[30, 2**70]]),
        body(spent=[[0.0, float("inf")]]),
        body(spent=[[1, 2]]),
        body(spent=[5]),
    ],
    ids=repr,
)
def test_a_content_of_another_form_is_refused(master: MasterKey, wrong: Any) -> None:
    with pytest.raises(BadSeal):
        unpacked(sealed_json(wrong, master), master)

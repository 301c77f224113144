"""The state file: what it keeps, and its verdicts."""

import ast
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import (
    CODE,
    NOW,
    OTHER_SEED,
    ROOT,
    SEED,
    STEP,
    Syncs,
    booted,
    call,
    is_valid,
    make_keyring,
    reference_code,
    sealed,
)
from support.stores import keep

import pki2fad
from pki2fad.crypto.masterkey import MasterKey
from pki2fad.errors import UnusableState
from pki2fad.rules.account import Account
from pki2fad.rules.changes import Edit, Edits, FileEdit, KeyEdit, Spend
from pki2fad.rules.otp import Parameters
from pki2fad.rules.tally import NO_TALLY
from pki2fad.state.store import Store


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(str(path))) as store:
        yield store


def account_of(seed: bytes = SEED, name: str = "default", last_step: int = -1) -> Account:
    account = make_keyring().seal(name, bytearray(seed), Parameters())
    account.last_step = last_step
    return account


def put(account: Account, file_digest: bytes | None = None) -> Edit:
    return Edit(account.name, NOW.wall, account, file_digest=file_digest)


def spend(step: int, name: str = "default") -> Spend:
    return Spend(name, step, 30, NOW.wall)


def content(account: Account) -> tuple[object, ...]:
    return account.name, account.parameters, account.sealed, account.digest, account.last_step


# What is kept


def test_the_state_file_is_for_its_owner_only(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [put(account_of())])
        files = list(path.parent.iterdir())
        assert path in files
        assert [oct(each.stat().st_mode & 0o777) for each in files] == ["0o600"] * len(files)


def test_closing_leaves_one_file(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [put(account_of())])
    assert list(path.parent.iterdir()) == [path]


def test_accounts_are_as_they_were_after_reopening(path: Path) -> None:
    keyring = make_keyring()
    accounts = [
        keyring.seal("a", bytearray(SEED), Parameters()),
        keyring.seal("user@example.org", bytearray(OTHER_SEED), Parameters("SHA512", 8, 120)),
    ]
    accounts[1].last_step = STEP
    with contextlib.closing(Store(str(path))) as store:
        assert list(store.accounts()) == []
        keep(store, [put(account) for account in accounts])
    with contextlib.closing(Store(str(path))) as store:
        assert [content(account) for account in store.accounts()] == [
            content(account) for account in accounts
        ]


def test_a_million_accounts_need_not_have_parameters_of_their_own_each(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [put(account_of(name=name)) for name in ("a", "b", "c")])
    with contextlib.closing(Store(str(path))) as store:
        accounts = list(store.accounts())
    assert len(accounts) == 3
    assert len({id(account.parameters) for account in accounts}) == 1
    assert all(account.tally is NO_TALLY for account in accounts)


def test_a_code_is_accepted_once_across_restarts(path: Path, master: MasterKey) -> None:
    with booted(path, master, NOW) as (agent, store):
        call(agent, "load", ROOT, NOW, store=store, sealed=sealed(SEED))
        assert is_valid(agent, CODE, NOW, store=store)
    with booted(path, master, NOW) as (agent, store):
        assert not is_valid(agent, CODE, NOW, store=store)
        assert call(agent, "accounts", ROOT, NOW)[0]["last_used"] == STEP * 30
        assert is_valid(agent, reference_code(SEED, STEP + 1), NOW, store=store)
    with booted(path, master, NOW) as (agent, store):
        assert not is_valid(agent, reference_code(SEED, STEP + 1), NOW, store=store)


@pytest.mark.parametrize("between", ["remove", "replace"])
def test_a_seed_that_went_before_a_restart_comes_back_with_its_watermark(
    path: Path, master: MasterKey, between: str
) -> None:
    with booted(path, master, NOW) as (agent, store):
        call(agent, "load", ROOT, NOW, store=store, sealed=sealed(SEED))
        assert is_valid(agent, CODE, NOW, store=store)
        if between == "remove":
            call(agent, "remove", ROOT, NOW, store=store)
        else:
            call(agent, "load", ROOT, NOW, store=store, sealed=sealed(OTHER_SEED), replace=True)
    with booted(path, master, NOW) as (agent, store):
        call(agent, "load", ROOT, NOW, store=store, sealed=sealed(SEED), replace=True)
        assert not is_valid(agent, CODE, NOW, store=store)
        assert is_valid(agent, reference_code(SEED, STEP + 1), NOW, store=store)


def test_a_removed_account_stays_removed(path: Path, master: MasterKey) -> None:
    with booted(path, master, NOW) as (agent, store):
        for name in ("default", "other"):
            call(agent, "load", ROOT, NOW, store=store, account=name, sealed=sealed(SEED))
        call(agent, "remove", ROOT, NOW, store=store)
    with booted(path, master, NOW) as (agent, store):
        assert [account["account"] for account in call(agent, "accounts", ROOT, NOW)] == ["other"]


def test_the_keyslots_are_those_of_the_last_edit(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        assert store.keyslots() == {}
        slots = {"SHA256:a": b"wrapped for a", "SHA256:b": b"wrapped for b"}
        keep(store, [KeyEdit(slots)])
    with contextlib.closing(Store(str(path))) as store:
        assert store.keyslots() == slots
        keep(store, [KeyEdit({"SHA256:b": b"wrapped again"})])
    with contextlib.closing(Store(str(path))) as store:
        assert store.keyslots() == {"SHA256:b": b"wrapped again"}


def test_another_digest_of_a_seed_file_is_kept_without_an_edit_of_its_account(path: Path) -> None:
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [put(account_of(), file_digest=b"of the text")])
        syncs = Syncs(store)
        keep(store, [FileEdit("default", b"of what is sealed")])
        assert syncs.count() == 1
    with contextlib.closing(Store(str(path))) as store:
        assert store.file_digests() == {"default": b"of what is sealed"}


def test_the_digest_of_a_seed_file_is_kept_also_after_its_account_is_removed(path: Path) -> None:
    account = account_of()
    with contextlib.closing(Store(str(path))) as store:
        keep(store, [put(account, file_digest=b"first")])
        keep(store, [put(account, file_digest=b"second"), put(account_of(name="b"), file_digest=b"b")])
        keep(store, [Edit("default", NOW.wall, put=None, gone=account.seeds)])
        assert store.file_digests() == {"default": b"second", "b": b"b"}
    with contextlib.closing(Store(str(path))) as store:
        assert store.file_digests() == {"default": b"second", "b": b"b"}


# Verdicts


def test_a_spend_at_or_below_the_step_in_the_state_is_refused(store: Store) -> None:
    keep(store, [put(account_of(last_step=STEP))])
    steps = [STEP - 1, STEP, STEP + 1, STEP + 1, STEP, STEP + 2]
    assert keep(store, [spend(step) for step in steps]) == [False, False, True, False, False, True]
    assert keep(store, [spend(STEP + 2)]) == [False]
    assert [account.last_step for account in store.accounts()] == [STEP + 2]


def test_a_spend_of_an_account_that_is_not_there_is_refused(store: Store) -> None:
    assert keep(store, [spend(STEP)]) == [False]


def test_what_another_host_spent_first_is_invalid(path: Path, master: MasterKey) -> None:
    """With a shared state the watermark in memory is not the last word."""
    with booted(path, master, NOW) as (agent, store):
        call(agent, "load", ROOT, NOW, store=store, sealed=sealed(SEED))
        assert keep(store, [spend(STEP)]) == [True]
        assert not is_valid(agent, CODE, NOW, store=store)


def test_one_verdict_comes_for_each_change_in_order(store: Store) -> None:
    changes = [put(account_of()), spend(STEP), spend(STEP), put(account_of(name="b")), spend(3, "b")]
    assert keep(store, changes) == [True, True, False, True, True]


# Seeds that are gone


def test_the_highest_watermark_of_a_gone_seed_is_remembered(store: Store) -> None:
    keyring = make_keyring()
    remembered = []
    for last_step in (STEP, STEP - 5, STEP + 1):
        account = keyring.seal("default", bytearray(SEED), Parameters())
        account.last_step = last_step
        keep(store, [Edit("default", NOW.wall, put=None, gone=account.seeds)])
        remembered.append(store.gone()[account.digest])
    assert remembered == [(STEP, 30), (STEP, 30), (STEP + 1, 30)]


@pytest.mark.parametrize(("seconds", "kept"), [(0, True), (1, False)])
def test_the_watermark_of_a_gone_seed_is_forgotten_a_day_after_no_window_can_reach_it(
    store: Store, seconds: int, kept: bool
) -> None:
    old, new = account_of(SEED, last_step=STEP), account_of(OTHER_SEED, last_step=STEP)
    keep(store, [put(old)])
    keep(store, [Edit("default", NOW.wall, put=None, gone=old.seeds)])
    end = (STEP + 1) * 30 + 30  # of the step after it, in which its code may still come
    keep(store, [Edit("default", end + 86_400 + seconds, put=None, gone=new.seeds)])
    assert (old.digest in store.gone()) is kept


def test_no_statement_has_a_numbered_placeholder() -> None:
    """Python 3.12.0 to 3.12.3 warns about `?1` with a sequence, and warnings are errors here."""
    sources = list(Path(pki2fad.__file__).parent.rglob("*.py"))
    nodes = [node for source in sources for node in ast.walk(ast.parse(source.read_text()))]
    statements = [node.value for node in nodes if isinstance(node, ast.Constant) and "?" in str(node.value)]
    assert len(statements) > 10
    assert not [one for one in statements if re.search(r"\?[0-9]", str(one))]


def test_of_what_is_given_up_nothing_is_kept(store: Store) -> None:
    keep(store, [put(account_of())])
    store.give_up()
    with pytest.raises(UnusableState, match="the daemon stops"):
        keep(store, [Edits([put(account_of(OTHER_SEED, "other"))], {30: 60})])
    assert [account.name for account in store.accounts()] == ["default"]
    assert store.floors() == {}

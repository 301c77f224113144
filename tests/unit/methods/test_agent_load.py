"""Loading, replacing and removing accounts: what an Edit does, and what a seed's return finds."""

from typing import Any

import pytest
from support.agents import (
    CODE,
    NOW,
    OTHER_SEED,
    ROOT,
    SEED,
    STEP,
    at,
    at_step,
    call,
    is_valid,
    make_agent,
    make_keyring,
    oathtool_code,
    reference_code,
    sealed,
    shared_step,
)
from support.authenticators import main_of

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import AccountExists, BadRequest, BadSeal, NoSuchAccount
from pki2fad.methods.agent import Agent
from pki2fad.rules.changes import Edit
from pki2fad.rules.otp import Parameters
from pki2fad.wire.messages import Request


@pytest.fixture
def agent() -> Agent:
    """Without any account."""
    return make_agent(make_keyring())


def load(agent: Agent, seed: bytes = SEED, **args: Any) -> bool:
    """Root's `load`: True if it changed something."""
    result = call(agent, "load", ROOT, NOW, sealed=sealed(seed), **args)
    assert result["account"] == args.get("account", "default")
    return bool(result["changed"])


def edit_of(agent: Agent, method: str, **args: Any) -> Edit:
    """The change that a request asks for, neither kept nor applied."""
    change = agent.handle(Request(1, method, args), ROOT, NOW).change
    assert isinstance(change, Edit)
    return change


def listed(agent: Agent) -> list[dict[str, Any]]:
    accounts = call(agent, "accounts", ROOT, NOW)
    assert isinstance(accounts, list)
    return accounts


# Parameters


def test_a_load_without_parameters_has_the_usual_ones(agent: Agent) -> None:
    assert load(agent)
    (account,) = listed(agent)
    assert (account["algorithm"], account["digits"], account["period"]) == ("SHA1", 6, 30)


@pytest.mark.parametrize(
    "parameters", [Parameters("SHA256", 7, 1), Parameters("SHA512", 8, 120), Parameters("SHA1", 6, 77)]
)
def test_a_load_takes_algorithm_digits_and_period(agent: Agent, parameters: Parameters) -> None:
    of = {"algorithm": parameters.algorithm, "digits": parameters.digits, "period": parameters.period}
    load(agent, **of)
    assert [main_of(row) for row in listed(agent)] == [
        {"account": "default", **of, "last_used": None, "offset": 0, "drift": [], "successor": None}
    ]
    assert call(agent, "generate", ROOT, NOW)["code"] == oathtool_code(SEED, NOW.wall, parameters)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"algorithm": "MD5"}, "SHA1, SHA256, SHA512"),
        ({"algorithm": "sha1"}, "SHA1, SHA256, SHA512"),
        ({"algorithm": ""}, "SHA1, SHA256, SHA512"),
        ({"digits": 5}, "6, 7 or 8"),
        ({"digits": 9}, "6, 7 or 8"),
        ({"digits": -6}, "6, 7 or 8"),
        ({"period": 0}, "1 to 120"),
        ({"period": 121}, "1 to 120"),
        ({"period": -30}, "1 to 120"),
        ({"period": 2**63}, "1 to 120"),
    ],
)
def test_a_parameter_out_of_range_is_a_bad_request_that_says_the_range(
    agent: Agent, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadRequest, match=told):
        load(agent, **wrong)
    assert listed(agent) == []


# Edits


def test_a_load_moves_nothing_until_it_is_applied(agent: Agent) -> None:
    edit = edit_of(agent, "load", sealed=sealed(SEED))
    with pytest.raises(NoSuchAccount):
        call(agent, "generate", ROOT, NOW)
    agent.memory.apply(edit)
    assert call(agent, "generate", ROOT, NOW)["code"] == CODE


def test_a_replacement_moves_nothing_until_it_is_applied(agent: Agent) -> None:
    load(agent)
    edit = edit_of(agent, "load", sealed=sealed(OTHER_SEED), replace=True)
    assert call(agent, "generate", ROOT, NOW)["code"] == CODE
    agent.memory.apply(edit)
    assert call(agent, "generate", ROOT, NOW)["code"] == reference_code(OTHER_SEED, STEP)


def test_a_removal_moves_nothing_until_it_is_applied(agent: Agent) -> None:
    load(agent)
    edit = edit_of(agent, "remove")
    assert agent.account_count == 1
    agent.memory.apply(edit)
    assert agent.account_count == 0
    with pytest.raises(NoSuchAccount):
        call(agent, "remove", ROOT, NOW)


def test_the_same_seed_again_changes_nothing(agent: Agent) -> None:
    load(agent)
    assert is_valid(agent, CODE, NOW)
    for replace in (False, True):
        answer = agent.handle(Request(1, "load", {"sealed": sealed(SEED), "replace": replace}), ROOT, NOW)
        assert (answer.result, answer.change) == (
            {"account": "default", "changed": False, "authenticators": 1},
            None,
        )
    assert not is_valid(agent, CODE, NOW)


@pytest.mark.parametrize(
    "other",
    [
        {"sealed": sealed(OTHER_SEED)},
        {"algorithm": "SHA256"},
        {"digits": 8},
        {"period": 60},
    ],
    ids=str,
)
def test_another_seed_or_other_parameters_need_replace(agent: Agent, other: dict[str, Any]) -> None:
    load(agent)
    args = {"sealed": sealed(SEED), **other}
    with pytest.raises(AccountExists, match="'default'"):
        call(agent, "load", ROOT, NOW, **args)
    with pytest.raises(AccountExists):
        call(agent, "load", ROOT, NOW, **args, replace=False)
    assert call(agent, "generate", ROOT, NOW)["code"] == CODE
    assert call(agent, "load", ROOT, NOW, **args, replace=True) == {
        "account": "default",
        "changed": True,
        "authenticators": 1,
    }
    assert call(agent, "generate", ROOT, NOW)["code"] != CODE


def test_replace_is_no_error_where_there_is_nothing_to_replace(agent: Agent) -> None:
    assert load(agent, replace=True)


# What does not open


@pytest.mark.parametrize(
    "text",
    [
        SEED.hex().upper().replace("3", "A"),
        "0" * 63,
        "0x" + "0" * 62,
        "0" * 64 + "\n",
        "0" * 18,
        "0" * 130,
        "",
        "g" * 64,
    ],
)
def test_what_opens_to_no_seed_is_a_bad_seal_and_leaves_the_account(host_key: PrivateKey, text: str) -> None:
    keyring = make_keyring({"default": SEED})
    agent = make_agent(keyring, open_sealed=lambda sealed: sealing.open_seed(host_key, sealed))
    encrypted = host_key.public_key().encrypt(text.encode(), sealing.oaep(None))
    for name in ("default", "new"):
        with pytest.raises(BadSeal) as caught:
            call(agent, "load", ROOT, NOW, account=name, sealed=encrypted, replace=True)
        assert rsakeys.fingerprint(host_key.public_key()) in str(caught.value)
    assert [account["account"] for account in listed(agent)] == ["default"]
    assert call(agent, "generate", ROOT, NOW)["code"] == CODE


def test_every_failure_to_open_has_one_text(host_key: PrivateKey, other_key: PrivateKey) -> None:
    agent = make_agent(make_keyring(), open_sealed=lambda sealed: sealing.open_seed(host_key, sealed))
    good = sealing.seal_seed(host_key.public_key(), bytearray(SEED))
    texts = set()
    for bad in (
        sealing.seal_seed(other_key.public_key(), bytearray(SEED)),
        good[:-1],
        good + b"\0",
        good[:-1] + bytes([good[-1] ^ 1]),
        b"",
        bytes(384),
        b"\xff" * 384,
    ):
        with pytest.raises(BadSeal) as caught:
            call(agent, "load", ROOT, NOW, sealed=bad)
        texts.add(str(caught.value))
    assert len(texts) == 1
    assert call(agent, "load", ROOT, NOW, sealed=good)["changed"]
    assert call(agent, "generate", ROOT, NOW)["code"] == CODE


@pytest.mark.parametrize("replace", [False, True])
def test_the_opened_seed_is_wiped_whatever_becomes_of_the_load(replace: bool) -> None:
    opened: list[bytearray] = []

    def open_sealed(_sealed: bytes) -> bytearray:
        opened.append(bytearray(OTHER_SEED))
        return opened[-1]

    agent = make_agent(make_keyring({"default": SEED}), open_sealed=open_sealed)
    answer = agent.handle(Request(1, "load", {"sealed": b"", "replace": replace}), ROOT, NOW)
    assert (answer.refusal is None) is replace
    assert opened == [bytes(len(OTHER_SEED))]


# A seed that comes back


@pytest.mark.parametrize("last", [-1, 0, 1])
def test_remove_and_load_make_no_code_good_twice(agent: Agent, last: int) -> None:
    load(agent)
    assert is_valid(agent, reference_code(SEED, STEP + last), NOW)
    call(agent, "remove", ROOT, NOW)
    load(agent)
    for offset in range(-1, last + 1):
        assert not is_valid(agent, reference_code(SEED, STEP + offset), NOW)
    assert listed(agent)[0]["last_used"] == (STEP + last) * 30
    assert is_valid(agent, reference_code(SEED, STEP + last + 1), at_step(STEP + last))


def test_a_then_b_then_a_makes_no_code_good_twice(agent: Agent) -> None:
    load(agent)
    assert is_valid(agent, CODE, NOW)
    load(agent, OTHER_SEED, replace=True)
    other = reference_code(OTHER_SEED, STEP)
    assert is_valid(agent, other, NOW)
    load(agent, SEED, replace=True)
    assert not is_valid(agent, CODE, NOW)
    load(agent, OTHER_SEED, replace=True)
    assert not is_valid(agent, other, NOW)


@pytest.mark.parametrize(("seed", "digits"), [(SEED, 8), (SEED + bytes(3), 6)], ids=["digits", "zeros"])
def test_what_makes_the_same_hmacs_brings_its_watermark(agent: Agent, seed: bytes, digits: int) -> None:
    load(agent)
    assert is_valid(agent, CODE, NOW)
    load(agent, seed, digits=digits, replace=True)
    assert not is_valid(agent, reference_code(seed, STEP, Parameters(digits=digits)), NOW)
    assert is_valid(agent, reference_code(seed, STEP + 1, Parameters(digits=digits)), NOW)


def test_the_same_seed_with_another_period_is_another_one_until_it_is_the_same_again(agent: Agent) -> None:
    load(agent)
    assert is_valid(agent, CODE, NOW)
    load(agent, period=60, replace=True)
    other = reference_code(SEED, int(NOW.wall // 60))
    assert is_valid(agent, other, NOW)
    load(agent, replace=True)
    assert not is_valid(agent, CODE, NOW)
    load(agent, period=60, replace=True)
    assert not is_valid(agent, other, NOW)


def test_a_seed_that_comes_back_under_another_name_brings_its_watermark(agent: Agent) -> None:
    load(agent, account="before")
    assert is_valid(agent, CODE, NOW, account="before")
    call(agent, "remove", ROOT, NOW, account="before")
    load(agent, account="after")
    assert not is_valid(agent, CODE, NOW, account="after")


def test_a_code_that_two_steps_share_stays_spent_after_remove_and_load(agent: Agent) -> None:
    step = shared_step()
    load(agent)
    assert is_valid(agent, reference_code(SEED, step), at_step(step - 1))
    call(agent, "remove", ROOT, at_step(step))
    load(agent)
    assert not is_valid(agent, reference_code(SEED, step + 1), at_step(step + 1))


def test_removing_it_with_an_older_watermark_does_not_lower_what_is_remembered() -> None:
    keyring = make_keyring({"a": SEED, "b": SEED})
    agent = make_agent(keyring)
    assert is_valid(agent, CODE, NOW, account="a")
    call(agent, "remove", ROOT, NOW, account="a")
    call(agent, "remove", ROOT, NOW, account="b")  # never used
    load(agent, account="c")
    assert not is_valid(agent, CODE, NOW, account="c")


# seeds.d


def test_a_provisioned_file_is_an_edit_with_the_files_digest(agent: Agent) -> None:
    edit = agent.provision("deploy", sealed(SEED), b"digest", NOW)
    assert (agent.account_count, agent.memory.file_digests) == (0, {})
    agent.memory.apply(edit)
    assert agent.memory.file_digests == {"deploy": b"digest"}
    assert is_valid(agent, CODE, NOW, account="deploy")


def test_a_provisioned_file_replaces_another_seed_and_remembers_its_watermark(agent: Agent) -> None:
    load(agent)
    assert is_valid(agent, CODE, NOW)
    agent.memory.apply(agent.provision("default", sealed(OTHER_SEED), b"1", NOW))
    assert is_valid(agent, reference_code(OTHER_SEED, STEP), NOW)
    agent.memory.apply(agent.provision("default", sealed(SEED), b"2", NOW))
    assert not is_valid(agent, CODE, NOW)


def test_a_provisioned_file_with_the_seed_that_is_there_keeps_the_account_and_its_watermark(
    agent: Agent,
) -> None:
    load(agent)
    assert is_valid(agent, CODE, NOW)
    edit = agent.provision("default", sealed(SEED), b"1", NOW)
    assert is_valid(agent, reference_code(SEED, STEP + 1), NOW)  # between the two
    agent.memory.apply(edit)
    assert not is_valid(agent, reference_code(SEED, STEP + 1), NOW)
    assert agent.memory.file_digests == {"default": b"1"}


def test_a_provisioned_file_that_does_not_open_leaves_the_account(agent: Agent) -> None:
    load(agent)
    with pytest.raises(BadSeal):
        agent.provision("default", b"nonsense", b"1", NOW)
    assert agent.memory.file_digests == {}
    assert call(agent, "generate", ROOT, at(NOW.wall))["code"] == CODE

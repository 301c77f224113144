"""Seeds of 80 to 127 bits load only where that is asked for: RFC 4226 section 4 asks for 128."""

import pytest
from support.agents import ROOT, SEED, at_step, call, is_valid, make_agent, make_keyring, oathtool_code

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.errors import BadSeal
from pki2fad.methods.agent import Agent

NOW = at_step(50_000_000)


@pytest.fixture
def agent(host_key: PrivateKey) -> Agent:
    """One that opens what is sealed to the host's key."""
    return make_agent(make_keyring(), open_sealed=lambda sealed: sealing.open_seed(host_key, sealed))


def sealed(key: PrivateKey, size: int) -> bytes:
    """A seed of so many bytes."""
    return sealing.seal_seed(key.public_key(), bytearray(SEED * 2)[:size])


@pytest.mark.parametrize("size", range(10, 16))
def test_a_short_seed_needs_short_and_then_makes_oathtools_codes(
    agent: Agent, host_key: PrivateKey, size: int
) -> None:
    load = {"sealed": sealed(host_key, size)}
    for more in ({}, {"short": False}, {"replace": True}):
        with pytest.raises(BadSeal, match=f"^the seed has {8 * size} bits.*load --short"):
            call(agent, "load", ROOT, NOW, **load, **more)
    assert call(agent, "accounts", ROOT, NOW) == []
    assert call(agent, "load", ROOT, NOW, **load, short=True)["changed"]
    code = oathtool_code(SEED[:size], NOW.wall)
    assert call(agent, "generate", ROOT, NOW)["code"] == code
    assert is_valid(agent, code, NOW)


def test_a_seed_of_16_bytes_is_not_short(agent: Agent, host_key: PrivateKey) -> None:
    assert call(agent, "load", ROOT, NOW, sealed=sealed(host_key, 16))["changed"]
    (row,) = call(agent, "accounts", ROOT, NOW)
    assert row["authenticators"][0]["short"] is False
    assert not call(agent, "load", ROOT, NOW, sealed=sealed(host_key, 16), short=True)["changed"]


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("digits", [0, 2, 18, 19, 21, 31, 130])
def test_what_is_no_seed_at_all_is_refused_as_ever(
    agent: Agent, host_key: PrivateKey, digits: int, *, short: bool
) -> None:
    text = host_key.public_key().encrypt(b"a" * digits, sealing.oaep(None))
    with pytest.raises(BadSeal) as caught:
        call(agent, "load", ROOT, NOW, sealed=text, short=short)
    assert str(caught.value) == str(sealing.not_opened(host_key))


def test_a_short_seed_for_another_key_is_refused_as_ever(
    agent: Agent, host_key: PrivateKey, other_key: PrivateKey
) -> None:
    with pytest.raises(BadSeal) as caught:
        call(agent, "load", ROOT, NOW, sealed=sealed(other_key, 10))
    assert rsakeys.fingerprint(host_key.public_key()) in str(caught.value)
    assert "bits" not in str(caught.value)


def test_a_file_of_seeds_d_has_no_short_seed(agent: Agent, host_key: PrivateKey) -> None:
    with pytest.raises(BadSeal, match=r"^the seed has 80 bits"):
        agent.provision("default", sealed(host_key, 10), b"digest", NOW)

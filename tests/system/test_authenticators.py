"""A phone, a tablet and a token for one account, by the commands; oathtool makes their codes."""

import asyncio
import base64
import json
import time

import pytest
from support.agents import oathtool_code, oathtool_hotp
from support.daemon import Daemon, wait_until
from support.raw import Seal

from pki2fad.client import AsyncClient
from pki2fad.rules.otp import Parameters

PHONE, TABLET, TOKEN = bytes(range(20)), bytes(range(32)), bytes(range(16, 36))
EIGHT = Parameters(digits=8)
KILLS = 25


@pytest.fixture
def running(daemon: Daemon, seal: Seal) -> Daemon:
    """A daemon with an account that has a phone."""
    daemon.start()
    with daemon.client() as client:
        client.load(seal(PHONE), "ann", digits=8)
    return daemon


def sealed_file(daemon: Daemon, name: str, sealed: bytes) -> str:
    (daemon.root / name).write_bytes(base64.b64encode(sealed))
    return name


def ctl(daemon: Daemon, *arguments: str, **options: str) -> str:
    """What a command prints; it must end well."""
    done = daemon.ctl(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def verify(daemon: Daemon, code: str) -> str:
    return daemon.ctl("verify", "--account", "ann", code).stdout


def now(seed: bytes) -> str:
    return oathtool_code(seed, time.time(), EIGHT)


def test_a_tablet_is_added_used_and_left_when_the_phone_is_removed(running: Daemon, seal: Seal) -> None:
    name = sealed_file(running, "tablet.sealed", seal(TABLET))
    load = ("load", name, "--account", "ann", "--label", "tablet", "--digits", "8")
    assert ctl(running, *load) == "loaded ann tablet; ann has 2 authenticators\n"
    assert ctl(running, *load) == "ann tablet has this seed already; ann has 2 authenticators\n"
    assert json.loads(ctl(running, *load, "--json")) == {
        "account": "ann",
        "changed": False,
        "authenticators": 2,
    }
    generated = json.loads(ctl(running, "generate", "ann", "--label", "tablet", "--json"))
    assert generated["code"] == oathtool_code(TABLET, generated["step"] * 30, EIGHT)
    assert verify(running, now(TABLET)) == "valid\n"
    assert verify(running, now(PHONE)) == "valid\n"
    wait_until(lambda: "authenticator=tablet" in running.log(), "the log does not say whose code it was")
    assert ctl(running, "remove", "ann", "--label", "main") == "removed ann main\n"
    assert verify(running, oathtool_code(PHONE, time.time() + 30, EIGHT)) == "invalid\n"
    done = running.ctl("remove", "ann", "--label", "tablet")
    assert (done.returncode, "is the last authenticator of account 'ann'" in done.stderr) == (6, True)
    (row,) = json.loads(ctl(running, "accounts", "an*", "--json"))
    assert [one["label"] for one in row["authenticators"]] == ["tablet"]
    assert ctl(running, "accounts").startswith(
        "ann\n  tablet  SHA1, 8 digits, 30 s, codes spent: up to that of "
    )


def test_a_token_is_loaded_used_and_followed(running: Daemon, seal: Seal) -> None:
    name = sealed_file(running, "token.sealed", seal(TOKEN))
    load = ("load", name, "--account", "ann", "--label", "token", "--kind", "hotp", "--digits", "8")
    assert ctl(running, *load, "--counter", "17") == "loaded ann token; ann has 2 authenticators\n"
    for counter, said in ((16, "invalid"), (17, "valid"), (17, "invalid"), (21, "valid"), (60, "invalid")):
        assert verify(running, oathtool_hotp(TOKEN, counter, 8)) == f"{said}\n"
    assert "  token  SHA1, 8 digits, HOTP, next counter: 22, last used " in ctl(running, "accounts", "ann")
    codes = "\n".join(oathtool_hotp(TOKEN, counter, 8) for counter in (60, 61))
    said = ctl(running, "resync", "ann", "--label", "token", "--stdin", input=codes)
    assert said == "ann: the next counter of the token is 62\n"
    assert verify(running, oathtool_hotp(TOKEN, 62, 8)) == "valid\n"
    done = running.ctl("generate", "ann", "--label", "token")
    assert (done.returncode, "made for TOTP only" in done.stderr) == (6, True)


def test_a_second_seed_without_a_label_is_refused_with_a_hint_to_give_one(
    running: Daemon, seal: Seal
) -> None:
    done = running.ctl("load", sealed_file(running, "tablet.sealed", seal(TABLET)), "--account", "ann")
    assert done.returncode == 6
    assert "with another --label the new seed is added beside it" in done.stderr
    assert verify(running, now(PHONE)) == "valid\n"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--kind", "hotp", "--period", "30"), "has no period"),
        (("--counter", "1"), "only an authenticator of the kind hotp has a counter"),
        (("--label", "a b"), "a label has 1 to 32"),
    ],
)
def test_what_contradicts_itself_is_refused(
    running: Daemon, seal: Seal, wrong: tuple[str, ...], told: str
) -> None:
    done = running.ctl("load", sealed_file(running, "x.sealed", seal(TABLET)), "--account", "ben", *wrong)
    assert (done.returncode, told in done.stderr) == (6, True), done.stderr


def test_a_short_seed_needs_short_and_is_marked(running: Daemon, seal: Seal) -> None:
    name = sealed_file(running, "short.sealed", seal(TABLET[:10]))
    done = running.ctl("load", name, "--account", "ben")
    assert (done.returncode, done.stderr.count("the seed has 80 bits")) == (6, 1)
    assert "pki2factl load --short" in done.stderr
    assert ctl(running, "load", name, "--account", "ben", "--short") == "loaded ben\n"
    assert ctl(running, "accounts", "ben").endswith("codes spent: none, short seed\n")


def test_a_file_of_seeds_d_with_a_short_seed_is_refused_with_the_reason(daemon: Daemon, seal: Seal) -> None:
    daemon.deliver("ben", seal(TABLET[:10]))
    daemon.start()
    assert "the seed has 80 bits" in daemon.log()
    with daemon.client() as client:
        assert client.accounts() == []
        assert "the seed has 80 bits" in client.status()["trouble"][0]["reason"]


def test_a_file_of_seeds_d_is_about_main(daemon: Daemon, seal: Seal) -> None:
    daemon.start()
    with daemon.client() as client:
        client.load(seal(TABLET), "ann", label="tablet", digits=8)
    daemon.deliver("ann", seal(PHONE))
    daemon.reload()
    with daemon.client() as client:
        wait_until(lambda: len(client.accounts()[0].authenticators) == 2, "the file was not applied")
        assert [one["label"] for one in client.accounts()[0].authenticators] == ["tablet", "main"]
    assert verify(daemon, oathtool_code(PHONE, time.time())) == "valid\n"
    assert verify(daemon, now(TABLET)) == "valid\n"


def test_no_counter_is_good_again_after_a_sigkill(running: Daemon, seal: Seal) -> None:
    with running.client() as client:
        client.load(seal(TOKEN), "ann", label="token", kind="hotp", digits=8)
    for used in range(KILLS):
        with running.client() as client:
            assert client.verify(oathtool_hotp(TOKEN, used, 8), "ann")
        running.kill()
        running.start()
        with running.client() as client:
            assert not client.verify(oathtool_hotp(TOKEN, used, 8), "ann")


def test_the_asynchronous_client_has_the_same_arguments(running: Daemon, seal: Seal) -> None:
    async def use() -> None:
        async with AsyncClient(str(running.socket)) as client:
            assert await client.load(seal(TOKEN), "ann", label="token", kind="hotp", counter=5, digits=8)
            assert await client.verify(oathtool_hotp(TOKEN, 5, 8), "ann")
            codes = [oathtool_hotp(TOKEN, counter, 8) for counter in (30, 31)]
            assert await client.resync(*codes, "ann", label="token") == 32
            code = await client.generate("ann", label="main")
            assert code.code == oathtool_code(PHONE, code.step * 30, EIGHT)
            (account,) = await client.accounts("a*", limit=1)
            assert [one["label"] for one in account.authenticators] == ["main", "token"]
            await client.remove("ann", label="token")
            assert len((await client.accounts())[0].authenticators) == 1

    asyncio.run(use())

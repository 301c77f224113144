"""Several authenticators and HOTP: sealed by an issuer, backed up, and restored on another host."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support import opener, peers
from support.agents import SEED, oathtool_code
from support.daemon import Daemon, ctl
from support.preload import Clock, environment

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

SHORT = bytes(range(10))


@pytest.fixture
def running(loadable: Daemon, other_key: PrivateKey) -> Daemon:
    """A daemon, with the public key of the other host, and that host's private key for openssl."""
    (loadable.root / "other.pem").write_bytes(rsakeys.private_pem(other_key))
    return loadable


def done(command: "subprocess.CompletedProcess[str]") -> str:
    assert command.returncode == 0, command.stderr
    return command.stdout


def hotp(seed: bytes, counter: int) -> str:
    command = [peers.require("oathtool"), "--hotp", f"--counter={counter}", seed.hex()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def load_all(daemon: Daemon) -> bytes:
    """Load ann's phone, token and an old short seed, as an issuer seals them; the token's seed."""
    root = daemon.root
    done(ctl(root, "seal", "--to=host.pub.pem", "--account=ann", "--seed-stdin", "--out=1", input=SEED.hex()))
    done(daemon.ctl("load", "1"))
    token = ("--label=token", "--kind=hotp", "--counter=4", "--uri-out=uris", "--out=2")
    done(ctl(root, "seal-batch", "-", "--to=host.pub.pem", *token, input="ann\n"))
    done(daemon.ctl("load-batch", "2"))
    short = ("--account=ann", "--label=old", "--seed-stdin", "--out=3")
    refused = ctl(root, "seal", "--to=host.pub.pem", *short, input=SHORT.hex())
    assert (refused.returncode, "it has 20 hex digits" in refused.stderr) == (6, True)
    done(ctl(root, "seal", "--to=host.pub.pem", "--short", *short, input=SHORT.hex()))
    assert "loaded ann; ann has 3 authenticators" in done(daemon.ctl("load", "3"))
    uri = urlsplit((root / "uris").read_text().strip())
    assert (uri.netloc, parse_qs(uri.query)["counter"]) == ("hotp", ["4"])
    secret = parse_qs(uri.query)["secret"][0]
    return base64.b32decode(secret + "=" * (-len(secret) % 8))


def authenticators(daemon: Daemon) -> dict[str, dict[str, Any]]:
    (row,) = json.loads(done(daemon.ctl("accounts", "--json")))
    return {one["label"]: one for one in row["authenticators"]}


def test_another_host_restores_phone_and_token_and_the_token_waits_for_a_resync(
    running: Daemon, elsewhere: Daemon, clock: Clock
) -> None:
    token = load_all(running)
    with running.client() as client:
        assert client.verify(hotp(token, 5), "ann")
        done(running.ctl("backup", "--to=other.pub.pem", "all.backup"))
        assert client.verify(hotp(token, 6), "ann")
    known = authenticators(running)
    elsewhere.start(**environment(clock))
    restored = elsewhere.ctl("restore", str(running.root / "all.backup"))
    assert done(restored) == "1 account in the backup, 1 changed\nrestored ann\n"
    assert "make each active with: pki2factl resync ann --label token\n" in restored.stderr
    assert "next counter: 6, never used, inactive until resync" in done(elsewhere.ctl("accounts"))
    here = authenticators(elsewhere)
    for field in ("kind", "algorithm", "digits", "period", "made", "short"):
        assert {label: one[field] for label, one in here.items()} == {
            label: one[field] for label, one in known.items()
        }
    with elsewhere.client() as client:
        clock.set(client.status()["unavailable_until"])
        assert not client.verify(hotp(token, 6), "ann")
        assert not client.verify(hotp(token, 7), "ann")
        two = f"{hotp(token, 7)}\n{hotp(token, 8)}\n"
        found = elsewhere.ctl("resync", "ann", "--label=token", "--stdin", input=two)
        assert done(found) == "ann: the next counter of the token is 9\n"
        assert [client.verify(hotp(token, counter), "ann") for counter in (8, 9, 9)] == [False, True, False]
        assert client.verify(oathtool_code(SEED, clock.now()), "ann")
        assert client.verify(oathtool_code(SHORT, clock.now()), "ann")
    elsewhere.kill()
    elsewhere.start(**environment(clock))
    with elsewhere.client() as client:
        assert not client.verify(hotp(token, 9), "ann")
        assert client.verify(hotp(token, 10), "ann")


def test_a_backup_of_several_opens_by_its_description(running: Daemon, other_key: PrivateKey) -> None:
    token = load_all(running)
    done(running.ctl("backup", "--to=other.pub.pem", "all.backup"))
    data = (running.root / "all.backup").read_bytes()
    assert data.startswith(b"pki2fad backup 2\n")
    master, content = opener.open_backup(data, other_key, running.root / "other.pem")
    entries = {one["label"]: one for one in content["accounts"]}
    assert {label: opener.seed_of(one, master) for label, one in entries.items()} == {
        "main": SEED,
        "token": token,
        "old": SHORT,
    }
    assert (entries["token"]["kind"], entries["token"]["last_step"], entries["token"]["period"]) == (
        "hotp",
        3,
        0,
    )
    assert [one["short"] for one in content["accounts"]] == [False, False, True]


def test_a_batch_of_one_label_adds_it_and_a_hotp_batch_needs_no_period(running: Daemon) -> None:
    token = load_all(running)
    with running.client() as client:
        for counter in (4, 5):
            assert client.verify(hotp(token, counter), "ann")
        assert not client.verify(hotp(token, 3), "ann")
    refused = ctl(
        running.root,
        "seal",
        "--to=host.pub.pem",
        "--kind=hotp",
        "--period=30",
        "--seed-stdin",
        input=SEED.hex(),
    )
    assert (refused.returncode, "hotp has no period" in refused.stderr) == (6, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--label=-x"], "a label has 1 to 32"),
        (["--counter=1"], "only an authenticator of the kind hotp has a counter"),
        (["--kind=hotp", "--counter=-1"], "counter must be 0 to"),
        (["--short", "--uri-out=uri"], "no otpauth: URI for a seed of less than 112 bits"),
    ],
)
def test_what_no_authenticator_can_have_is_not_sealed(home: Path, arguments: list[str], said: str) -> None:
    text = SHORT.hex() if "--short" in arguments else SEED.hex()
    refused = ctl(home, "seal", "--to=host.pub.pem", "--seed-stdin", "--out=x", *arguments, input=text)
    assert (refused.returncode, said in refused.stderr) == (6, True)
    assert text not in refused.stderr
    batch = ctl(home, "seal-batch", "-", "--to=host.pub.pem", "--out=x", *arguments, input=f"ann {text}\n")
    assert (batch.returncode, said in batch.stderr) == (6, True)
    assert [path.name for path in home.iterdir()] == ["host.pub.pem"]

"""`pki2factl seal-batch` and `load-batch`: many accounts at once, and everything that is refused."""

import asyncio
import base64
import json
import re
import signal
import stat
import subprocess
import textwrap
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support import peers
from support.daemon import PKI2FACTL, Daemon, as_user, ctl, environment
from support.raw import RESPONSE, Listener, RawPeer

from pki2fad.client.aio import AsyncClient
from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from pki2fad.transfer import batch

SEED = "3132333435363738393031323334353637383930313233343536373839303132"
OTHER_SEED = "ab" * 32
STRANGER = 54_321


def seal(
    home: Path, text: str, *arguments: str, out: str = "all.batch"
) -> "subprocess.CompletedProcess[str]":
    """Seal what stands on standard input."""
    return ctl(home, "seal-batch", "-", "--to=host.pub.pem", f"--out={out}", *arguments, input=text)


def fingerprint(daemon: Daemon) -> str:
    return rsakeys.fingerprint(rsakeys.load_public((daemon.root / "host.pub.pem").read_bytes(), "x"))


def oathtool(seed: str, now: int, algorithm: str = "SHA1", digits: int = 6, period: int = 30) -> str:
    """The code for a Unix time; the seed is hex digits, or base32 as in a URI."""
    command = [peers.require("oathtool"), f"--totp={algorithm}", f"--digits={digits}"]
    command += [f"--time-step-size={period}s", f"--now=@{now}"]
    if re.fullmatch("[A-Z2-7]+", seed):
        command.append("--base32")
    done = subprocess.run([*command, seed], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def generated(daemon: Daemon, account: str) -> tuple[str, int]:
    """The code of now, and a Unix time in its step."""
    with daemon.client() as client:
        code = client.generate(account)
        period = next(one.period for one in client.accounts() if one.account == account)
    return code.code, code.step * period


def test_new_seeds_are_loaded_and_their_uris_make_the_same_codes(loadable: Daemon) -> None:
    names = [f"user{number:03}" for number in range(2 * batch.MOST + 1)]
    (loadable.root / "names").write_text("\n".join(names))
    done = ctl(loadable.root, "seal-batch", "names", "--to=host.pub.pem", "--out=all.batch", "--uri-out=uris")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == f"made all.batch: 401 accounts, 401 of them with new seeds, for {fingerprint(loadable)}\n"
    )
    assert stat.S_IMODE((loadable.root / "all.batch").stat().st_mode) == 0o644
    assert stat.S_IMODE((loadable.root / "uris").stat().st_mode) == 0o600
    assert len((loadable.root / "all.batch").read_text().splitlines()) == 3
    done = loadable.ctl("load-batch", "all.batch")
    assert (done.stdout, done.stderr) == ("401 accounts in the file, 401 changed\n", "")
    uris = (loadable.root / "uris").read_text().splitlines()
    assert [urlsplit(uri).path.rpartition(":")[2] for uri in uris] == names
    secrets = [parse_qs(urlsplit(uri).query)["secret"][0] for uri in uris]
    assert len(set(secrets)) == len(names)
    for name, secret in list(zip(names, secrets, strict=True))[:: batch.MOST]:
        code, now = generated(loadable, name)
        assert code == oathtool(secret, now)
    again = loadable.ctl("load-batch", "--json", "all.batch")
    assert json.loads(again.stdout) == {"accounts": 401, "changed": []}


def test_seeds_that_are_given_have_the_parameters_that_are_given(loadable: Daemon) -> None:
    text = f"\N{BYTE ORDER MARK}a {SEED}\r\n\nb\t{OTHER_SEED} \n\n"
    done = seal(loadable.root, text, "--algorithm=SHA256", "--digits=8", "--period=60", "--json")
    assert json.loads(done.stdout) == {
        "file": "all.batch",
        "accounts": 2,
        "new": 0,
        "fingerprint": fingerprint(loadable),
    }
    loaded = loadable.ctl("load-batch", input=(loadable.root / "all.batch").read_text())
    assert loaded.stdout == "2 accounts in the file, 2 changed\n"
    for name, seed in (("a", SEED), ("b", OTHER_SEED)):
        code, now = generated(loadable, name)
        assert code == oathtool(seed, now, "SHA256", 8, 60)
    printed = done.stdout + done.stderr + loaded.stdout + loaded.stderr + loadable.log()
    for seed in (SEED, OTHER_SEED):
        assert seed not in printed
        assert base64.b32encode(bytes.fromhex(seed)).decode().rstrip("=") not in printed


def test_other_seeds_are_replaced_only_when_that_is_said(loadable: Daemon) -> None:
    seal(loadable.root, f"a {SEED}\n")
    seal(loadable.root, f"a {OTHER_SEED}\nb {SEED}\n", out="other.batch")
    assert loadable.ctl("load-batch", "all.batch").returncode == 0
    refused = loadable.ctl("load-batch", "other.batch")
    assert refused.returncode == 6
    assert "account_exists: batch 1: accounts have another seed or other parameters: a\n" in refused.stderr
    assert "hint: with --replace the codes of the old seed stop working\n" in refused.stderr
    assert loadable.ctl("accounts").stdout.count("\n") == 1
    assert loadable.ctl("load-batch", "--replace", "other.batch").stdout.endswith("2 changed\n")
    code, now = generated(loadable, "a")
    assert code == oathtool(OTHER_SEED, now)


BASE32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
BAD_LINES = {
    "no name": (f"\n \xa0 {SEED}", "line 2"),
    "not a name": (f"a {SEED}\n../b {OTHER_SEED}", "line 2"),
    "a name twice": (f"a {SEED}\na {OTHER_SEED}", "line 2"),
    "too short": (f"a {SEED}\nb {OTHER_SEED[:30]}", "line 2: it has 30 hex digits"),
    "two seeds": (f"a {SEED} {OTHER_SEED}", "line 1: character 65 of 129 is a blank"),
    "a seed and no name": (f"a {SEED}\n{OTHER_SEED}", "line 2"),
    "in base32, and no name": (f"a {SEED}\n{BASE32}", "line 2"),
    "a seed in the name": (f"a {SEED}\nb_{OTHER_SEED[:58]}", "line 2"),
    "the seed first": (f"{OTHER_SEED} a", "line 1"),
    "nothing": ("", "no account"),
}


@pytest.mark.parametrize(("text", "problem"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_and_not_repeated(home: Path, text: str, problem: str) -> None:
    done = seal(home, text, "--uri-out=uris")
    assert done.returncode == 6
    assert problem in done.stderr
    assert not {SEED, OTHER_SEED, OTHER_SEED[:30], BASE32} & set(re.split(r"\W", done.stderr))
    assert [path.name for path in home.iterdir()] == ["host.pub.pem"]


def test_new_seeds_that_nobody_would_have_are_refused(home: Path) -> None:
    done = seal(home, f"a {SEED}\nb\n")
    assert done.returncode == 2
    assert "--uri-out" in done.stderr
    assert not (home / "all.batch").exists()


@pytest.mark.parametrize("out", ["missing/all.batch", "uris", "./uris"])
def test_uris_are_not_left_where_the_batch_cannot_be_written(home: Path, out: str) -> None:
    done = seal(home, "a\n", "--uri-out=uris", out=out)
    assert done.returncode == 7
    assert [path.name for path in home.iterdir()] == ["host.pub.pem"]


@pytest.mark.parametrize("present", ["all.batch", "uris"])
def test_a_file_that_is_there_is_kept_and_the_other_is_not_made(home: Path, present: str) -> None:
    (home / present).write_text("mine")
    done = seal(home, "a\n", "--uri-out=uris")
    assert done.returncode == 7
    assert "exists already" in done.stderr
    assert {path.name for path in home.iterdir()} == {"host.pub.pem", present}
    assert (home / present).read_text() == "mine"


def test_what_was_loaded_before_a_damaged_line_stays_and_can_be_loaded_again(loadable: Daemon) -> None:
    names = "".join(f"user{number:03}\n" for number in range(batch.MOST + 1))
    seal(loadable.root, names, "--uri-out=uris")
    first, second = (loadable.root / "all.batch").read_text().splitlines()
    damaged = second[:-8] + "AAAAAAA="
    done = loadable.ctl("load-batch", input=f"{first}\n{damaged}\n")
    assert done.returncode == 6
    stay = f"{batch.MOST} accounts before it stay loaded"
    assert f"bad_seal: batch 2: this is damaged or cut short; {stay}\n" in done.stderr
    done = loadable.ctl("load-batch", "all.batch")
    assert done.stdout == f"{batch.MOST + 1} accounts in the file, 1 changed\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the input has no batch"),
        ("#\n", "batch 1: this is not base64\n"),
        ("AAAA\n", "batch 1: this is not a batch of pki2fad\n"),
    ],
)
def test_what_is_no_batch_is_refused(loadable: Daemon, text: str, problem: str) -> None:
    done = loadable.ctl("load-batch", input=text)
    assert done.returncode == 6
    assert problem in done.stderr
    assert loadable.ctl("accounts").stdout == ""


def test_a_file_of_which_a_line_is_no_base64_changes_nothing(loadable: Daemon) -> None:
    seal(loadable.root, f"a {SEED}\n")
    text = (loadable.root / "all.batch").read_text()
    done = loadable.ctl("load-batch", input=f"{text}{text[:-3]}\n")
    assert (done.returncode, "batch 2: this is not base64\n" in done.stderr) == (6, True)
    assert loadable.ctl("accounts").stdout == ""


@pytest.mark.parametrize(("width", "end"), [(64, "\n"), (76, "\r\n")])
def test_batches_may_have_line_breaks(loadable: Daemon, width: int, end: str) -> None:
    names = "".join(f"user{number:03}\n" for number in range(batch.MOST + 1))
    seal(loadable.root, names, "--uri-out=uris")
    text = (loadable.root / "all.batch").read_text()
    wrapped = "".join(line + end for one in text.split() for line in textwrap.wrap(one, width))
    done = loadable.ctl("load-batch", input=wrapped)
    assert done.stdout == f"{batch.MOST + 1} accounts in the file, {batch.MOST + 1} changed\n"


def test_a_sealed_seed_is_no_batch_and_a_batch_no_backup(loadable: Daemon) -> None:
    seal(loadable.root, f"a {SEED}\n")
    ctl(loadable.root, "seal", "--to=host.pub.pem", "--out=one.sealed")
    for command, file in (("load-batch", "one.sealed"), ("restore", "all.batch")):
        done = loadable.ctl(command, file)
        assert (done.returncode, "bad_seal" in done.stderr) == (6, True)
    assert loadable.ctl("accounts").stdout == ""


def test_a_batch_for_another_host_names_the_key_that_is_here(loadable: Daemon, host_key: PrivateKey) -> None:
    ctl(loadable.root, "seal-batch", "-", "--to=other.pub.pem", "--out=all.batch", input=f"a {SEED}\n")
    done = loadable.ctl("load-batch", "all.batch")
    assert done.returncode == 6
    assert rsakeys.fingerprint(host_key.public_key()) in done.stderr


def test_who_administers_one_account_may_not_load_a_batch(daemon: Daemon, home: Path) -> None:
    daemon.configure(f'[[access]]\nrole = "admin"\nwho = [{STRANGER}]\naccounts = ["a"]\n')
    daemon.root.chmod(0o755)
    daemon.start()
    seal(home, f"a {SEED}\n")
    text = (home / "all.batch").read_text()
    done = daemon.ctl("load-batch", input=text, command=as_user(STRANGER))
    assert (done.returncode, "for all accounts" in done.stderr) == (4, True)
    assert daemon.ctl("accounts").stdout == ""


def test_who_interrupts_it_is_told_that_some_are_loaded(home: Path, short_path: Path) -> None:
    asked = threading.Event()

    def serve(peer: RawPeer, _number: int) -> None:
        peer.send([RESPONSE, peer.receive()[1], None, {"accounts": batch.MOST, "changed": []}])
        peer.receive()
        asked.set()
        peer.receive_bytes()

    seal(home, "".join(f"user{number}\n" for number in range(2 * batch.MOST)), "--uri-out=uris")
    with Listener(short_path / "s", serve):
        # Without coverage, which has a lock that an interrupt may leave locked.
        env = {name: value for name, value in environment(home).items() if not name.startswith("COVERAGE")}
        loading = subprocess.Popen(
            [PKI2FACTL, "--socket", str(short_path / "s"), "load-batch", str(home / "all.batch")],
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        assert asked.wait(30)
        loading.send_signal(signal.SIGINT)
        _, said = loading.communicate(timeout=30)
    assert loading.returncode == 130
    assert f"at least {batch.MOST} accounts are loaded" in said


def test_the_asynchronous_client_loads_several_at_once(loadable: Daemon) -> None:
    names = "".join(f"user{number}\n" for number in range(4 * batch.MOST))
    seal(loadable.root, names, "--uri-out=uris")
    batches = list(map(sealing.sealed_from_text, (loadable.root / "all.batch").read_bytes().split()))

    async def load() -> list[dict[str, Any]]:
        async with AsyncClient(str(loadable.socket)) as client:
            return await asyncio.gather(*(client.load_batch(one) for one in batches))

    assert [one["accounts"] for one in asyncio.run(load())] == [batch.MOST] * 4
    assert loadable.ctl("accounts").stdout.count("\n") == 4 * batch.MOST

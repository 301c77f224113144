"""`pki2factl seal` tells the host whose a seed is and how its codes are made, and `load` goes by that."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from support import peers
from support.daemon import Daemon, ctl
from support.raw import connect

from pki2fad.crypto import rsakeys
from pki2fad.crypto.rsakeys import PrivateKey

SEED = "3132333435363738393031323334353637383930313233343536373839303132"
TOLD = ("--account=ann", "--algorithm=SHA256", "--digits=8", "--period=60")


@pytest.fixture
def running(daemon: Daemon, host_key: PrivateKey) -> Daemon:
    """A daemon without accounts, and its public key."""
    (daemon.root / "host.pub.pem").write_bytes(rsakeys.public_pem(host_key.public_key()))
    return daemon.start()


def seal(home: Path, *told: str, out: str = "one.sealed") -> Path:
    """Seal SEED, with the options `told`, to a file."""
    done = ctl(home, "seal", "--to=host.pub.pem", "--seed-stdin", f"--out={out}", *told, input=SEED)
    assert done.returncode == 0, done.stderr
    return home / out


def listed(daemon: Daemon) -> dict[str, tuple[str, int, int]]:
    rows = json.loads(daemon.ctl("accounts", "--json").stdout)
    return {row["account"]: (row["algorithm"], row["digits"], row["period"]) for row in rows}


def assert_codes_are_oathtools(daemon: Daemon) -> None:
    """Those of ann, as `TOLD` says."""
    made = json.loads(daemon.ctl("generate", "ann", "--json").stdout)
    command = [peers.require("oathtool"), "--totp=SHA256", "--digits=8", "--time-step-size=60s"]
    done = subprocess.run(
        [*command, f"--now=@{made['step'] * 60}", SEED],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert made["code"] == done.stdout.strip()


def test_load_uses_what_seal_was_told(running: Daemon) -> None:
    seal(running.root, *TOLD)
    done = running.ctl("load", "one.sealed")
    assert (done.returncode, done.stdout) == (0, "loaded ann\n"), done.stderr
    assert listed(running) == {"ann": ("SHA256", 8, 60)}
    assert_codes_are_oathtools(running)
    assert "account=ann audit=added" in running.log()
    assert SEED not in running.log()


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("--account=ann", {"ann": ("SHA1", 6, 30)}),
        ("--period=60", {"default": ("SHA1", 6, 60)}),
        ("--digits=8", {"default": ("SHA1", 8, 30)}),
        ("--algorithm=SHA512", {"default": ("SHA512", 6, 30)}),
        ("--period=30", {"default": ("SHA1", 6, 30)}),
    ],
)
def test_one_thing_that_is_told_brings_the_usual_for_the_rest(
    running: Daemon, told: str, found: dict[str, tuple[str, int, int]]
) -> None:
    seal(running.root, told)
    assert running.ctl("load", "one.sealed").returncode == 0
    assert listed(running) == found


@pytest.mark.parametrize(
    ("told", "hinted"), [(("--period=60",), True), (("--period=60", "--account=ann"), False), ((), False)]
)
def test_a_seed_that_is_bound_to_default_without_a_word_says_so(
    running: Daemon, told: tuple[str, ...], hinted: bool
) -> None:
    done = ctl(running.root, "seal", "--to=host.pub.pem", "--seed-stdin", "--out=s", *told, input=SEED)
    hint = "pki2factl: hint: it is sealed for the account default; name another with --account\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "s\n", hint if hinted else "")
    for account in ("default", "other"):
        as_told = running.ctl("load", "s", "--account", account).returncode == 0
        assert as_told == (not told or account == ("ann" if len(told) > 1 else "default"))


def test_the_same_file_again_changes_nothing_and_options_that_agree_are_fine(running: Daemon) -> None:
    seal(running.root, *TOLD)
    assert json.loads(running.ctl("load", "one.sealed", *TOLD, "--json").stdout)["changed"] is True
    again = running.ctl("load", "one.sealed", "--json")
    assert json.loads(again.stdout) == {"account": "ann", "changed": False, "authenticators": 1}
    assert running.ctl("load-batch", "one.sealed").stdout == "1 account in the file, 0 changed\n"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--account=ben", "for account ann, not ben; seal it again with --account ben"),
        (
            "--account=default",
            "for account ann, not default; seal it again with --account default",
        ),
        ("--algorithm=SHA1", "for algorithm SHA256, not SHA1; seal it again with --algorithm SHA1"),
        ("--digits=6", "for digits 8, not 6; seal it again with --digits 6"),
        ("--period=30", "for period 60, not 30; seal it again with --period 30"),
    ],
)
def test_an_option_that_contradicts_the_file_is_refused(running: Daemon, option: str, said: str) -> None:
    seal(running.root, *TOLD)
    done = running.ctl("load", "one.sealed", option)
    assert (done.returncode, done.stdout) == (6, "")
    refusal, hint = done.stderr.splitlines()
    assert refusal == f"pki2factl: error: bad_request: the sealed seed is {said}"
    told, option_name = said.partition(",")[0], option.partition("=")[0]
    assert hint == f"pki2factl: hint: to load it {told}, leave out {option_name}"
    assert listed(running) == {}


def test_what_is_told_holds_for_a_successor_too(running: Daemon) -> None:
    seal(running.root, "--account=ann")
    running.ctl("load", "one.sealed")
    done = ctl(running.root, "seal", "--to=host.pub.pem", *TOLD, "--out=next.sealed", "--uri-out=uri")
    assert done.returncode == 0, done.stderr
    done = running.ctl("load", "next.sealed", "--successor")
    assert done.stdout == "loaded a successor of ann\n", done.stderr
    (row,) = json.loads(running.ctl("accounts", "--json").stdout)
    assert (row["period"], row["successor"]["period"], row["successor"]["digits"]) == (30, 60, 8)


def test_a_batch_of_several_is_for_load_batch(running: Daemon) -> None:
    text = f"a {SEED}\nb {SEED[:32]}\n"
    ctl(running.root, "seal-batch", "-", "--to=host.pub.pem", "--out=two.batch", input=text)
    done = running.ctl("load", "two.batch")
    assert done.returncode == 6
    assert "a batch of 2 accounts; load it with: pki2factl load-batch FILE" in done.stderr


def test_seeds_d_takes_it_for_the_account_that_it_is_of(running: Daemon) -> None:
    sealed = seal(running.root, *TOLD).read_bytes()
    running.seeds_dir.mkdir(exist_ok=True)
    for name in ("ann", "ben"):
        (running.seeds_dir / f"{name}.sealed").write_bytes(sealed)
    running.reload()
    assert listed(running) == {"ann": ("SHA256", 8, 60)}
    assert_codes_are_oathtools(running)
    assert "account=ben audit=refused" in running.log()


def test_the_seed_of_another_host_is_refused(running: Daemon, other_key: PrivateKey) -> None:
    current = rsakeys.load_public((running.root / "host.pub.pem").read_bytes(), "host.pub.pem")
    (running.root / "host.pub.pem").write_bytes(rsakeys.public_pem(other_key.public_key()))
    told, bare = seal(running.root, *TOLD), seal(running.root, out="bare.sealed")
    errors = {running.ctl("load", str(path)).stderr for path in (told, bare)}
    (error,) = errors
    used = rsakeys.fingerprint(current)
    assert f"this does not open to a seed: it was sealed to another key than {used}, or is damaged\n" in error


@pytest.mark.parametrize("length", [300, 500, -1])
def test_a_sealed_seed_that_is_cut_short_is_damaged_and_no_batch(running: Daemon, length: int) -> None:
    path = seal(running.root, *TOLD)
    path.write_bytes(base64.b64encode(base64.b64decode(path.read_bytes())[:length]))
    done = running.ctl("load", path.name)
    assert (done.returncode, "batch" in done.stderr) == (6, False)
    assert "bad_seal: " in done.stderr
    assert "damaged" in done.stderr


def test_a_client_that_names_what_the_seed_is_not_is_refused_on_the_wire(running: Daemon) -> None:
    sealed = base64.b64decode(seal(running.root, *TOLD).read_bytes())
    with connect(running.socket) as peer:
        code, message = peer.refusal("load", sealed=sealed, account="default")
        assert (code, "for account ann" in message) == ("bad_request", True)
        assert peer.call("load", sealed=sealed) == {"account": "ann", "changed": True, "authenticators": 1}


def test_a_name_that_no_account_can_have_is_not_sealed(running: Daemon) -> None:
    done = ctl(running.root, "seal", "--to=host.pub.pem", "--account=@ann", "--out=one.sealed")
    assert done.returncode == 6
    assert "an account name has" in done.stderr
    assert not (running.root / "one.sealed").exists()

"""What README.md and PROTOCOL.md print is what happens."""

import base64
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest
from support import peers
from support.daemon import Daemon, as_user, code_of, environment
from support.issuer import Issuer, json_of
from support.raw import Seed

from pki2fad.crypto import rsakeys
from pki2fad.errors import Throttled

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text()
PROTOCOL = (CHECKOUT / "pki2fad" / "PROTOCOL.md").read_text()


def block(label: str) -> str:
    """The fenced block behind a comment `<!-- label -->`."""
    found = re.search(rf"<!-- {label} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found is not None, label
    return found[1]


@pytest.fixture
def shell(daemon: Daemon) -> Path:
    """A directory with `.venv` in it, whose commands find a running daemon with the account default."""
    (daemon.root / ".venv").symlink_to(sys.prefix)
    (daemon.config_dir / "host.pem").unlink()
    run(f"pki2factl init --config-dir {daemon.config_dir}", daemon.root)
    daemon.start()
    return daemon.root


def run(script: str, where: Path, path: Path | None = None, command: list[str] | None = None) -> str:
    """Run it as a user would; what it prints."""
    env = environment(where, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if path is not None:
        env["PKI2FAD_SOCKET"] = str(path)
    done = subprocess.run(
        [*(command or []), "bash", "-euo", "pipefail", "-c", script],
        cwd=where,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_newcomer_gets_from_nothing_to_a_code_a_proof_and_a_verdict(short_path: Path) -> None:
    home = short_path / "home"
    command, uid = [], os.geteuid()
    if uid == 0:  # root's own places are the system's
        command, uid = as_user(4242), 4242
    home.mkdir()
    (home / ".venv").symlink_to(sys.prefix)
    (home / "program.py").write_text(block("example: python"))
    for path in (short_path, home):
        os.chown(path, uid, -1)
    script = f"""
export HOME=$PWD
git init --quiet
git -c user.name=A -c user.email=a@b.invalid commit --quiet --allow-empty --message=x
{{ {block("command: run").partition("&& .venv/bin/pip install . && ")[2].strip()} --detach; }} >started
trap 'kill $(sed -n "s/^pki2fad: pid //p" started)' EXIT
{block("example: first").replace("verify 000000", "verify 000000 || true")}
{block("example: program")}
{block("example: proof")}"""
    shown = run(script, home, command=command).splitlines()
    assert "made " in (home / "started").read_text()
    code, verdict, account, _version, accounts, *rest = shown
    program = rest[rest.index("verify: available") + 1 :]
    assert re.fullmatch(r"\d{6}", code)
    assert verdict == "invalid" or code == "000000"
    assert account.startswith("default  SHA1, 6 digits, 30 s")
    assert accounts == "accounts: 1"
    assert program[:2] == re.findall(r"print\(.*\)  # (\w+)", block("example: python"))
    assert program[-2:] == ["proof.txt", "valid"]


@pytest.mark.parametrize("label", ["python", "asyncio"])
def test_a_program_prints_what_it_says(shell: Path, label: str) -> None:
    program = block(f"example: {label}")
    expected = re.findall(r"print\(.*\)  # (\w+)", program)
    assert expected
    (shell / "program.py").write_text(program)
    assert run("python program.py", shell, shell / "socket").split() == expected


def test_seeds_are_sealed_loaded_and_succeeded_as_shown(shell: Path) -> None:
    peers.require("openssl")
    (shell / ".config").mkdir()
    (shell / ".config" / "pki2fad").symlink_to(shell / "config")
    run(block("example: seal"), shell, shell / "socket")
    assert (shell / "deploy.uri").read_text().startswith("otpauth://totp/")
    printed = run(block("example: load"), shell, shell / "socket").splitlines()
    assert printed[:2] == ["loaded deploy", "loaded other"]
    assert re.fullmatch(r"\d{6}", printed[2])
    assert printed[3:] == ["removed other"]
    printed = run(block("example: batch"), shell, shell / "socket").splitlines()
    assert printed[0].startswith("made staff.batch: 2 accounts, 2 of them with new seeds, for SHA256:")
    assert printed[1:] == ["2 accounts in the file, 2 changed"]
    printed = run(block("example: successor"), shell, shell / "socket").splitlines()
    assert "loaded a successor of deploy" in printed
    assert "; successor: SHA1, 6 digits, 30 s, until " in printed[-1]


def test_a_seed_is_requested_and_loaded_as_shown(shell: Path) -> None:
    key = rsakeys.load_private((shell / "config" / "host.pem").read_bytes(), "host.pem")
    sealed = base64.b64encode(Seed().sealed(key)).decode()
    with Issuer(json_of(status="success", encrypted_seed=sealed)) as issuer:
        script = block("example: request").replace("https://issuer.example/seed", issuer.url).strip()
        public = f"{shell}/config/host.pub.pem"
        printed = run(f"{script} --insecure-http --public-key {public}", shell, shell / "socket")
    assert printed == "loaded course\n"


def test_the_old_service_is_taken_over_as_shown(shell: Path) -> None:
    seed, log = shell / "seed.txt", shell / "last_code.txt"
    seed.write_text("0123456789abcdef" * 4)
    log.write_text("2026-01-31 12:34:00 - 2FA Code: 123456\n")
    script = block("example: migrate").replace("/data/seed.txt", str(seed))
    script = script.replace("/cron/last_code.txt", str(log))
    minute_log = shell / "log" / "codes.log"
    places = f"--public-key={shell}/config/host.pub.pem --log-to={minute_log}"
    script = re.sub("$", f" {places}", script.rstrip(), flags=re.MULTILINE)
    run("pki2factl remove default", shell, shell / "socket")
    printed = run(script, shell, shell / "socket").splitlines()
    assert printed[:2] == ["loaded default", f"continued {minute_log}"]
    assert minute_log.read_text().startswith("2026-01-31 12:34:00 - 2FA Code: 123456\n")
    assert printed[-2:] == [f"destroyed {log}", f"destroyed {seed}"]
    assert not seed.exists()


def test_a_backup_is_made_and_restored_as_shown(shell: Path) -> None:
    public = f"{shell}/config/host.pub.pem"
    script = block("example: backup").replace(" --protect", "")  # there is no terminal to ask
    run(script.replace("~/.config/pki2fad/host.pub.pem", public), shell, shell / "socket")
    run("pki2factl remove default", shell, shell / "socket")
    script = block("example: restore").rstrip() + f" --public-key {public}"
    printed = run(script, shell, shell / "socket").splitlines()
    assert printed == [
        "1 account in the backup, 1 changed",
        "restored default",
        "1 account in the backup, 0 changed",
    ]


def test_the_daemon_is_locked_and_unlocked_as_shown(shell: Path) -> None:
    assert run(block("example: lock"), shell, shell / "socket").splitlines() == ["locked", "unlocked"]


def test_who_is_locked_out_gets_in_again_as_shown(shell: Path, daemon: Daemon) -> None:
    with daemon.client() as client:
        key = rsakeys.load_private((shell / "config" / "host.pem").read_bytes(), "host.pem")
        client.load(Seed().sealed(key), "deploy")
        for _ in range(4):
            client.verify("0000000", "deploy")
        with pytest.raises(Throttled):
            client.verify("0000000", "deploy")
    text = block("example: unthrottle")
    script = text.replace("pki2factl log", f"pki2factl log --file {shell}/stderr")
    refused, account, *printed = run(script, shell, shell / "socket").splitlines()
    assert "account deploy  refused, has to wait until " in refused
    assert account == "account deploy: unknown callers wait only for their own wrong codes"
    assert printed[-1] == "unthrottled deploy"
    assert "too many wrong codes; try again at " in "\n".join(printed)


def test_the_daemon_is_watched_as_shown(shell: Path) -> None:
    text = block("example: watch")
    printed = run(text, shell, shell / "socket")
    assert "accounts: 1\n" in printed
    assert "pki2fad_accounts 1\n" in printed
    assert "  seed_loaded  " in printed
    found = openmetrics_names(printed)
    table = README.partition("| `pki2fad_…` | what |\n|---|---|\n")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)(?:\{[\w,]+\})?`", "\n".join(row.split("|")[1] for row in table.splitlines()))
    assert {f"pki2fad_{name.removesuffix('_total')}" for name in named} == found


def openmetrics_names(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))


@pytest.mark.parametrize("label", ["toml", "enroll"])
def test_the_configuration_shown_is_valid(daemon: Daemon, label: str) -> None:
    daemon.configure(block(f"example: {label}"))
    assert "valid" in run(f"pki2fad --check-config --config-dir {daemon.config_dir}", daemon.root)


def test_a_seed_is_sealed_with_openssl_as_shown(shell: Path, daemon: Daemon) -> None:
    peers.require("openssl")
    recipe = re.search(r'^ {4}(printf %s "\$HEX" .*?\| base64)$', PROTOCOL, re.DOTALL | re.MULTILINE)
    assert recipe is not None
    seed = bytes(range(32))
    (shell / "host.pub.pem").symlink_to("config/host.pub.pem")
    script = f"HEX={seed.hex()}; ({recipe[1]}) | tee config/seeds.d/b.sealed | pki2factl load --account a"
    assert run(script, shell, shell / "socket") == "loaded a\n"
    assert (shell / "config/seeds.d/b.sealed").read_text().count("\n") > 1
    daemon.reload()
    with daemon.client() as client:
        code = client.generate("b")
        assert code.code == client.generate("a").code == code_of(seed, code.step)


def test_the_exchange_in_hex_is_what_is_on_the_wire(shell: Path) -> None:
    request, response = (
        bytes.fromhex(
            "".join(re.findall(r"^ {4,}((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: {2,}|$)", part, re.MULTILINE))
        )
        for part in PROTOCOL.partition("## One exchange")[2].strip().rsplit("\n\n", 1)
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(shell / "socket"))
        connection.sendall(request)
        received = connection.recv(4096)
    assert msgpack.unpackb(request) == [0, 1, "verify", [{"code": "123456"}]]
    assert received == response or msgpack.unpackb(received)[3] == {"valid": True}

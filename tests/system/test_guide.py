"""What GUIDE.md prints is what happens."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import peers
from support.daemon import Daemon, short_directory
from support.documents import GUIDE, assert_among, assert_shown, block, run, seen
from support.issuer import Issuer, json_of
from support.raw import Seed

from pki2fad.crypto.rsakeys import load_private
from pki2fad.errors import Throttled


def example(shell: Daemon, label: str) -> str:
    """What a user sees of the commands of an example, where `host.pub.pem` is."""
    return seen(block(GUIDE, f"example: {label}"), shell.root, shell.socket)


@pytest.fixture
def another() -> Iterator[Daemon]:
    """The same on another host."""
    with short_directory() as path:
        daemon = Daemon(path)
        try:
            run(f"pki2factl init --config-dir {daemon.config_dir}; cp config/host.pub.pem .", daemon.root)
            yield daemon.start()
        finally:
            daemon.close()


def sealed(shell: Daemon) -> bytes:
    """A seed for the running daemon."""
    key = load_private((shell.config_dir / "host.pem").read_bytes(), "host.pem")
    return Seed().sealed(key)


def test_a_person_gets_an_account_and_a_second_seed_as_shown(shell: Daemon) -> None:
    assert_shown(GUIDE, "person", example(shell, "person"))
    assert (shell.root / "ann.uri").read_text().startswith("otpauth://totp/")
    assert_shown(GUIDE, "successor", example(shell, "successor"))


def test_recovery_codes_are_made_and_used_as_shown(shell: Daemon) -> None:
    example(shell, "person")
    assert_shown(GUIDE, "recovery", example(shell, "recovery"))
    codes = shell.root / "ann.codes"
    assert (len(codes.read_text().split()), codes.stat().st_mode & 0o777) == (10, 0o600)


def test_a_tablet_is_added_and_a_phone_removed_as_shown(shell: Daemon) -> None:
    example(shell, "person")
    assert_shown(GUIDE, "tablet", example(shell, "tablet"))
    assert_shown(GUIDE, "lost", example(shell, "lost"))


def test_a_token_is_added_as_shown(shell: Daemon) -> None:
    example(shell, "person")
    (shell.root / "token.hex").write_text("3132333435363738393031323334353637383930\n")
    assert_shown(GUIDE, "token", example(shell, "token"))
    with shell.client() as client:
        assert client.verify("755224", "ann")  # the first code of RFC 4226 appendix D


@pytest.mark.parametrize("shown", ["gezd gnbv gy3t qojq", "GEZDGNBVGY3TQOJQGEZDGNBVGY"])
def test_the_seed_of_a_web_site_is_loaded_as_shown(shell: Daemon, shown: str) -> None:
    (shell.root / "site.base32").write_text(shown + "\n")
    assert_shown(GUIDE, "base32", example(shell, "base32"))
    assert not list(shell.root.glob("site.[bh]*"))


def test_many_people_get_accounts_as_shown(shell: Daemon) -> None:
    assert_shown(GUIDE, "batch", example(shell, "batch"))
    assert (shell.root / "staff.uris").read_text().count("otpauth://totp/") == 2


def test_a_code_is_made_and_refused_as_shown(shell: Daemon) -> None:
    assert_shown(GUIDE, "codes", example(shell, "codes"))


def test_the_program_for_asyncio_prints_what_it_says(shell: Daemon) -> None:
    program = block(GUIDE, "example: asyncio")
    (shell.root / "program.py").write_text(program)
    assert run("python program.py", shell.root, shell.socket).split() == re.findall(
        r"print\(.*\)  # (\w+)", program
    )


def test_seeds_from_an_issuer_are_sealed_and_loaded_as_shown(shell: Daemon) -> None:
    peers.require("openssl")
    example(shell, "seal")
    assert (shell.root / "deploy.uri").read_text().startswith("otpauth://totp/")
    assert_shown(GUIDE, "load", example(shell, "load"))


def test_a_seed_is_requested_and_loaded_as_shown(shell: Daemon) -> None:
    answer = json_of(status="success", encrypted_seed=base64.b64encode(sealed(shell)).decode())
    with Issuer(answer) as issuer:
        script = block(GUIDE, "example: request").replace("https://issuer.example/seed", issuer.url).strip()
        printed = seen(f"{script} --insecure-http --public-key host.pub.pem", shell.root, shell.socket)
    assert_shown(GUIDE, "request", printed)


def test_a_proof_is_made_and_checked_as_shown(shell: Daemon) -> None:
    peers.require("git")
    identity = "-c user.name=A -c user.email=a@b.invalid"
    run(f"git init --quiet; git {identity} commit --quiet --allow-empty --message=x", shell.root)
    script = block(GUIDE, "example: proof").replace("create", "create --key config/host.pem")
    assert_shown(GUIDE, "proof", seen(script, shell.root, shell.socket))


def test_the_daemon_is_locked_and_unlocked_as_shown(shell: Daemon) -> None:
    assert_shown(GUIDE, "lock", example(shell, "lock"))


def test_the_key_is_rotated_as_shown(shell: Daemon) -> None:
    script = block(GUIDE, "example: rotate").replace("rotate-key", "rotate-key --private config/host.pem")
    assert_shown(GUIDE, "rotate", seen(script, shell.root, shell.socket))


def test_a_backup_is_made_and_restored_as_shown(shell: Daemon) -> None:
    assert_shown(GUIDE, "backup", back_up(shell))
    assert_shown(GUIDE, "restore", example(shell, "restore"))


def test_the_accounts_move_to_another_host_as_shown(shell: Daemon, another: Daemon) -> None:
    back_up(shell)
    with shell.client() as client:
        before = client.generate()
    shell.stop()
    for name in ("accounts.backup", "offline.pem"):
        shutil.copy(shell.root / name, another.root)
    script = block(GUIDE, "example: move").replace("--replace", "--replace --public-key host.pub.pem")
    assert_shown(GUIDE, "move", seen(script, another.root, another.socket))
    another.stop()
    another.start()  # which reads seeds.d again
    with another.client() as client:
        after = client.generate()
    assert after.step > before.step or after.code == before.code


def back_up(shell: Daemon) -> str:
    """Run the example; what is seen."""
    script = block(GUIDE, "example: backup").replace(" --protect", "")  # there is no terminal to ask
    return seen(script, shell.root, shell.socket)


def test_who_is_locked_out_gets_in_again_as_shown(shell: Daemon) -> None:
    with shell.client() as client:
        client.load(sealed(shell), "deploy")
        for _ in range(4):
            client.verify("0000000", "deploy")
        with pytest.raises(Throttled):
            client.verify("0000000", "deploy")
    script = block(GUIDE, "example: unthrottle").replace(
        "pki2factl log", f"pki2factl log --file {shell.stderr}"
    )
    printed = seen(script, shell.root, shell.socket)
    assert_among(GUIDE, "unthrottle", printed)
    assert "too many wrong codes; try again at " in printed
    assert "nobody waited" not in printed


def test_the_clock_is_accepted_as_shown(shell: Daemon) -> None:
    assert_shown(GUIDE, "clock", example(shell, "clock"))


def test_the_daemon_is_watched_as_shown(shell: Daemon) -> None:
    printed = example(shell, "watch")
    assert_among(GUIDE, "watch", printed)
    table = GUIDE.read_text().partition("| `pki2fad_…` | what |\n|---|---|\n")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)(?:\{[\w,]+\})?`", "\n".join(row.split("|")[1] for row in table.splitlines()))
    metrics = re.findall(r"^# TYPE (\w+) ", printed, re.MULTILINE)
    assert {f"pki2fad_{name.removesuffix('_total')}" for name in named} == set(metrics)


def test_the_old_service_is_taken_over_as_shown(shell: Daemon) -> None:
    seed, log = shell.root / "seed.txt", shell.root / "last_code.txt"
    seed.write_text("0123456789abcdef" * 4)
    log.write_text("2026-01-31 12:34:00 - 2FA Code: 123456\n")
    script = block(GUIDE, "example: migrate").replace("/data/seed.txt", str(seed))
    script = script.replace("/cron/last_code.txt", str(log))
    places = f"--public-key=host.pub.pem --log-to={shell.codes_log}"
    script = re.sub("$", f" {places}", script.rstrip(), flags=re.MULTILINE)
    run("pki2factl remove default", shell.root, shell.socket)
    assert_shown(GUIDE, "migrate", seen(script, shell.root, shell.socket))
    assert shell.codes_log.read_text().startswith("2026-01-31 12:34:00 - 2FA Code: 123456\n")
    assert not seed.exists()


@pytest.mark.parametrize("label", ["toml", "enroll", "registrar"])
def test_the_configuration_shown_is_valid(daemon: Daemon, label: str) -> None:
    daemon.configure(block(GUIDE, f"example: {label}"))
    assert "valid" in run(f"pki2fad --check-config --config-dir {daemon.config_dir}", daemon.root)


def test_every_example_with_something_shown_is_run() -> None:
    """No block is only printed: each label of the guide is named in this file."""
    here = Path(__file__).read_text()
    for kind, label in re.findall(r"<!-- (example|shown): ([\w ]+) -->", GUIDE.read_text()):
        assert f'"{label}"' in here or f'"{kind}: {label}"' in here, f"{kind}: {label}"

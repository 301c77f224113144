"""What README.md prints is what happens."""

import os
import re
import sys
from pathlib import Path

from support.daemon import Daemon, as_user
from support.documents import README, block, run


def test_a_newcomer_gets_from_nothing_to_a_code_and_a_verdict(short_path: Path) -> None:
    home = short_path / "home"
    command, uid = [], os.geteuid()
    if uid == 0:  # root's own places are the system's
        command, uid = as_user(4242), 4242
    home.mkdir()
    (home / ".venv").symlink_to(sys.prefix)
    (home / "program.py").write_text(block(README, "example: python"))
    for path in (short_path, home):
        os.chown(path, uid, -1)
    start = block(README, "command: run").partition("&& .venv/bin/pip install . && ")[2].strip()
    script = f"""
export HOME=$PWD
{{ {start} --detach; }} >started
trap 'kill $(sed -n "s/^pki2fad: pid //p" started)' EXIT
{block(README, "example: first").replace("verify 000000", "verify 000000 || true")}
.venv/bin/python program.py"""
    code, verdict, account, _version, accounts, *rest = run(script, home, command=command).splitlines()
    assert "made " in (home / "started").read_text()
    assert re.fullmatch(r"\d{6}", code)
    assert verdict == "invalid" or code == "000000"
    assert account.startswith("default  SHA1, 6 digits, 30 s")
    assert accounts == "accounts: 1"
    assert rest[rest.index("verify: available") + 1 :] == printed_by_the_program()


def test_a_program_prints_what_it_says(shell: Daemon) -> None:
    (shell.root / "program.py").write_text(block(README, "example: python"))
    assert run("python program.py", shell.root, shell.socket).split() == printed_by_the_program()


def printed_by_the_program() -> list[str]:
    found = re.findall(r"print\(.*\)  # (\w+)", block(README, "example: python"))
    assert found
    return found


def test_it_is_read_in_a_few_minutes() -> None:
    assert len(README.read_text().splitlines()) <= 150

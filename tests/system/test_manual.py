"""Man pages and completions, as real readers and shells take them."""

import argparse
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import peers
from support.daemon import BIN, PATIENCE

from pki2factl import cli
from pki2fad import __main__
from pki2fad.host import paths

SHARE = "usr/local/share"
SYSTEMD = Path(__file__).parents[2] / "systemd"
PAGES = ["man1/pki2factl.1", "man5/pki2fad.toml.5", "man8/pki2fad.8"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a system with man pages and completions."""
    root = tmp_path_factory.mktemp("root")
    subprocess.run([sys.executable, "-I", SYSTEMD / "manual.py", root], timeout=60, check=True)
    return root


def run(*command: "str | Path", home: Path, **env: str) -> str:
    """What it prints; it must end well and complain of nothing."""
    done = subprocess.run(
        command,
        # fish completes only commands that there are.
        env={"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", **env},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def words(text: str) -> str:
    return " ".join(text.split())


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_nothing_that_a_formatter_warns_of(root: Path, page: str, tmp_path: Path) -> None:
    peers.require("groff")
    peers.require("man")
    assert run("groff", "-man", "-Tutf8", "-ww", "-z", root / SHARE / "man" / page, home=tmp_path) == ""
    assert run("man", "--warnings", "-l", root / SHARE / "man" / page, home=tmp_path)


@pytest.mark.parametrize(
    ("page", "parser"), [("man8/pki2fad.8", __main__._parser()), ("man1/pki2factl.1", cli._parser([]))]
)
def test_a_page_has_every_option_and_all_help(
    root: Path, page: str, parser: argparse.ArgumentParser, tmp_path: Path
) -> None:
    peers.require("man")
    text = words(run("man", "-l", root / SHARE / "man" / page, home=tmp_path, MANWIDTH="10000"))
    for command in parsers(parser):
        for action in command._actions:
            if action.dest == "help" or isinstance(action, argparse._SubParsersAction):
                continue
            assert all(option in text for option in action.option_strings)
            assert words((action.help or "") % vars(action)) in text
        assert words(command.epilog or "") in text


def section(root: Path, page: str, title: str, home: Path) -> str:
    """A section of a page as it is shown, without indentation."""
    peers.require("man")
    text = run("man", "-l", root / SHARE / "man" / page, home=home, MANWIDTH="200")
    found = re.search(rf"^{title}\n(.*?)^[A-Z]", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no {title}"
    return textwrap.dedent(found[1]).strip()


@pytest.mark.parametrize("page", PAGES[::2])
def test_every_command_in_the_examples_of_a_page_parses(root: Path, page: str, tmp_path: Path) -> None:
    text = section(root, page, "EXAMPLES", tmp_path)
    commands = re.findall(
        r"\b(pki2factl|pki2fad) ?([^&\n]*)", "\n".join(re.findall(r"^    (.*)", text, re.MULTILINE))
    )
    assert Path(page).stem in {name for name, _ in commands}
    for name, arguments in commands:
        parser = __main__._parser() if name == "pki2fad" else cli._parser([])
        parser.parse_args(shlex.split(arguments))


def test_the_example_of_settings_is_valid(root: Path, tmp_path: Path, short_path: Path) -> None:
    settings = tmp_path / "pki2fad.toml"
    lines = re.findall(r"^    (.*)|^$", section(root, PAGES[1], "EXAMPLES", tmp_path), re.MULTILINE)
    settings.write_text("\n".join(lines))
    assert tomllib.loads(settings.read_text())["access"]
    assert "valid" in run(BIN / "pki2fad", "--check-config", "--config", settings, home=short_path)


@pytest.mark.parametrize(
    ("page", "files"),
    [
        (PAGES[0], [paths.SYSTEM_SOCKET, paths.SYSTEM_ROOT_SOCKET, "/etc/pki2fad/host.pub.pem"]),
        (PAGES[1], ["/etc/pki2fad/pki2fad.toml", "~/.config/pki2fad/pki2fad.toml"]),
        (PAGES[2], ["/etc/pki2fad/pki2fad.toml", "/var/lib/pki2fad/state.db", "/var/log/pki2fad/codes.log"]),
    ],
)
def test_a_page_names_the_files(root: Path, page: str, files: list[str], tmp_path: Path) -> None:
    named = re.findall(r"^\S+$", section(root, page, "FILES", tmp_path), re.MULTILINE)
    assert set(files) <= set(named)


def test_the_settings_have_a_page_with_the_whole_file(root: Path, tmp_path: Path) -> None:
    peers.require("man")
    shown = run("man", "-l", root / SHARE / "man" / PAGES[1], home=tmp_path, MANWIDTH="200")
    assert words((SYSTEMD / "pki2fad.toml").read_text()) in words(shown)


def test_the_same_source_makes_the_same_pages_on_any_day(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", SYSTEMD / "manual.py", tmp_path]
    subprocess.run(command, env={"SOURCE_DATE_EPOCH": "0"}, timeout=60, check=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert len(made) == 9


# What is typed, and what is among the offers.
TYPED = [
    ("pki2factl gener", "generate"),
    ("pki2factl load --succ", "--successor"),
    ("pki2factl proof cr", "create"),
    ("pki2factl clock a", "accept"),
    ("pki2fad --check", "--check-config"),
    ("pki2factl seal --to here.pu", "here.pub.pem"),
    ("pki2fad --state-dir he", "here.d"),
]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a file and a directory to be completed."""
    (tmp_path / "here.pub.pem").touch()
    (tmp_path / "here.d").mkdir()
    return tmp_path


@pytest.mark.parametrize(("typed", "offer"), TYPED)
def test_bash_completes(root: Path, here: Path, typed: str, offer: str) -> None:
    peers.require("bash")
    line = typed.split(" ")
    script = f"""
source {root / SHARE}/bash-completion/completions/{line[0]}
COMP_WORDS=({typed}) COMP_CWORD={len(line) - 1} COMP_LINE="{typed}" COMP_POINT={len(typed)}
_shtab_{line[0]} {line[0]} "{line[-1]}" "{line[-2]}"
printf '%s\\n' "${{COMPREPLY[@]}}"
complete -p {line[0]}
"""
    *offers, registered = run("bash", "--norc", "-uc", script, home=here).splitlines()
    assert offer in offers
    assert registered == f"complete -o bashdefault -F _shtab_{line[0]} {line[0]}"


@pytest.mark.parametrize(("typed", "offer"), TYPED)
def test_fish_completes(root: Path, here: Path, typed: str, offer: str) -> None:
    peers.require("fish")
    script = f"set --prepend fish_complete_path {root}/etc/fish/completions; complete --do-complete '{typed}'"
    offers = run("fish", "--command", script, home=here)
    assert offer in [line.split("\t")[0].rstrip("/") for line in offers.splitlines()]


@pytest.mark.parametrize(("typed", "offer"), TYPED)
def test_zsh_completes(root: Path, here: Path, typed: str, offer: str) -> None:
    peers.require("zsh")
    prepare = (
        f"fpath=({root / SHARE}/zsh/site-functions $fpath); autoload -U compinit; compinit -uD; PS1='rea'dy"
    )
    assert offer in typed_into_zsh(f" {prepare}\n", f"{typed}\t", offer, here)


def typed_into_zsh(prepare: str, typed: str, offer: str, home: Path) -> str:
    """What a terminal shows when this is typed, until the offer is there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execvpe("zsh", ["zsh", "-f"], {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "TERM": "dumb"})
    shown = ""
    try:
        for text, awaited in ((prepare, "ready"), (typed, re.escape(offer))):
            os.write(terminal, text.encode())
            shown, deadline = "", time.monotonic() + PATIENCE
            while (
                not re.search(awaited, shown)
                and select.select([terminal], [], [], deadline - time.monotonic())[0]
            ):
                shown += os.read(terminal, 4096).decode(errors="replace")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown

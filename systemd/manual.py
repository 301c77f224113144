"""Man pages and shell completions, from the parsers that print `--help` and from the shipped settings.

Run by `systemd/install`, with the interpreter that has the packages: manual.py ROOT. They go to the places
below ROOT where Debian's readers and shells look for what an administrator installs.
"""

import argparse
import re
import sys
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

import pki2fad.__main__
from pki2factl import cli

SETTINGS = Path(__file__).with_name("pki2fad.toml")
MANUAL = "Second-factor agent"
PAGES = ("pki2factl(1)", "pki2fad.toml(5)", "pki2fad(8)")

SHARE = Path("usr", "local", "share")
COMPLETIONS = {
    "bash": SHARE / "bash-completion" / "completions" / "{name}",
    "zsh": SHARE / "zsh" / "site-functions" / "_{name}",
    # Without XDG_DATA_DIRS fish does not look below /usr/local.
    "fish": Path("etc", "fish", "completions", "{name}.fish"),
}

_FILE = re.compile(r"FILE|PATH|.*(PUBLIC|PRIVATE).*")


def main(root: Path) -> None:
    """Write them all."""
    man = root / SHARE / "man"
    sections = {"pki2fad": 8, "pki2factl": 1}
    for parser in (pki2fad.__main__._parser(), cli._parser([])):
        _describe(parser)
        for shell, place in COMPLETIONS.items():
            _write(root / str(place).format(name=parser.prog), shtab.complete(parser, shell))
        section = sections[parser.prog]
        page = man / f"man{section}" / f"{parser.prog}.{section}"
        _write(page, _command_page(parser, section))
    _write(man / "man5" / "pki2fad.toml.5", _settings_page(SETTINGS.read_text()))


def _describe(parser: argparse.ArgumentParser) -> None:
    """Say what argparse has no words for: which arguments are files, and where commands begin."""
    for group in parser._action_groups:
        for action in group._group_actions:
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            if metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif _FILE.fullmatch(metavar):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            if isinstance(action, argparse._SubParsersAction):
                group.title = "commands"
                for command in action.choices.values():
                    _describe(command)


def _command_page(parser: argparse.ArgumentParser, section: int) -> str:
    """The page of a command. A command of it is told by its help, so its description gives way."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                command.description = command.epilog
    data = {
        "description": (parser.description or "").rstrip("."),
        "manual_section": section,
        "manual_title": MANUAL,
        "project_name": "pki2fad",
        "version": pki2fad.__version__,
    }
    page = Manpage(parser, _data=data, format="single-commands-section")
    page.date = ""  # the same source gives the same page on any day
    page.add_section("see also", "=", _see_also(f"{parser.prog}({section})"))
    return str(page)


def _settings_page(settings: str) -> str:
    """The shipped settings, with their comments, as they are."""
    text = settings.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"^(?=[.'])", r"\&", text, flags=re.MULTILINE)
    return f"""\
.TH PKI2FAD.TOML 5 "" "pki2fad {pki2fad.__version__}" "{MANUAL}"
.SH NAME
pki2fad.toml \\- settings of pki2fad
.SH DESCRIPTION
The file as it is shipped:
.PP
.EX
{text.strip()}
.EE
.SH SEE ALSO
{_see_also("pki2fad.toml(5)")}
"""


def _see_also(page: str) -> str:
    others = [re.sub(r"(.*)(\(\d\))", r".BR \1 \2", other) for other in PAGES if other != page]
    return " ,\n".join(others)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.endswith("\n") else f"{text}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

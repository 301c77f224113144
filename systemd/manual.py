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
from pki2fad.host import paths

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

_STATE, _LOG = "/var/lib/pki2fad", "/var/log/pki2fad"

# By page. The text of an example comes before its lines.
EXAMPLES = {
    "pki2factl": {
        "Make an account for ann. The URI is for her authenticator:": """\
pki2factl seal --to host.pub.pem --account ann --out ann.sealed --uri-out ann.uri
pki2factl load ann.sealed""",
        "Check a code of hers, which the command asks for:": "pki2factl verify --account ann",
        "Print a code of the account deploy:": "pki2factl generate deploy",
        "Show what the daemon decides about ann, from now on:": "pki2factl log --follow --account ann",
        "Let ann try again at once after wrong codes:": "pki2factl unthrottle ann",
        "Write all accounts to a file that only the owner of recovery.pub.pem can open:": """\
pki2factl backup --to recovery.pub.pem accounts.backup""",
        "Prove a commit to an issuer:": "pki2factl proof create --to issuer.pub.pem",
    },
    "pki2fad": {
        "Run it as yourself, in the foreground. The first command is needed once:": "pki2factl init\npki2fad",
        "Check the settings before a reload:": "pki2fad --check-config && systemctl reload pki2fad",
        "Run a second one beside it:": """\
pki2factl init --config-dir other
pki2fad --config-dir other --state-dir other/state --log-dir other/log --socket other/socket""",
    },
    "pki2fad.toml": {
        "The user daemon may print codes of the account deploy, and keys lock after an idle hour:": """\
[[access]]
role = "generate"
who = ["daemon"]
accounts = ["deploy"]

[lock]
idle = 3600""",
    },
}
_OWN = "A daemon that a user runs has these in $XDG_RUNTIME_DIR, ~/.config and ~/.local/state, below pki2fad."
FILES = {
    "pki2factl": {
        paths.SYSTEM_SOCKET: "The daemon's socket. PKI2FAD_SOCKET or --socket names another.",
        paths.SYSTEM_ROOT_SOCKET: "The socket that root uses instead.",
        f"{paths.SYSTEM_CONFIG}/{paths.PRIVATE_KEY}": "The host's private key.",
        f"{paths.SYSTEM_CONFIG}/{paths.PUBLIC_KEY}": "Its public key, to which seeds are sealed.",
    },
    "pki2fad": {
        f"{paths.SYSTEM_CONFIG}/{paths.CONFIG_FILE}": "Settings, see pki2fad.toml(5).",
        f"{paths.SYSTEM_CONFIG}/{paths.PRIVATE_KEY}": "The host's private key.",
        f"{paths.SYSTEM_CONFIG}/{paths.SEEDS_DIRECTORY}/NAME{paths.SEALED_SUFFIX}": (
            "Sealed seeds. The daemon loads them when it starts and at a reload."
        ),
        f"{_STATE}/{paths.STATE_FILE}": "Accounts, and which codes are spent.",
        f"{_LOG}/{paths.CODES_LOG}": "The minute log.",
        f"{_LOG}/{paths.DAEMON_LOG}": "The daemon's own log with --detach.",
        paths.SYSTEM_SOCKET: "The socket for all callers.",
        paths.SYSTEM_ROOT_SOCKET: "The socket for root.",
        f"/run/pki2fad/{paths.VERIFY_SOCKET}": "The socket for the group pki2fad-verify.",
    },
    "pki2fad.toml": {
        f"{paths.SYSTEM_CONFIG}/{paths.CONFIG_FILE}": "The settings of the system's daemon.",
        f"~/.config/pki2fad/{paths.CONFIG_FILE}": "Those of a daemon that a user runs.",
    },
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
    page.add_section("examples", "=", _examples(parser.prog))
    page.add_section("files", "=", f"{_files(parser.prog)}\n.PP\n{_escaped(_OWN)}")
    page.add_section("see also", "=", _see_also(f"{parser.prog}({section})"))
    return str(page)


def _settings_page(settings: str) -> str:
    """The shipped settings, with their comments, as they are."""
    return f"""\
.TH PKI2FAD.TOML 5 "" "pki2fad {pki2fad.__version__}" "{MANUAL}"
.SH NAME
pki2fad.toml \\- settings of pki2fad
.SH DESCRIPTION
The file as it is shipped:
.PP
.EX
{_escaped(settings.strip())}
.EE
.SH EXAMPLES
{_examples("pki2fad.toml")}
.SH FILES
{_files("pki2fad.toml")}
.SH SEE ALSO
{_see_also("pki2fad.toml(5)")}
"""


def _examples(page: str) -> str:
    return "\n".join(
        f".PP\n{_escaped(text)}\n.PP\n.RS 4\n.EX\n{_escaped(lines)}\n.EE\n.RE"
        for text, lines in EXAMPLES[page].items()
    )


def _files(page: str) -> str:
    return "\n".join(
        f".TP\n.I {_escaped(path)}\n{_escaped(meaning)}" for path, meaning in FILES[page].items()
    )


def _escaped(text: str) -> str:
    """The text as it is, for a formatter that takes `-` for a hyphen and a leading `.` for a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("~", r"\(ti")
    return re.sub(r"^(?=[.'])", r"\&", text, flags=re.MULTILINE)


def _see_also(page: str) -> str:
    others = [re.sub(r"(.*)(\(\d\))", r".BR \1 \2", other) for other in PAGES if other != page]
    return " ,\n".join(others)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.endswith("\n") else f"{text}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

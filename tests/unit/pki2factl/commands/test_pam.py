"""What `pki2factl pam` takes from its line, from names, and from the path of a socket."""

import argparse
import os
from pathlib import Path

import pytest
from support.peers import require

from pki2factl.commands import pam
from pki2factl.login import accountmap, password
from pki2fad.errors import UnusablePath

LINES = [
    [],
    ["--account", "deploy"],
    ["--account=deploy", "--fail-open"],
    ["--map", "/etc/pki2fad/users", "--timeout=2.5"],
    ["--suffix", "6", "--suffix=8"],
    ["--account", "a=b", "--timeout", "60"],
]
WRONG = [
    ["--help"],
    ["--account"],
    ["--account", "--fail-open"],
    ["--account", "a", "--map", "/b"],
    ["--suffix", "5"],
    ["--suffix=06"],
    ["--timeout", "0"],
    ["--timeout", "61"],
    ["--timeout", "nan"],
    ["--fail-open=yes"],
    ["--fail"],
    ["alice"],
]


def parsed(arguments: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    pam.add_arguments(parser)
    return vars(parser.parse_args(arguments))


@pytest.mark.parametrize("arguments", LINES)
def test_a_line_is_read_as_argparse_would_read_it(arguments: list[str]) -> None:
    options = pam.quick_options(arguments)
    assert vars(options) == {"socket": None, **parsed(arguments)}


@pytest.mark.parametrize("arguments", WRONG)
def test_what_is_wrong_or_asks_for_help_is_left_to_argparse(arguments: list[str]) -> None:
    assert pam.quick_options(arguments) is None
    with pytest.raises(SystemExit):
        parsed(arguments)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("# nobody\n\n", {}),
        ("alice deploy\n  bob\tops.2 \n", {"alice": "deploy", "bob": "ops.2"}),
        ("\N{BYTE ORDER MARK}alice deploy\r\n", {"alice": "deploy"}),
        ("alice", "line 1: a line has two words"),
        ("alice deploy\nalice ops\n", "line 2: alice has an account already"),
        ("\nalice @deploy\n", "line 2: @deploy is not a valid account name"),
    ],
)
def test_a_map_is_taken_as_a_whole_or_not_at_all(
    roots: Path, text: str, found: "dict[str, str] | str"
) -> None:
    file = roots / "users"
    file.write_text(text)
    file.chmod(0o644)
    if isinstance(found, dict):
        assert accountmap.read(str(file)) == found
    else:
        with pytest.raises(UnusablePath, match=found):
            accountmap.read(str(file))


@pytest.mark.parametrize("mend", ["missing", "others write", "of another", "a link"])
def test_a_map_that_others_rule_is_refused(roots: Path, mend: str) -> None:
    file = roots / "users"
    if mend != "missing":
        file.write_text("alice deploy\n")
        file.chmod(0o646 if mend == "others write" else 0o644)
        if mend == "of another":
            os.chown(file, 4711, 4711)
        elif mend == "a link":
            file = roots / "link"
            file.symlink_to(roots / "users")
    with pytest.raises(UnusablePath):
        accountmap.read(str(file))


def test_an_empty_password_and_one_of_nobody_are_never_right() -> None:
    require("setpriv")  # of a Debian with PAM's helper
    assert not password.is_right("root", b"")
    assert not password.is_right("nobody-has-this-name", b"horse")

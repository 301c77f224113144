"""What `pki2factl pam` takes from its line, from names, and from the path of a socket."""

import argparse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki2factl import accountmap, place
from pki2factl.commands import pam
from pki2fad import keyring
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


@given(st.text() | st.text("aZ0_.@-", max_size=66))
def test_names_of_accounts_are_those_of_the_daemon(name: str) -> None:
    assert accountmap.is_account(name) is keyring.is_name(name)


def test_what_only_root_can_decide_on_is_roots() -> None:
    assert place.owners("/proc/version") == {0}
    with pytest.raises(FileNotFoundError):
        place.owners("/proc/there is no such/socket")


def test_below_a_directory_that_all_may_write_nothing_is_safe(short_path: Path) -> None:
    (short_path / "there").touch()
    for name in ("there", "is not there"):
        with pytest.raises(UnusablePath, match="others than its owner may write to /tmp"):
            place.owners(str(short_path / name))


@pytest.mark.parametrize("path", ["", "socket", "/run/../socket", "./socket", "/run/./socket"])
def test_a_path_has_to_be_whole(path: str) -> None:
    with pytest.raises(UnusablePath, match="not the whole path"):
        place.owners(path)

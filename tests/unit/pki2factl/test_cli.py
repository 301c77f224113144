"""The command line as a whole: its help, and what it says of commands that do not exist."""

import re
from pathlib import Path

import pytest

from pki2factl import cli, commands

MODULES = {
    path.stem.replace("_", "-")
    for path in Path(commands.__path__[0]).glob("*.py")
    if not path.stem.startswith("_")
}


def sections(text: str) -> dict[str, str]:
    """The parts of a help text by their titles."""
    parts = re.split(r"^(\S[^\n]*):\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_help_has_every_command_in_one_group() -> None:
    found = sections(cli._parser([]).format_help())
    assert [*found] == ["codes", "accounts", "keys and seeds", "the daemon", "proofs", "options"]
    listed = [
        name for title in cli.GROUPS for name in re.findall(r"^  (\S+)", found[title], flags=re.MULTILINE)
    ]
    assert listed == [*cli.COMMANDS]
    assert sorted(listed) == sorted(MODULES)


def test_the_help_says_what_each_command_does() -> None:
    text = " ".join(cli._parser([]).format_help().split())
    for name in cli.COMMANDS:
        assert f" {name} {cli._module(name).HELP}" in text


@pytest.mark.parametrize(
    ("typed", "nearest", "another"),
    [
        (["verfy"], "verify", "generate"),
        (["genrate", "--account", "deploy"], "generate", "verify"),
        (["seal_batch", "-"], "seal-batch", "generate"),
        (["proof", "creat"], "create", "verify"),
    ],
)
def test_a_mistyped_command_gets_the_nearest_one_suggested_and_no_list(
    typed: list[str], nearest: str, another: str
) -> None:
    with pytest.raises(cli._WrongUsage, match=f"; did you mean '{nearest}'\\?$") as caught:
        cli._parser(typed).parse_args(typed)
    assert another not in str(caught.value)


def test_where_no_command_is_near_the_help_is_named() -> None:
    with pytest.raises(cli._WrongUsage, match=r"^there is no command 'xyzzy'; see pki2factl --help$"):
        cli._parser(["xyzzy"]).parse_args(["xyzzy"])


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        (["generate", "--acount", "a"], "--account"),
        (["generate", "--acount=a"], "--account"),
        (["verify", "--sdtin"], "--stdin"),
        (["--jsn", "status"], "--json"),
    ],
)
def test_a_mistyped_option_gets_the_nearest_one_suggested(typed: list[str], nearest: str) -> None:
    with pytest.raises(cli._WrongUsage, match=f"; did you mean '{nearest}'\\?$"):
        cli._parser(typed).parse_args(typed)


@pytest.mark.parametrize("typed", [["generate", "--xyzzy"], ["generate", "a", "b"], ["generate", "-x"]])
def test_where_no_option_is_near_none_is_suggested(typed: list[str]) -> None:
    with pytest.raises(cli._WrongUsage, match=r"^unrecognized arguments: [^;]*$"):
        cli._parser(typed).parse_args(typed)

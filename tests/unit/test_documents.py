"""What the documents name is there: files and headings, commands and their options."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.documents import CHECKOUT

from pki2factl import cli

# Inline `[text](target)`, and the definition `[name]: target` of a reference.
_LINK = re.compile(r"\]\(([^()\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
_REFERENCE = re.compile(r"\]\[([^\]]+)\]")
_PATH = re.compile(r"`((?:tests|systemd|pki2fad|pki2factl)/[\w./-]+)`")
_CODE = re.compile(r"^```\w*\n.*?^```|`[^`]+`", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"pki2factl (?:--socket \S+ )?([a-z][a-z-]*)([^`|;&#>)\n]*)")
_DEFINITION = re.compile(r"^\[([^\]]+)\]: ", re.MULTILINE)


def documents(where: Path = CHECKOUT) -> Iterator[Path]:
    """All documents of the checkout, but not those of environments and tools, in hidden directories."""
    for path in sorted(where.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name != "node_modules":
            yield from documents(path)
        elif path.suffix == ".md":
            yield path


every_document = pytest.mark.parametrize(
    "document", list(documents()), ids=lambda path: str(path.relative_to(CHECKOUT))
)


def prose(document: Path) -> str:
    """Its text without blocks of code, in which a bracket is no link and a `#` no heading."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        twins = sum(1 for one in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one))
        found.add(f"{slug}-{twins}" if twins else slug)
    return found


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for inline, defined in _LINK.findall(prose(document)):
        target = inline or defined
        if re.match(r"[a-z]+:", target):  # another site, which no test asks
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@every_document
def test_every_path_of_the_checkout_is_there(document: Path) -> None:
    for path in _PATH.findall(prose(document)):
        assert (CHECKOUT / path).exists(), path


@every_document
def test_every_reference_is_defined_and_every_definition_used(document: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", prose(document))
    assert set(_REFERENCE.findall(text)) == set(_DEFINITION.findall(text))


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Its commands by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def options(parser: argparse.ArgumentParser) -> set[str]:
    """All options of a command, and of the commands that it has itself."""
    own = {option for action in parser._actions for option in action.option_strings}
    return own.union(*(options(command) for command in commands(parser).values()))


@every_document
def test_every_command_has_the_options_that_are_named_with_it(document: Path) -> None:
    known = commands(cli._parser([]))
    for code in _CODE.findall(document.read_text()):
        lines = re.sub(r"\s+", " ", code) if code.count("`") == 2 else code.replace("\\\n", " ")
        for name, rest in _COMMAND.findall(lines):
            assert name in known, f"pki2factl {name}"
            named = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest))
            assert named <= options(known[name]), f"pki2factl {name}{rest}"

"""The map of the code: it names what is there, and nothing that is not."""

import re
from pathlib import Path

import pytest
from support.documents import CHECKOUT

import pki2factl
import pki2fad

TOP = Path(str(pki2fad.__file__)).parent.parent
TEXT = (Path(str(pki2fad.__file__)).parent / "ARCHITECTURE.md").read_text()
PACKAGES = sorted(
    str(init.parent.relative_to(TOP))
    for package in (pki2fad, pki2factl)
    for init in Path(str(package.__file__)).parent.glob("*/__init__.py")
)
PATHS = sorted(set(re.findall(r"`((?:pki2fad|pki2factl|tests|systemd)/[\w./-]+)`", TEXT)))


@pytest.mark.parametrize("package", PACKAGES)
def test_it_names_every_package(package: str) -> None:
    assert f"| `{package}` |" in TEXT


@pytest.mark.parametrize("path", PATHS)
def test_every_path_in_it_exists(path: str) -> None:
    assert (CHECKOUT / path).exists()

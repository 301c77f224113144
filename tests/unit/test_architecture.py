"""The map of the code names every package; `test_documents.py` sees that each path in it is there."""

from pathlib import Path

import pytest

import pki2factl
import pki2fad

TOP = Path(str(pki2fad.__file__)).parent.parent
TEXT = (Path(str(pki2fad.__file__)).parent / "ARCHITECTURE.md").read_text()
PACKAGES = sorted(
    str(init.parent.relative_to(TOP))
    for package in (pki2fad, pki2factl)
    for init in Path(str(package.__file__)).parent.glob("*/__init__.py")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_it_names_every_package(package: str) -> None:
    assert f"| `{package}` |" in TEXT

"""The wheel: what is in it, and that its commands run by themselves."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import peers
from support.daemon import PKI2FACTL, PKI2FAD, environment
from support.documents import CHECKOUT

import pki2fad

pytestmark = pytest.mark.slow  # whole installs

SOURCES = ("pki2fad", "pki2factl", "pyproject.toml", "README.md", "LICENSE", ".gitignore")


def pip(*arguments: str, where: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / name, source / name)
    done = pip("wheel", "--no-deps", "--wheel-dir", "dist", ".", where=source)
    if "hatchling" in done.stderr and done.returncode != 0:
        peers.missing("hatchling, from a package index that pip can reach")
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A directory with the wheel in it, and nothing else."""
    target = wheel.parent / "installed"
    done = pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel), where=wheel.parent)
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_has_every_module_of_both_packages(wheel: Path) -> None:
    modules = {
        str(path.relative_to(CHECKOUT))
        for package in ("pki2fad", "pki2factl")
        for path in (CHECKOUT / package).rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    with zipfile.ZipFile(wheel) as archive:
        assert modules <= set(archive.namelist())


@pytest.mark.parametrize("name", ["pki2fad/py.typed", "pki2fad/PROTOCOL.md", "pki2factl/GUIDE.md"])
def test_the_wheel_has_what_is_no_module(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(name) == (CHECKOUT / name).read_bytes()


def test_the_wheel_has_nothing_beside_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {"pki2fad", "pki2factl", f"pki2fad-{pki2fad.__version__}.dist-info"}


@pytest.mark.parametrize("command", ["pki2fad", "pki2factl"])
def test_the_commands_of_the_wheel_run(installed: Path, command: str) -> None:
    done = subprocess.run(
        [installed / "bin" / command, "--version"],
        env=environment(installed, PYTHONPATH=str(installed)),
        cwd=installed.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{command} {pki2fad.__version__}\n", "")


def test_the_wheel_is_what_its_commands_import(installed: Path) -> None:
    script = "import pki2fad, pki2factl; print(pki2fad.__file__, pki2factl.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=environment(installed, PYTHONPATH=str(installed)),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == [
        f"{installed}{os.sep}{package}{os.sep}__init__.py" for package in ("pki2fad", "pki2factl")
    ]


@pytest.mark.parametrize("command", [PKI2FAD, PKI2FACTL])
def test_the_installed_commands_do_not_import_from_the_working_directory(
    command: str, tmp_path: Path
) -> None:
    for package in ("pki2fad", "pki2factl", "msgpack", "socket"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('this is not the installed one')")
    done = subprocess.run(
        [command, "--version"],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

"""A booted host with a clone of the sources, on which nothing is installed yet."""

import fcntl
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Self

from support import peers
from support.booted import Booted
from support.documents import CHECKOUT

SOURCES = ("pki2fad", "pki2factl", "systemd", "pyproject.toml", "README.md", "LICENSE", ".gitignore")

# pip takes ten seconds, on a loaded machine a multiple of that.
PATIENCE = 240.0


def wheels(directory: Path) -> Path:
    """What pip needs to install a clone where there is no network; fetched once in a run."""
    place = directory / "wheels"
    with (directory / "wheels.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _fetch(directory / "fetching")
            (directory / "fetching").rename(place)
    return place


def _fetch(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)  # of a try that failed
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    needed = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["manual"],
    ]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--wheel-dir", place]
    done = subprocess.run([*command, *needed], capture_output=True, text=True, timeout=240, check=False)
    if done.returncode != 0:
        peers.missing(f"packages from an index that pip can reach: {done.stderr}")


class Cloned(Booted):
    """A booted host with a clone in /run/share/clone; pip finds packages in /run/share/wheels alone."""

    def __init__(self, packages: Path) -> None:
        super().__init__("clone")
        self._packages = packages

    def __enter__(self) -> Self:
        super().__enter__()
        shutil.copytree(self._packages, self.share / "wheels")
        self.clone = self.share / "clone"
        self.clone.mkdir()
        ignore = shutil.ignore_patterns("__pycache__")
        for name in SOURCES:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, self.clone / name, ignore=ignore)
            else:
                shutil.copy(source, self.clone)
        # This host may have had another one.
        self.sh("rm -rf /etc/pki2fad /var/lib/pki2fad /var/log/pki2fad /opt/pki2fad")
        return self

    def install(
        self, *arguments: str, check: bool = True, umask: str = "022", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run systemd/install in the clone, with these variables for pip."""
        return self._script("install", *arguments, check=check, umask=umask, **environment)

    def uninstall(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run systemd/uninstall in the clone."""
        return self._script("uninstall", *arguments, check=check)

    def _script(
        self, name: str, *arguments: str, check: bool, umask: str = "022", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        variables = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/run/share/wheels",
            "PIP_CONFIG_FILE": os.devnull,
            **environment,
        }
        pip = [f"{name}={value}" for name, value in variables.items()]
        script = 'umask "$1"; shift; cd /run/share/clone; exec "$@"'
        command = ["bash", "-euc", script, "_", umask, "env", *pip, f"./systemd/{name}", *arguments]
        with self.popen(*command) as process:
            stdout, stderr = process.communicate("", PATIENCE)
        assert not check or process.returncode == 0, f"{stdout}{stderr}"
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def install_and_start(self) -> None:
        """What a new user does: install, init, enable; the account `default` has a code then."""
        self.install()
        self.sh("pki2factl init && systemctl enable --now pki2fad.socket && pki2factl generate")

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file of the clone, as `git pull` would."""
        file = self.clone / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def ctl(self, *arguments: str) -> str:
        """What pki2factl prints for root."""
        return self.run("pki2factl", *arguments).stdout.strip()

    def state_of(self, unit: str) -> str:
        return self.run("systemctl", "is-active", unit, check=False).stdout.strip()

    def pid(self) -> str:
        """The daemon's."""
        return self.run("systemctl", "show", "--value", "--property=MainPID", "pki2fad").stdout.strip()

    def tree(self) -> list[str]:
        """What is where programs and settings go: path, kind, mode, owner, and of files size and target."""
        script = (
            "find /opt /srv /etc /usr/local/bin /usr/local/lib /usr/local/share /var/lib /var/log -xdev"
            " -type d -printf '%p %y %m %u\\n' -o -printf '%p %y %m %u %s %l\\n' | sort"
        )
        return self.sh(script).stdout.splitlines()

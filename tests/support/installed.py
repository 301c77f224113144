"""pki2fad on a booted host, installed as systemd/README.md says."""

import base64
import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from support import peers
from support.booted import Booted
from support.daemon import wait_until
from support.documents import CHECKOUT

_UNITS = CHECKOUT / "systemd"
SERVICE = "pki2fad.service"
SEED = b"a seed of the booted tests......"  # of the account default


def software(directory: Path) -> Path:
    """A layer with the software in /opt, the units and the settings; made once for all processes of a run."""
    layer = directory / "installed"
    with (directory / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            _install(directory / "installing")
            (directory / "installing").rename(layer)
    return layer


def _install(layer: Path) -> None:
    shutil.rmtree(layer, ignore_errors=True)  # of a try that failed
    place = layer / "opt" / "pki2fad"
    python = place / "bin" / "python"
    for command in (
        ["/usr/bin/python3", "-m", "venv", "--without-pip", place],
        [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            python,
            "install",
            CHECKOUT,
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode != 0:
            peers.missing(f"a virtual environment of /usr/bin/python3: {done.stderr}")
    for script in ("pki2fad", "pki2factl"):  # pip named the interpreter as it is outside
        path = place / "bin" / script
        path.write_text(path.read_text().replace(f"#!{layer}", "#!", 1))
    for pattern, target in (
        ("*.service", "etc/systemd/system"),
        ("*.socket", "etc/systemd/system"),
        ("*.timer", "etc/systemd/system"),
        ("sysusers.d/*", "etc/sysusers.d"),
        ("logrotate.d/*", "etc/logrotate.d"),
    ):
        (layer / target).mkdir(parents=True, exist_ok=True)
        for source in _UNITS.glob(pattern):
            shutil.copy(source, layer / target)
    (layer / "usr" / "local" / "bin").mkdir(parents=True)
    (layer / "usr" / "local" / "bin" / "pki2factl").symlink_to("/opt/pki2fad/bin/pki2factl")
    (layer / "etc" / "pki2fad" / "seeds.d").mkdir(parents=True)
    for path in (layer, *layer.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


class Installed(Booted):
    """A booted host with the daemon's user, and nothing enabled or started yet."""

    def prepare(self, key: PrivateKey, **seeds: bytes) -> None:
        """Make the user, and put the host's key and sealed seeds where they belong."""
        self.run("systemd-sysusers")
        self.write("/etc/pki2fad/host.pem", rsakeys.private_pem(key).decode(), mode=0o600)
        for account, seed in seeds.items():
            sealed = base64.b64encode(sealing.seal_seed(key.public_key(), bytearray(seed))).decode()
            self.write(f"/etc/pki2fad/seeds.d/{account}.sealed", sealed)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of root's in there."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode)
        file.write_text(text)
        file.chmod(mode)

    def path(self, path: str) -> Path:
        """What a path in there is outside."""
        return self.root / path.removeprefix("/")

    def drop_in(self, text: str, name: str = "test.conf") -> None:
        """What `systemctl edit pki2fad` would write."""
        self.write(f"/etc/systemd/system/{SERVICE}.d/{name}", text)
        self.run("systemctl", "daemon-reload")

    def systemctl(self, verb: str, *units: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.run("systemctl", verb, *(units or (SERVICE,)), check=check)

    def show(self, name: str, unit: str = SERVICE) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    @property
    def pid(self) -> int:
        """The daemon's, as it is in there; 0 while it does not run."""
        return int(self.show("MainPID"))

    def ctl(self, *arguments: str, check: bool = True) -> str:
        """What pki2factl prints for root."""
        return self.run("pki2factl", *arguments, check=check).stdout.strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The entries of the service, up to now."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "-u", SERVICE, "-o", "json", *matches).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def messages(self, *matches: str) -> list[str]:
        """The texts of the service's entries."""
        return [entry["MESSAGE"] for entry in self.journal(*matches)]

    def wait_until_running(self, after: int) -> None:
        """Until another process than `after` is the daemon, and ready."""
        wait_until(lambda: self.pid not in (0, after), "it did not start again")
        wait_until(lambda: self.show("ActiveState") == "active", "it did not get ready")

    def logged(self, pattern: str) -> list[str]:
        """What systemd itself has logged about the service, of the lines with the pattern."""
        self.run("journalctl", "--sync")
        arguments = ["_PID=1", f"UNIT={SERVICE}", "-o", "cat", f"--grep={pattern}"]
        return self.run("journalctl", *arguments, check=False).stdout.splitlines()

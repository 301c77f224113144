"""A host with a running systemd: the host's own, booted in namespaces over a copy-on-write view of /.

What is installed here is installed there; what is changed there is gone with it. Needs root.
"""

import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from support import peers

_SCRIPT = Path(__file__).with_name("booted.sh")

# For a loaded machine: a boot takes half a second.
_PATIENCE = 60.0

_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1): power off

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "SYSTEMD_PAGER": "",
}

# Makes the places that outlive a reboot: the changed files, and the cgroup. Ends, and cleans up, with its
# standard input, so also when the tests are killed.
_KEEPER = """
set -eu
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/cgroup"
mount -t cgroup2 cgroup2 "$1/cgroup"
mkdir "$1/cgroup/$2"
echo ready
cat >/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    find "$1/cgroup/$2" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.1
done
"""


class Booted:
    """A booted host, as a context.

    `share` is a directory of ours that it has as /run/share. The files in `layer` are laid over those of
    this host, and the variables are in the environment of its PID 1. Nothing is left of it when the context
    or the process of the tests ends, however that comes about.
    """

    def __init__(self, name: str = "booted", layer: Path | None = None, **environment: str) -> None:
        for command in ("unshare", "nsenter", "setpriv", "mount", "systemd-analyze"):
            peers.require(command)
        peers.require_root()
        self.name = f"{name}-{os.getpid()}-{secrets.token_hex(3)}"
        self._layer = layer or ""
        self._environment = [f"{name}={value}" for name, value in environment.items()]
        self._resources = contextlib.ExitStack()
        self._init = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            # /tmp is not there twice: a booted host has one of its own.
            directory = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="pb-", dir="/tmp")))
            directory.chmod(0o755)
            self._layers, self.share = directory / "layers", directory / "share"
            self._layers.mkdir()
            self.share.mkdir()
            self._console = directory / "console"
            self._keeper = subprocess.Popen(
                ["unshare", "--mount", "bash", "-c", _KEEPER, "_", str(self._layers), self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            resources.callback(self._keeper.__exit__, None, None, None)  # waits for it
            assert self._keeper.stdout is not None
            if self._keeper.stdout.readline() != b"ready\n":
                peers.missing("mount namespaces and cgroup2 (root with CAP_SYS_ADMIN)")
            self.start()
            resources.callback(self.stop)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def root(self) -> Path:
        """Its root directory, as seen from outside."""
        return Path(f"/proc/{self._init}/root")

    @property
    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._init), "--all"]

    def start(self) -> None:
        """Boot, and wait until everything is started."""
        (self.share / "notify").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, self._console.open("ab") as console:
            told.bind(str(self.share / "notify"))
            self._boot = subprocess.Popen(
                # Each of them is killed with the one that started it, and with PID 1 all that is inside.
                ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--mount=/proc/{self._keeper.pid}/ns/mnt",
                 "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child",
                 "--net", "--uts", "--ipc",
                 "bash", _SCRIPT, self._layers, self.share, self.name, self._layer, *self._environment],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
            ended = os.pidfd_open(self._boot.pid)
            try:
                while (ready := select.select([told, ended], [], [], _PATIENCE)[0]) == [told]:
                    if "READY=1" in told.recv(4096).decode().split("\n"):
                        break
            finally:
                os.close(ended)
        if ready != [told]:
            self.crash()
            raise AssertionError(f"it did not boot: {self._console.read_text()}")
        self._init = int(Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text())

    def stop(self) -> None:
        """Shut down in order."""
        if self._boot.poll() is None:
            os.kill(self._init, _POWER_OFF)
            try:
                self._boot.wait(_PATIENCE)
            finally:
                self._boot.kill()
                self._boot.wait()

    def crash(self) -> None:
        """End everything at once. What was written is kept: it is the machine's end, not the disk's."""
        self._boot.kill()
        self._boot.wait()

    def reboot(self) -> None:
        """Shut down and boot again, with the same files and another boot id."""
        self.stop()
        self.start()

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        input: str | None = None,  # noqa: A002
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in there as root."""
        done = subprocess.run(
            [*self._enter, *command],
            env=_ENVIRONMENT,
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def popen(self, *command: str | Path) -> "subprocess.Popen[str]":
        """Start a command in there as root, and do not wait; its streams are pipes."""
        return subprocess.Popen(
            [*self._enter, *command],
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sh(self, script: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a shell script in there as root."""
        return self.run("bash", "-euc", script, check=check)

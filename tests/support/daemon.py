"""A real daemon, started by the installed command, in directories of its own."""

import base64
import contextlib
import functools
import hmac
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pki2fad.client import Client
from support.peers import missing, require, require_root

BIN = Path(sys.executable).parent
PKI2FAD = str(BIN / "pki2fad")
PKI2FACTL = str(BIN / "pki2factl")

# For a loaded machine; what is waited for is an event, so nothing waits so long unless it fails.
PATIENCE = 30.0


def environment(home: Path, **more: str) -> dict[str, str]:
    """Our environment without what would point a command at another daemon."""
    unwanted = ("XDG_", "PKI2FAD_", "NOTIFY_", "LISTEN_", "WATCHDOG_", "JOURNAL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    for name in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "LOGS_DIRECTORY", "CREDENTIALS_DIRECTORY"):
        kept.pop(name, None)
    return {**kept, "HOME": str(home), **more}


class Daemon:
    """The directories of one daemon, and the daemon when it runs.

    `root` is short, since a socket's path is at most 107 bytes long.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_dir = root / "config"
        self.state_dir = root / "state"
        self.log_dir = root / "log"
        self.socket = root / "socket"
        self.codes_log = self.log_dir / "codes.log"
        self.state_file = self.state_dir / "state.db"
        self.seeds_dir = self.config_dir / "seeds.d"
        self.stdout = root / "stdout"
        self.stderr = root / "stderr"
        self.process: subprocess.Popen[bytes] | None = None
        self._notifications: socket.socket | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def arguments(self) -> list[str]:
        """The options that keep it in its own directories."""
        return [
            f"--config-dir={self.config_dir}",
            f"--state-dir={self.state_dir}",
            f"--log-dir={self.log_dir}",
            f"--socket={self.socket}",
        ]

    def install_key(self, private_pem: bytes) -> Path:
        """Put a private key where the daemon looks for it."""
        self.config_dir.mkdir(mode=0o700, exist_ok=True)
        path = self.config_dir / "host.pem"
        path.touch(mode=0o600)
        path.write_bytes(private_pem)
        return path

    def configure(self, toml: str) -> None:
        """Write the configuration file."""
        self.config_dir.mkdir(mode=0o700, exist_ok=True)
        (self.config_dir / "pki2fad.toml").write_text(toml)

    def deliver(self, account: str, sealed: bytes) -> Path:
        """Put a sealed seed into seeds.d, as configuration management does."""
        self.seeds_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = self.seeds_dir / f"{account}.sealed"
        path.write_bytes(base64.b64encode(sealed) + b"\n")
        path.chmod(0o644)
        return path

    def give_to(self, uid: int) -> None:
        """Let all its directories belong to this user, for it to run as; for root only."""
        require_root()
        for path in (self.root, *self.root.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)

    def spawn(
        self,
        *more: str,
        command: list[str] | None = None,
        pass_fds: Sequence[int] = (),
        umask: int = -1,
        **env: str,
    ) -> "subprocess.Popen[bytes]":
        """Start it and do not wait. `command` goes before, `setpriv ...` say."""
        notify = self.root / "notify"
        notify.unlink(missing_ok=True)
        self._close_notifications()
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(notify))
        notify.chmod(0o666)
        with self.stdout.open("ab") as stdout, self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*(command or []), PKI2FAD, *self.arguments(), *more],
                env=environment(self.root, **{"NOTIFY_SOCKET": str(notify), **env}),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                umask=umask,
            )
        return self.process

    def start(self, *more: str, **options: Any) -> "Daemon":
        """Start it and wait until it says READY=1; `options` are those of `spawn`."""
        self.spawn(*more, **options)
        self.wait_for("READY=1")
        return self

    def fail_to_start(self, *more: str, **options: Any) -> str:
        """Start it, which has to end with an error; returns the error."""
        before = len(self.log())
        self.spawn(*more, **options)
        assert self.wait() == 1, self.log()
        error = self.log()[before:]
        assert "pki2fad: error: " in error
        assert "Traceback" not in error
        return error

    def wait_for(self, assignment: str, patience: float = PATIENCE) -> list[str]:
        """Read notifications until one has this assignment; returns that one's lines."""
        assert self.process is not None
        assert self._notifications is not None
        deadline = time.monotonic() + patience
        with contextlib.closing(select.epoll()) as poll:
            poll.register(self._notifications, select.EPOLLIN)
            exited = os.pidfd_open(self.process.pid)
            try:
                poll.register(exited, select.EPOLLIN)
                while (left := deadline - time.monotonic()) > 0:
                    ready = [descriptor for descriptor, _ in poll.poll(left)]
                    if self._notifications.fileno() in ready:
                        lines = self._notifications.recv(4096).decode().split("\n")
                        if assignment in lines:
                            return lines
                    elif exited in ready:
                        raise AssertionError(f"the daemon ended: {self.log()}")
            finally:
                os.close(exited)
        raise AssertionError(f"no {assignment} came: {self.log()}")

    def reload(self) -> list[str]:
        """SIGHUP, and wait until it is over; returns the lines of its READY=1."""
        self.signal(signal.SIGHUP)
        self.wait_for("RELOADING=1")
        return self.wait_for("READY=1")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait until it ended; returns its exit status."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def log(self) -> str:
        """What it has written to stderr, in all its lives."""
        return self.stderr.read_text() if self.stderr.exists() else ""

    def client(self, timeout: float = PATIENCE) -> Client:
        return Client(str(self.socket), timeout)

    def ctl(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run the installed pki2factl against it."""
        return ctl(self.root, "--socket", str(self.socket), *arguments, **options)

    def close(self) -> None:
        """End it, if it runs."""
        self._close_notifications()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _close_notifications(self) -> None:
        if self._notifications is not None:
            self._notifications.close()
            self._notifications = None


def ctl(
    home: Path,
    *arguments: str,
    command: list[str] | None = None,
    env: dict[str, str] | None = None,
    **options: Any,
) -> "subprocess.CompletedProcess[str]":
    """Run the installed pki2factl; `input` is text."""
    options.setdefault(
        "stdin" if "input" not in options else "input", options.get("input", subprocess.DEVNULL)
    )
    return subprocess.run(
        [*(command or []), PKI2FACTL, *arguments],
        env=environment(home, **(env or {})),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **options,
    )


def as_user(uid: int, *, gid: int | None = None, groups: Sequence[int] = ()) -> list[str]:
    """What goes before a command for it to run as another user."""
    require_root()
    setpriv = [require("setpriv"), f"--reuid={uid}", f"--regid={uid if gid is None else gid}"]
    setpriv.append(f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups")
    if not _others_can_run_commands():
        missing(f"commands that other users may run (chmod a+rx what leads to {BIN})")
    return [*_without_coverage(), *setpriv]


def _without_coverage() -> list[str]:
    """Another user's process can leave its coverage only where everybody may write."""
    directory = os.path.dirname(os.path.abspath(os.environ.get("COVERAGE_FILE", ".coverage")))
    if "COVERAGE_PROCESS_CONFIG" not in os.environ or os.stat(directory).st_mode & stat.S_IWOTH:
        return []
    return ["env", "-u", "COVERAGE_PROCESS_CONFIG"]


@functools.cache
def _others_can_run_commands() -> bool:
    command = [require("setpriv"), "--reuid=4242", "--regid=4242", "--clear-groups", PKI2FAD, "--version"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


class Mounts:
    """A mount namespace of its own, made by a shell script; it is gone after `close`."""

    def __init__(self, script: str, *arguments: str) -> None:
        require_root()
        unshare, nsenter = require("unshare"), require("nsenter")
        self._holder = subprocess.Popen(
            [unshare, "--mount", "sh", "-euc", f"{script}\necho ready\nexec cat", "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        if said != b"ready\n":
            self.close()
            missing("mount namespaces (root with CAP_SYS_ADMIN)")
        self.enter = [nsenter, f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]
        self._root = Path(f"/proc/{self._holder.pid}/root")

    def path(self, path: "Path | str") -> Path:
        """What a path inside is called outside."""
        return self._root / str(path).lstrip("/")

    def close(self) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(PATIENCE)


def code_of(seed: bytes, step: int, digits: int = 6) -> str:
    """The code of a step as RFC 4226 section 5.3 makes it, without anything of pki2fad."""
    digest = hmac.digest(seed, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**digits:0{digits}}"


def wait_until(condition: Callable[[], object], otherwise: str, patience: float = PATIENCE) -> None:
    """Look at the condition until it holds: for what no event tells of."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)


@contextlib.contextmanager
def short_directory(parent: str = "/tmp") -> Iterator[Path]:
    """A temporary directory whose path leaves room for a socket's name, whatever TMPDIR is."""
    path = Path(tempfile.mkdtemp(prefix="p2f-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)

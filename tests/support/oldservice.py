"""The service that pki2fad replaces, as far as it left files, and a daemon that takes them over."""

import base64
import calendar
import contextlib
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pki2fad.crypto import rsakeys, sealing
from pki2fad.crypto.rsakeys import PrivateKey
from support.daemon import PATIENCE, Daemon, ctl, wait_until
from support.peers import require

SEED = "3132333435363738393031323334353637383930313233343536373839303132"
OTHER_SEED = "ab" * 32
BASE = calendar.timegm((2024, 1, 31, 12, 30, 0))  # a whole minute

# What its cron left, when it is BASE + 20: a code for this minute is there already.
OLD_LINES = """\
2024-01-31 12:28:01 - 2FA Code: 000001
Error: Seed not decrypted yet
2024-01-31 12:29:01 - 2FA Code: 000002
2024-01-31 12:30:01 - 2FA Code: 000003
"""


class OldService:
    """Its files, and the daemon, which has no account and is not started."""

    def __init__(self, daemon: Daemon, host_key: PrivateKey) -> None:
        self.daemon = daemon
        self.data = daemon.root / "data"
        self.data.mkdir()
        self.seed = self.data / "seed.txt"
        self.seed.write_text(SEED)
        self.log = self.data / "last_code.txt"
        self.log.write_text(OLD_LINES)
        self.public = daemon.root / "host.pub.pem"
        self.public.write_bytes(rsakeys.public_pem(host_key.public_key()))

    def start(self, **options: Any) -> "OldService":
        """Start the daemon, and wait until its minute log says that there is no account."""
        self.daemon.start(**options)
        wait_until(lambda: "no_such_account" in self.minute_log(), "there is no first line")
        return self

    def minute_log(self) -> str:
        """What the minute log holds now."""
        return self.daemon.codes_log.read_text() if self.daemon.codes_log.exists() else ""

    def arguments(self, *more: str, log: bool = True) -> list[str]:
        """The command, with everything that is not in its usual place."""
        given = ["migrate", f"--seed-file={self.seed}", f"--public-key={self.public}"]
        if log:
            given += [f"--log={self.log}", f"--log-to={self.daemon.codes_log}"]
        return [*given, *more]

    def migrate(
        self, *more: str, log: bool = True, through: str | None = None, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run it; whatever comes of it, no seed and no code is printed. `through` is a relay's socket."""
        home, path = self.daemon.root, through or str(self.daemon.socket)
        done = ctl(home, "--socket", path, *self.arguments(*more, log=log), **options)
        printed = (done.stdout + done.stderr).lower()
        for seed in (SEED, OTHER_SEED):
            assert seed not in printed
            assert base64.b32encode(bytes.fromhex(seed)).decode().rstrip("=").lower() not in printed
        assert not re.search(r"\b\d{6}\b", printed)
        assert "traceback" not in printed
        return done

    def migrated(self, *more: str, **options: Any) -> dict[str, Any]:
        """Run it, which has to succeed; returns what it says as JSON."""
        done = self.migrate("--json", *more, **options)
        assert done.returncode == 0, done.stderr
        data: dict[str, Any] = json.loads(done.stdout)
        return data

    def refused(self, *more: str, code: int, **options: Any) -> str:
        """Run it with --shred, which has to fail, and no file may change; returns why."""
        before = self.content()
        done = self.migrate("--shred", *more, **options)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.startswith("pki2factl: error: ")
        assert all(line.startswith("pki2factl: hint: ") for line in done.stderr.splitlines()[1:])
        assert self.content() == before
        return done.stderr

    def load(self, seed: str, *more: str) -> bool:
        """Load a seed another way than by migrating; False if it was there already."""
        public = rsakeys.load_public(self.public.read_bytes(), "")
        sealed = base64.b64encode(sealing.seal_seed(public, bytearray.fromhex(seed))).decode()
        done = self.daemon.ctl("load", "--json", *more, input=sealed)
        assert done.returncode == 0, done.stderr
        changed: bool = json.loads(done.stdout)["changed"]
        return changed

    def has_account(self) -> bool:
        """True if there is an account, of whatever name."""
        with self.daemon.client() as client:
            return bool(client.accounts())

    def assert_makes_codes_of(self, seed: str, account: str = "default") -> None:
        """The account's code is that of oathtool for the same step."""
        done = self.daemon.ctl("generate", account, "--json")
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        assert made["code"] == oathtool(seed, made["step"] * 30)

    def content(self) -> dict[str, tuple[bytes, int, int]]:
        """All old files and logs: bytes, mode, owner."""
        places = (self.data, self.daemon.log_dir)
        paths = [path for place in places for path in (place, *place.rglob("*")) if place.exists()]
        return {
            str(path): (
                path.read_bytes() if path.is_file() else b"",
                path.lstat().st_mode,
                path.lstat().st_uid,
            )
            for path in paths
        }


def oathtool(seed: str, moment: int) -> str:
    """The code of a seed in hex digits at a Unix time."""
    command = [require("oathtool"), "--totp", f"--now=@{moment}", seed]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def _pump(listening: socket.socket, daemon: Daemon, seen: Callable[[bytes], None]) -> None:
    client, _ = listening.accept()
    with client, socket.socket(socket.AF_UNIX) as served:
        served.connect(str(daemon.socket))
        while request := client.recv(65536):
            seen(request)
            served.sendall(request)
            client.sendall(served.recv(65536))


@contextlib.contextmanager
def relay(daemon: Daemon, seen: Callable[[bytes], None]) -> Iterator[str]:
    """A socket that leads one client to the daemon; each request is `seen` before it gets there."""
    path = str(daemon.root / "relay")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        thread = threading.Thread(target=_pump, args=[listening, daemon, seen])
        thread.start()
        yield path
        thread.join(PATIENCE)
        assert not thread.is_alive()


def put_link(path: Path) -> None:
    """A symbolic link to a file that would do."""
    target = path.parent / "target"
    target.write_text(f"{SEED}\n{OLD_LINES}")
    path.symlink_to(target)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "a directory": Path.mkdir,
    "a fifo": os.mkfifo,
    "a symbolic link": put_link,
}

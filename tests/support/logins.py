"""A host on which people log in: the real PAM, sshd and sudo, in a mount namespace, with what is shipped.

In it the shipped files are where they belong, /opt/pki2fad is what is tested, and /run/pki2fad/socket is the
socket of a daemon that runs outside. Nothing of it can be seen on the machine itself.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.daemon import PATIENCE, Daemon, Mounts, code_of, environment, short_directory, wait_until
from support.peers import require, require_root

SHIPPED = Path(__file__).parents[2] / "systemd"
PAM = ["/opt/pki2fad/bin/python", "-I", "-m", "pki2factl", "pam"]
PASSWORD = "correct horse"
FIRST_UID = 5100
NEVER = "0000000"  # one digit too many to be good: it counts as a wrong code all the same

# $1: where things of the host are prepared, $2: the daemon's directory, $3: the virtual environment
_SCRIPT = """
bind() { mount --bind "$1" "$2"; }
mkdir "$1/venv" "$1/dev" "$1/olddev"
bind "$3" "$1/venv"
mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/sshd /run/pki2fad && bind "$2" /run/pki2fad
mount -t tmpfs tmpfs /opt && mkdir /opt/pki2fad && bind "$1/venv" /opt/pki2fad
mount -t tmpfs tmpfs /var/log
for name in passwd shadow group pam.d sudoers; do bind "$1/etc/$name" "/etc/$name"; done
mount --rbind /dev "$1/olddev"
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for node in null zero full random urandom tty; do touch "$1/dev/$node"; bind "/dev/$node" "$1/dev/$node"; done
mkdir "$1/dev/pts" && mount --rbind /dev/pts "$1/dev/pts"
ln -s pts/ptmx "$1/dev/ptmx"; ln -s /proc/self/fd "$1/dev/fd"; ln -s "$1/log" "$1/dev/log"
mount --move "$1/dev" /dev
"""


class Host:
    """The host; `users` get an account and a seed each, a password, and a key for ssh."""

    def __init__(self, daemon: Daemon, work: Path, users: "list[str]") -> None:
        require_root()
        for peer in ("openssl", "pamtester", "sshd", "sudo"):  # and what comes in their packages
            require(peer)
        self.daemon = daemon
        self.work = work
        self.seeds = {user: f"seed of {user}".ljust(32, ".").encode() for user in users}
        self._sshd: subprocess.Popen[bytes] | None = None
        self._make_files(users)
        self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.bind(str(work / "log"))
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read_log)  # who logs waits until somebody reads
        self._reader.start()
        self.mounts = Mounts(_SCRIPT, str(work), str(daemon.root), sys.prefix)

    def _make_files(self, users: "list[str]") -> None:
        self.work.chmod(0o755)  # sshd looks for the key as the user
        etc = self.work / "etc"
        etc.mkdir()
        for name in ("passwd", "shadow", "group"):
            shutil.copy2(f"/etc/{name}", etc / name)
        shutil.copytree("/etc/pam.d", etc / "pam.d", symlinks=True)
        shutil.copytree(SHIPPED / "pam.d", etc / "pam.d", dirs_exist_ok=True)
        hashed = subprocess.run(
            [require("openssl"), "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True
        ).stdout.strip()
        with (etc / "passwd").open("a") as passwd, (etc / "shadow").open("a") as shadow:
            for uid, user in enumerate(users, FIRST_UID):
                passwd.write(f"{user}:x:{uid}:{uid}::/:/bin/sh\n")
                shadow.write(f"{user}:{hashed}:19000:0:99999:7:::\n")
        text = (etc / "shadow").read_text()  # root's password is the same
        (etc / "shadow").write_text(re.sub("^root:[^:]*:", f"root:{hashed}:", text, flags=re.MULTILINE))
        (etc / "sudoers").write_text("Defaults lecture=never\nALL ALL=(ALL:ALL) ALL\n")
        (etc / "sudoers").chmod(0o440)

    def code(self, user: str, offset: int = 0) -> str:
        """The code of a user's account, for this step or another one."""
        return code_of(self.seeds[user], int(time.time()) // 30 + offset)

    def pam(
        self, user: str, typed: "str | bytes", *options: str, command: "list[str] | None" = None, **items: Any
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run `pki2factl pam` as pam_exec does."""
        program = command or PAM
        env = {f"PAM_{name}": value for name, value in {"TYPE": "auth", "USER": user, **items}.items()}
        return subprocess.run(
            [*self.mounts.enter, *program, *options],
            input=typed.encode() if isinstance(typed, str) else typed,
            env=environment(self.work, **env),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def pamtester(self, service: str, user: str, typed: str, rhost: str = "") -> str:
        """Authenticate as a program of this PAM service would; returns what pamtester says of it."""
        command = [require("pamtester"), *(["-I", f"rhost={rhost}"] if rhost else []), service, user]
        done = subprocess.run(
            [*self.mounts.enter, *command, "authenticate", "setcred", "acct_mgmt"],
            input=f"{typed}\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert typed not in done.stdout + done.stderr
        return "in" if done.returncode == 0 else done.stderr.strip().rpartition(": ")[2]

    def _read_log(self) -> None:
        while line := self._log.recv(65536):  # an empty one is the end
            self._lines.append(line.decode())

    def log(self, expected: str) -> str:
        """What came to the log of logins so far; waits for what is expected."""
        wait_until(lambda: any(expected in one for one in [*self._lines]), f"no {expected!r} in the log")
        return "\n".join([*self._lines])

    def start_sshd(self) -> None:
        """Let sshd listen on a port of 127.0.0.1."""
        sshd, keygen = require("sshd"), require("ssh-keygen")
        for name in ("host_key", "key"):
            command = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(self.work / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = self.work / "sshd_config"
        config.write_text(
            f"Include {SHIPPED}/sshd_config.d/00-pki2fad.conf\nListenAddress 127.0.0.1:{self.port}\n"
            f"HostKey {self.work}/host_key\nAuthorizedKeysFile {self.work}/key.pub\nStrictModes no\n"
            "PidFile none\nMaxStartups 100\nMaxAuthTries 6\n"
        )
        errors = self.work / "sshd.stderr"
        with errors.open("wb") as stderr:
            self._sshd = subprocess.Popen(
                [*self.mounts.enter, sshd, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        wait_until(lambda: "Server listening" in errors.read_text(), "sshd does not listen")

    def begin_ssh(self, user: str, code: str, source: str = "127.0.0.1") -> "subprocess.Popen[str]":
        """Begin to log in with the key and a code, from an address of this machine."""
        options = {
            "BindAddress": source,
            "IdentityFile": self.work / "key",
            "IdentitiesOnly": "yes",
            "NumberOfPasswordPrompts": 1,
            "Port": self.port,
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        command = [require("sshpass"), "-e", require("ssh"), "-F", "none", f"{user}@127.0.0.1", "echo in"]
        for name, value in options.items():
            command[5:5] = ["-o", f"{name}={value}"]
        return subprocess.Popen(
            command,
            env={**os.environ, "SSHPASS": code},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ssh(self, user: str, code: str, source: str = "127.0.0.1") -> str:
        """Log in with the key and a code; returns what the client shows."""
        return shown(self.begin_ssh(user, code, source))

    def close(self) -> None:
        if self._sshd is not None:
            self._sshd.terminate()
            self._sshd.wait(PATIENCE)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._log.getsockname())
        self._reader.join(PATIENCE)
        self._log.close()
        self.mounts.close()


def shown(client: "subprocess.Popen[str]") -> str:
    """What a client of ssh shows, to its end."""
    stdout, stderr = client.communicate(timeout=PATIENCE)
    return (stdout + stderr).strip()


@contextlib.contextmanager
def host_with(daemon: Daemon, seal: "Callable[[bytes], bytes]", *users: str) -> Iterator[Host]:
    """A host with these users; its daemon is not started yet."""
    with short_directory() as work:
        host = Host(daemon, work, [*users])
        try:
            for user, seed in host.seeds.items():
                daemon.deliver(user, seal(seed))
            yield host
        finally:
            host.close()

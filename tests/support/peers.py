"""The independent peers that tests hold pki2fad against, and what happens where one is missing."""

import os
import shutil
import subprocess

import pytest

# Command -> the Debian package that has it.
PACKAGES = {
    "openssl": "openssl",
    "oathtool": "oathtool",
    "gcc": "gcc",
    "git": "git",
    "perl": "perl",
    "lua5.3": "lua5.3",
    "python3.11": "python3.11",
    "node": "nodejs",
    "npm": "npm",
    "nc": "netcat-openbsd",
    "od": "coreutils",
    "tr": "coreutils",
    "dash": "dash",
    "bash": "bash",
    "fish": "fish",
    "zsh": "zsh",
    "groff": "groff",
    "man": "man-db",
    "script": "bsdutils",
    "systemd-analyze": "systemd",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "tail": "coreutils",
    "strace": "strace",
    "logrotate": "logrotate",
    "swtpm": "swtpm",
    "swtpm_setup": "swtpm-tools",
    "setpriv": "util-linux",
    "prlimit": "util-linux",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "setsid": "util-linux",
    "pamtester": "pamtester",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshpass": "sshpass",
    "qrencode": "qrencode",
    "sudo": "sudo",
    "redis-server": "redis-server",
}


def require(command: str) -> str:
    """The path of a peer; without it the test is skipped, or fails with PKI2FA_REQUIRE_PEERS=1."""
    path = shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")
    if path is None:
        missing(f"{command} (apt-get install {PACKAGES[command]})")
    return path


def require_root() -> None:
    """Skip, or fail, unless the test runs as root."""
    if os.geteuid() != 0:
        missing("root (this test changes users or mounts)")


def missing(what: str) -> None:
    message = f"this test needs {what}"
    if os.environ.get("PKI2FA_REQUIRE_PEERS") == "1":
        pytest.fail(message)
    pytest.skip(message)


def openssl(*arguments: "str | os.PathLike[str]", data: bytes = b"") -> bytes:
    """What an openssl command prints."""
    command = [require("openssl"), *arguments]
    return subprocess.run(command, input=data, capture_output=True, timeout=30, check=True).stdout

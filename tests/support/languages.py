"""The clients that PROTOCOL.md prints, as commands."""

import contextlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.daemon import PATIENCE, environment
from support.peers import missing, require
from support.raw import Listener, RawPeer

PROTOCOL = (Path(__file__).parents[2] / "pki2fad" / "PROTOCOL.md").read_text()

# A program that was compiled with these ends with 1 where it would access what is outside of an object.
_CHECKS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def block(label: str) -> str:
    """The fenced block behind a comment `<!-- client: label -->`."""
    found = re.search(rf"<!-- client: {label} -->\n```\w+\n(.*?)```", PROTOCOL, re.DOTALL)
    assert found is not None, label
    return found[1]


class Programs:
    """The commands of the programs as printed; each is made when it is first wanted.

    With `older` they are files of that directory: the programs as an earlier version printed them.
    """

    def __init__(self, where: Path, older: Path | None = None) -> None:
        self._where = where
        self._older = older

    def __getitem__(self, label: str) -> list[str]:
        made = {
            "node": lambda: [require("node"), self._written("client.js", "node")],
            "c": lambda: [self._compiled("verify", "-O2")],
            "checked c": lambda: [self._compiled("verify-checked", *_CHECKS)],
            "shell": lambda: self._shell(require("dash")),
            "bash": lambda: self._shell(require("bash"), "--posix"),
        }
        return made[label]()

    def _shell(self, *shell: str) -> list[str]:
        """With these commands only: no printf, say, whose arguments others see."""
        nc = require("nc")
        usage = subprocess.run([nc, "-h"], capture_output=True, text=True, timeout=60, check=False)
        if "OpenBSD" not in usage.stderr:
            missing("OpenBSD's nc (apt-get install netcat-openbsd)")
        tools = self._where / "tools"
        tools.mkdir(exist_ok=True)
        for name in ("nc", "od", "tr"):
            with contextlib.suppress(FileExistsError):
                (tools / name).symlink_to(require(name))
        return ["env", f"PATH={tools}", "LC_ALL=C.UTF-8", *shell, self._written("verify.sh", "shell")]

    def _compiled(self, name: str, *options: str) -> str:
        made = self._where / name
        if not made.exists():
            options += ("-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
            command = [require("gcc"), *options, "-o", str(made), self._written("verify.c", "c")]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if "cannot find" in done.stderr:
                missing("gcc's sanitizers (libasan and libubsan)")
            assert done.returncode == 0, done.stderr
        return str(made)

    def _written(self, name: str, label: str) -> str:
        path = self._where / name
        path.write_text(block(label) if self._older is None else (self._older / name).read_text())
        return str(path)


def install_npm(where: Path, package: str) -> None:
    """A package as npm installs it."""
    require("node")
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-save", "--fetch-retries=1"]
    command = [require("npm"), "install", *options, f"--prefix={where}", package]
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode != 0:
        missing(f"npm's {package}, from a registry that npm can reach\n{done.stderr}")


def run(
    command: list[str], path: object, *arguments: str, **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """Run it where this is the daemon's socket."""
    return subprocess.run(
        [*command, *arguments],
        env=environment(Path(str(path)).parent, PKI2FAD_SOCKET=str(path)),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        **{"text": True, "errors": "replace", **options},
    )


def answering(path: Path | str, answers: Sequence[bytes], requests: list[Any]) -> Listener:
    """A server that answers each connection with the next of these, in small parts and then the rest."""

    def serve(peer: RawPeer, number: int) -> None:
        requests.append(peer.receive())
        answer = answers[number - 1]
        with contextlib.suppress(ConnectionError):  # enough was enough
            for byte in answer[:300]:
                peer.send_bytes(bytes([byte]))
            peer.send_bytes(answer[300:])

    return Listener(path, serve)

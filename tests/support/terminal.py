"""Commands of pki2factl on a pseudo-terminal, and the URIs that they show there."""

import contextlib
import os
import pty
import select
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from support.daemon import PATIENCE, PKI2FACTL, environment
from support.peers import require

CTRL_C = "\x03"
CTRL_D = "\x04"


class Terminal:
    """A command whose standard streams, and controlling terminal, are a pseudo-terminal."""

    def __init__(
        self, home: Path, *arguments: str, stdout: Path | None = None, command: Sequence[str] = ()
    ) -> None:
        self._master, slave = pty.openpty()
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, slave)
            output = slave if stdout is None else opened.enter_context(stdout.open("wb"))
            self.process = subprocess.Popen(
                [require("setsid"), "--ctty", *command, PKI2FACTL, *arguments],
                stdin=slave,
                stdout=output,
                stderr=slave,
                env=environment(home),
                cwd=home,
            )
        self.shown = ""

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read until this is shown, so many times."""
        while self.shown.count(text) < times:
            assert self._read(), f"ended before {text!r}: {self.shown}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def finish(self) -> tuple[int, str]:
        """Read to the end; the exit status, and all that was shown, with plain line ends."""
        while self._read():
            pass
        return self.process.wait(PATIENCE), self.shown.replace("\r\n", "\n")

    def close(self) -> None:
        os.close(self._master)  # which hangs up
        self.process.wait(PATIENCE)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        assert ready, f"nothing more came after: {self.shown}"
        try:
            data = os.read(self._master, 4096)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.shown += data.decode()
        return bool(data)


@contextlib.contextmanager
def terminal(
    home: Path, *arguments: str, stdout: Path | None = None, command: Sequence[str] = ()
) -> Iterator[Terminal]:
    """The command; `command` goes before it, to run it as another user say."""
    with contextlib.closing(Terminal(home, *arguments, stdout=stdout, command=command)) as opened:
        yield opened


def uris(shown: str) -> list[str]:
    """The lines that are otpauth URIs."""
    return [line for line in shown.splitlines() if line.startswith("otpauth://")]


def secret_of(uri: str) -> str:
    """The seed in a URI, in base32."""
    (secret,) = parse_qs(urlsplit(uri).query)["secret"]
    return secret

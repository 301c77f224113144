"""Detaching, and how whoever started the daemon learns that it is ready. Only python-daemon user."""

import contextlib
import os
import sys
from typing import NoReturn

from pki2fad.errors import UnusablePath
from pki2fad.host import sinks

UMASK = 0o077


class Starter:
    """Whoever started a detached daemon, waiting at the other end of a pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def ready(self, message: str) -> None:
        """Let the command print this and end with success."""
        self._tell(b"+", message)

    def failed(self, message: str) -> None:
        """Let the command end with this error."""
        self._tell(b"-", message)

    def _tell(self, outcome: bytes, message: str) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:  # it was told nothing yet
            with contextlib.suppress(BrokenPipeError), open(pipe, "wb", buffering=0) as file:
                file.write(outcome + os.fsencode(message))


def detach(log_path: str) -> Starter:
    """Go on in a detached child; the caller's own process ends here, when the child is ready.

    It exits 0, or 1 with the child's error. What the child writes to stderr from here on goes to
    `log_path`. Raises `UnusablePath` if that cannot be written.
    """
    import daemon  # only here: a start that stays in the foreground does not pay for it

    try:
        stderr = sinks.open_file(log_path)
    except OSError as error:
        raise UnusablePath(f"cannot write {log_path}: {error.strerror}") from None
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(writing)
        _await(reading)
    os.close(reading)
    with open(stderr, "w", encoding="utf-8") as log_file:
        daemon.DaemonContext(
            chroot_directory=None,
            uid=os.getuid(),
            gid=os.getgid(),
            initgroups=False,
            pidfile=None,
            working_directory="/",
            umask=UMASK,
            prevent_core=True,
            detach_process=True,
            files_preserve=[writing],
            stdin=None,
            stdout=None,
            stderr=log_file,
            signal_map={},
        ).open()
    return Starter(writing)


def _await(pipe: int) -> NoReturn:
    """Wait for the child's word, and exit as it says."""
    with open(pipe, "rb") as file:
        word = file.read()
    message = os.fsdecode(word[1:]) or "the daemon ended before it was ready"
    if word.startswith(b"+"):
        print(message, flush=True)
        sys.exit(0)
    print(f"pki2fad: error: {message}", file=sys.stderr, flush=True)
    sys.exit(1)

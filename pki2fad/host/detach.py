"""Detaches the daemon, and tells the command that started it when it is ready. Only python-daemon user."""

import contextlib
import os
import sys
from typing import NoReturn

from pki2fad.errors import UnusablePath
from pki2fad.host import sinks

UMASK = 0o077


class Starter:
    """The command that started a detached daemon. It waits at the other end of a pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def ready(self, message: str) -> None:
        """Make the command print this and exit with 0."""
        self._tell(b"+", message)

    def failed(self, message: str) -> None:
        """Make the command exit with this error."""
        self._tell(b"-", message)

    def _tell(self, outcome: bytes, message: str) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:  # the first word counts
            with contextlib.suppress(BrokenPipeError), open(pipe, "wb", buffering=0) as file:
                file.write(outcome + os.fsencode(message))


def detach(log_path: str) -> Starter:
    """Go on in a detached child. The calling process ends here, when the child is ready.

    It exits with 0, or with 1 and the child's error. The child's stderr goes to `log_path` from here on.
    Raises `UnusablePath` if that file cannot be written.
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
    """Wait for the child's word, and exit accordingly."""
    with open(pipe, "rb") as file:
        word = file.read()
    message = os.fsdecode(word[1:]) or "the daemon ended before it was ready"
    if word.startswith(b"+"):
        print(message, flush=True)
        sys.exit(0)
    print(f"pki2fad: error: {message}", file=sys.stderr, flush=True)
    sys.exit(1)

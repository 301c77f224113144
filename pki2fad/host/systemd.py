"""Talks to systemd: sockets that it passes, notifications, the watchdog.

Without systemd's variables everything here does nothing.
"""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator

import sdnotify

_FIRST_DESCRIPTOR = 3

# FileDescriptorName= is the unit's name unless it is set.
SOCKET = "pki2fad.socket"
ROOT_SOCKET = "pki2fad-root.socket"
VERIFY_SOCKET = "pki2fad-verify.socket"
CREDENTIAL_SOCKET = "pki2fad-credential.socket"

# A start with a large state takes more than systemd's 90 s. An extension lasts this many seconds, and their
# number is limited, so that a start that hangs ends.
_EXTENSION = 60.0
_EXTENSIONS = 30


def passed_sockets() -> list[tuple[int, str]]:
    """The descriptors that systemd passed, each with its name, which is "" if it has none.

    The variables are removed from the environment: they are for this process only.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    return list(zip(descriptors, itertools.chain(names, itertools.repeat("")), strict=False))


def watchdog_period() -> float | None:
    """Seconds between two pings: half of what systemd allows. None if it does not watch us."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if (
        not usec.isdecimal()
        or not int(usec)
        or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid())
    ):
        return None
    return int(usec) / 2_000_000


def own_group(file: str = "/proc/self/cgroup") -> str | None:
    """The control group (version 2) of this process, from the root on; None if it has none."""
    try:
        with open(file, encoding="utf-8", errors="replace") as groups:
            return next((line[3:].rstrip("\n") for line in groups if line.startswith("0::")), None)
    except OSError:
        return None


class Notifier:
    """Tells systemd the state of the service."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.setblocking(False)  # an unread one must not hang the loop

    def ready(self, status: str) -> None:
        """Tell that requests are answered."""
        self._notify("READY=1", _status(status))

    def status(self, status: str) -> None:
        """Show another status line."""
        self._notify(_status(status))

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Ask for more time again and again while the state is opened, which is one long step."""
        if self._notifier is None:
            yield
            return
        started = threading.Event()

        def extend() -> None:
            for _ in range(_EXTENSIONS):
                self._notify(f"EXTEND_TIMEOUT_USEC={int(_EXTENSION * 1_000_000)}")
                if started.wait(_EXTENSION / 2):
                    return

        thread = threading.Thread(target=extend, daemon=True)
        thread.start()
        try:
            yield
        finally:
            started.set()
            thread.join()

    def reloading(self) -> None:
        """Tell that the configuration is read again, until `ready`."""
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Tell that no more connections are accepted."""
        self._notify("STOPPING=1", _status("stopping"))

    def watchdog(self) -> None:
        """Tell that the loop that answers requests is alive."""
        self._notify("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket."""
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

    def _notify(self, *lines: str) -> None:
        if self._notifier is not None:
            self._notifier.notify("\n".join(lines))


def _status(text: str) -> str:
    """The status as ASCII in one line: sdnotify loses other text, and a line end begins an assignment."""
    return "STATUS=" + text.encode("ascii", "replace").decode().replace("\n", " ")

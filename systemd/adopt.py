"""Give the daemon's user the state and the logs that a daemon left which root had started by hand.

adopt.py [--dry-run]: says what changes hands. Ends with 1 if such a daemon is still running.
"""

import contextlib
import fcntl
import os
import pwd
import re
import stat
import sys
from collections.abc import Iterator

USER = "pki2fad"

# Only what the daemon makes itself, in its own directories.
KNOWN = {
    "/var/lib/pki2fad": re.compile(r"state\.db(-wal|-shm)?|lock"),
    "/var/log/pki2fad": re.compile(r"(codes(\.[A-Za-z0-9._@-]+)?|pki2fad)\.log"),
}
LOCK = "/var/lib/pki2fad/lock"

_SAFELY = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def main(*, dry_run: bool) -> int:
    """Returns the exit status."""
    pid = runs_as_root()
    if pid is not None:
        print(f"pki2fad runs as root, not by systemd (pid {pid}): stop it first", file=sys.stderr)
        return 1
    for directory, known in KNOWN.items():
        with opened(None, directory, os.O_DIRECTORY) as place:
            if place is None:
                continue
            for name in sorted(filter(known.fullmatch, os.listdir(place))):
                with opened(place, name, 0) as file:
                    if file is not None and is_roots_alone(file):
                        give(file, f"{directory}/{name}", dry_run=dry_run)
            # Last, since until then nobody else can exchange what is in there.
            if os.fstat(place).st_uid == 0:
                give(place, directory, dry_run=dry_run)
    return 0


def runs_as_root() -> str | None:
    """What the lock says of the daemon that holds it and belongs to root, if there is one."""
    with opened(None, LOCK, 0) as file:
        if file is None or os.fstat(file).st_uid != 0:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(file, 32).decode(errors="replace").strip()
    return None


@contextlib.contextmanager
def opened(directory: int | None, name: str, flags: int) -> Iterator[int | None]:
    """A descriptor; None for what is not there, is a link, or is not for us to see."""
    try:
        descriptor = os.open(name, os.O_RDONLY | _SAFELY | flags, dir_fd=directory)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_roots_alone(file: int) -> bool:
    """Whether it is an ordinary file of root's that has no other name, elsewhere say."""
    status = os.fstat(file)
    return stat.S_ISREG(status.st_mode) and status.st_uid == 0 and status.st_nlink == 1


def give(descriptor: int, path: str, *, dry_run: bool) -> None:
    """Change the owner."""
    print(f"give {path} to {USER}")
    if not dry_run:
        user = pwd.getpwnam(USER)
        os.fchown(descriptor, user.pw_uid, user.pw_gid)


if __name__ == "__main__":
    sys.exit(main(dry_run="--dry-run" in sys.argv[1:]))

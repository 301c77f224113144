"""Sockets that are passed to the daemon as systemd passes them."""

import socket
import sys
from pathlib import Path

# Runs a command as systemd does: descriptors from 3 on, and their count for this process only.
ACTIVATE = """
import fcntl, os, sys
names = sys.argv[1]
copies = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 64) for one in sys.argv[2].split(",")]  # out of the way
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(copies))}
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(sys.argv[3], sys.argv[3:])
"""


def activated(names: str, *sockets: socket.socket) -> list[str]:
    return [sys.executable, "-c", ACTIVATE, names, ",".join(str(one.fileno()) for one in sockets)]


def listening(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    bound.listen()
    return bound

"""Code that runs inside the daemon of a booted host: it sees the sandbox as the daemon does.

`sitecustomize.py` is what Python imports at its start from a directory in $PYTHONPATH. It waits for
SIGUSR1, since what a thread gives up holds for that thread: a probe has to run in the one that serves.
"""

import json
import socket
from typing import Any

from support.daemon import PATIENCE
from support.installed import SERVICE, Installed

_CUSTOMIZE = '''
import json, signal, socket, traceback

def attempt(call, *arguments):
    """The name of the error that a call fails with, "done" if it does not."""
    import errno
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def probe(*_):
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect("/run/share/inside")
        names = {"attempt": attempt}
        try:
            exec(channel.makefile().read(), names)
        except Exception:
            names["answer"] = traceback.format_exc()
        channel.sendall(json.dumps(names["answer"]).encode())

signal.signal(signal.SIGUSR1, probe)
'''


def open_door(host: Installed) -> None:
    """Let the daemon, from its next start on, do what `ask` says."""
    directory = host.share / "python"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_CUSTOMIZE)
    host.drop_in("[Service]\nEnvironment=PYTHONPATH=/run/share/python\n", "inside.conf")


def ask(host: Installed, code: str) -> Any:
    """What a piece of code in the daemon assigns to `answer`; it has the function `attempt`."""
    path = host.share / "inside"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        listener.settimeout(PATIENCE)
        host.run("systemctl", "kill", "--kill-whom=main", "--signal=USR1", SERVICE)
        channel, _ = listener.accept()
    with channel:
        channel.settimeout(PATIENCE)
        channel.sendall(code.encode())
        channel.shutdown(socket.SHUT_WR)
        return json.loads(channel.makefile().read())

"""Opens copies of a state file, each in a process that is killed at another moment of the migration.

    python -m support.killed STATE DIRECTORY INTERVAL

A moment is before each statement that SQLite runs, and after each INTERVAL instructions of its machine.
Copies are `DIRECTORY/0.db` and so on; it prints how many were killed. The last one was not.
"""

import itertools
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pki2fad.errors import UnusableState
from pki2fad.state.store import Store


def main() -> None:
    """Kill one process after the other."""
    state, directory, interval = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for moment in itertools.count():
        copy = directory / f"{moment}.db"
        shutil.copy(state, copy)
        pid = os.fork()
        if pid == 0:
            _open_until(copy, moment, interval)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            print(moment if status == 0 else "failed")
            return


def _open_until(path: Path, moment: int, interval: int) -> None:
    """Open a state file; at this moment the process is killed."""
    moments = itertools.count()

    def count(*_: object) -> int:
        if next(moments) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    connect = sqlite3.connect

    def connect_counted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(count)
        connection.set_progress_handler(count, interval)
        return connection

    try:
        with patch("sqlite3.connect", connect_counted):
            Store(str(path))  # it is not closed: that has moments too, which are not the migration's
    except UnusableState as error:
        print(error, file=sys.stderr)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()

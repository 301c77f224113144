"""Names of uids, looked up in a thread: a name service on the network may take seconds to answer."""

import pwd
import queue
import threading
import time

from pki2fad.errors import Unavailable

# Names to remember, and uids that may wait to be looked up: a user namespace gives its owner thousands.
_REMEMBERED = 4096
_WAITING = 64

# Seconds after which a uid without a name is looked up again: its user may have been added meanwhile.
_AGAIN = 60.0


class Users:
    """Knows the users of this system by uid, as soon as a thread has looked them up."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[str | None, float]] = {}  # and when that was found, CLOCK_MONOTONIC
        self._asked: set[int] = set()
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def look_up(self, uid: int) -> str | None:
        """The name of the user with this uid, None if there is none. May block."""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return None

    def is_user(self, uid: int) -> bool:
        """True if the uid is known to have a name. Never blocks: a thread looks up an unknown uid."""
        found = self._found(uid)
        return found is not None and found[0] is not None

    def is_being_looked_up(self, uid: int) -> bool:
        """True until a thread has found out whether the uid has a name."""
        return self._found(uid) is None

    def name(self, uid: int) -> str | None:
        """The name, None if there is none. Never blocks: raises `Unavailable` until it is looked up."""
        found = self._found(uid)
        if found is None:
            raise Unavailable(f"the name of uid {uid} is being looked up; try again", 1)
        return found[0]

    def _found(self, uid: int) -> tuple[str | None, float] | None:
        """The name and when it was found, None until then."""
        found = self._names.get(uid)
        if found is None or (found[0] is None and time.monotonic() - found[1] >= _AGAIN):
            self._ask(uid)
        return found

    def _ask(self, uid: int) -> None:
        if uid in self._asked or len(self._asked) >= _WAITING:
            return
        self._asked.add(uid)
        self._queue.put(uid)
        if self._thread is None:
            # A daemon thread: a name service that hangs must not hold up the end of the process.
            self._thread = threading.Thread(target=self._run, name="users", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            uid = self._queue.get()
            name = self.look_up(uid)
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            self._names[uid] = name, time.monotonic()
            self._asked.discard(uid)

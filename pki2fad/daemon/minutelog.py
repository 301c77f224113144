"""The minute log: one code a minute, appended to a file, from the daemon's own loop.

What is in the file is all the state there is: the last code in it is the mark that only later minutes
pass, and its last line says what was said already. So a restart goes on where the file ends.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Mapping

from pki2fad.host import files, log, minuteline
from pki2fad.methods.agent import Agent
from pki2fad.methods.health import MINUTE_LOG
from pki2fad.rules import clock
from pki2fad.rules.access import Peer
from pki2fad.rules.clock import Reading
from pki2fad.wire.forms import MAIN
from pki2fad.wire.messages import Request

# The clock is looked at again at least so often (seconds), so that a step of it is seen.
_LONGEST_SLEEP = 1.0

# Timers may end a moment before the minute; one look a millisecond later is not early.
_AFTER_MINUTE = 0.001

_ACCEPTED = "the clock was accepted as it is; it had been ahead"
_STEPPED_BACK = "the clock stepped back; no code until the last one's minute is passed"


class MinuteLog:
    """Writes the files that `paths` names for accounts; codes are asked for as the daemon's own peer."""

    def __init__(
        self,
        agent: Agent,
        own: Peer,
        paths: Mapping[str, str],
        read_clock: Callable[[], Reading] = clock.read,
    ) -> None:
        self._agent = agent
        self._own = own
        self._read_clock = read_clock
        self._logs: list[_AccountLog] = []
        self._timer: asyncio.TimerHandle | None = None
        self.use(paths)

    def use(self, paths: Mapping[str, str]) -> None:
        """Write to these files from now on; one that was written before goes on."""
        known = {(kept.account, kept.path): kept for kept in self._logs}
        self._logs = [known.get(item) or _AccountLog(*item) for item in paths.items()]

    def start(self) -> None:
        """Write what is due now, and go on from the running loop until `stop`."""
        reading = self._read_clock()
        until_minute = 60 - reading.wall % 60 + _AFTER_MINUTE
        delay = min(until_minute, _LONGEST_SLEEP)
        self._timer = asyncio.get_running_loop().call_later(delay, self.start)
        self.write_due(reading)

    def stop(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()

    def last_code(self) -> int | None:
        """The Unix time of the minute of the last code, in the log that is furthest behind.

        0 if there never was one, None where no log is to be written.
        """
        return min((log.last_code for log in self._logs), default=None)

    def write_due(self, reading: Reading) -> None:
        """Write the lines that are due at this reading."""
        for account_log in self._logs:
            account_log.write_due(reading, self._agent, self._own)
        failing = [account_log for account_log in self._logs if account_log.trouble]
        if failing:
            self._agent.health.failed(MINUTE_LOG, f"cannot write {failing[0].path}: {failing[0].trouble}")
        else:
            self._agent.health.mended(MINUTE_LOG)


class _AccountLog:
    """One account's file."""

    def __init__(self, account: str, path: str) -> None:
        self.account = account
        self.path = path
        self._mark = -1  # the minute of the last code
        self._said = ""  # the text of the last line, if it was not a code
        self._file: tuple[int, ...] | None = None  # the one that was read last, as `_identity` has it
        self._accepted = 0  # how often the clock had been, at the last look
        self.trouble = ""  # why the file could not be written, as the log has it

    @property
    def last_code(self) -> int:
        return max(0, self._mark * 60)

    def write_due(self, reading: Reading, agent: Agent, own: Peer) -> None:
        minute = int(reading.wall // 60)
        try:
            self._look_at_file(minute)
            if agent.clock_accepted != self._accepted:
                self._follow_clock(reading)
                self._accepted = agent.clock_accepted
            if minute > self._mark:
                self._write_code(reading, agent, own)
            elif minute < self._mark:
                self._say(reading, _STEPPED_BACK)
        except OSError as error:
            self._complain(error.strerror or str(error))
        else:
            self.trouble = ""

    def _look_at_file(self, minute: int) -> None:
        """Read the file if it is another one than at the last look, or was written to.

        After a rotation it holds nothing, and what was written still counts. But one that
        `pki2factl migrate` put there may have a code for this minute. A code of the future counts only
        at the start, when it says that the clock was set back: else one file would end all lines.
        """
        file = _identity(self.path)
        if file != self._file:
            mark, said = _read_tail(self.path)
            self._mark = max(self._mark, mark if self._file is None else min(mark, minute))
            self._said = self._said or said
            self._file = file

    def _follow_clock(self, reading: Reading) -> None:
        """Let go of a mark of the future: an administrator said that the clock is right now."""
        minute = int(reading.wall // 60)
        if self._mark > minute:
            _append(self.path, reading, _ACCEPTED)
            self._mark, self._said = minute - 1, ""

    def _write_code(self, reading: Reading, agent: Agent, own: Peer) -> None:
        answer = agent.handle(Request(0, "generate", {"account": self.account, "label": MAIN}), own, reading)
        if answer.refusal is not None:
            self._say(reading, f"no code: {answer.refusal.code}: {answer.refusal}")
            return
        _append(self.path, reading, minuteline.code_text(answer.result["code"]))
        self._mark = int(reading.wall // 60)
        self._said = ""

    def _say(self, reading: Reading, text: str) -> None:
        if text != self._said:
            _append(self.path, reading, text)
            self._said = text

    def _complain(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            log.error("minute_log_failed", path=self.path, reason=trouble)


def _append(path: str, reading: Reading, text: str) -> None:
    """Add one whole line, or nothing.

    The file is opened for each line, so that it is always the one that has the name now.
    """
    descriptor = _open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(descriptor).st_size
        line = f"{minuteline.line(minuteline.stamp(reading.wall), text)}\n".encode()
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line  # somebody left a line unfinished
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


def _identity(path: str) -> tuple[int, ...]:
    """What tells one file from another, also if it got the inode of one that is gone; () for none."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return ()
    return status.st_dev, status.st_ino, status.st_size


def _read_tail(path: str) -> tuple[int, str]:
    """The minute of the last code in the file (-1: none), and its last line's text if that is no code."""
    try:
        descriptor = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return -1, ""
    try:
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, minuteline.TAIL, max(0, size - minuteline.TAIL))
    finally:
        os.close(descriptor)
    moment = minuteline.last_code(tail.rpartition(_ACCEPTED.encode())[2])
    mark = -1 if moment is None else moment // 60
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    said = "" if minuteline.has_code(last) else minuteline.text(last).decode("utf-8", "replace")
    return mark, said


def _open(path: str, flags: int) -> int:
    """Open a regular file, and nobody else's to read: codes never go to a terminal or a pipe."""
    descriptor = files.open_sole(path, flags, os.geteuid())
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != files.PRIVATE:
        try:
            os.fchmod(descriptor, files.PRIVATE)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor

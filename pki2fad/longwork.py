"""Carries out long requests: one after the other, in pieces, between which others have their turn.

What changes many accounts is kept by the store in a thread, and then taken into memory in pieces too. Until
that is done nothing else changes accounts, and while the store is in use nothing else is kept.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from pki2fad import clock
from pki2fad.changes import Answer, LargeChange, Work
from pki2fad.clock import Reading, boot
from pki2fad.errors import Unavailable
from pki2fad.memory import uncollected
from pki2fad.pieces import Pieces

# Seconds after which a piece ends that goes on: as many as a turn of all others takes.
_AT_ONCE = 0.002

Done = Callable[[Answer | Exception], object]
Charge = Callable[[float], object]

# A work whose changes are carried out: None between two pieces, or what the thread is to do.
_Steps = Generator[Callable[[], Any] | None, Any, Answer]


class Changing:
    """Carries out the changes of a work: `keep` keeps one, in the thread, and `applied` moves memory.

    `version` is another one whenever an account was changed; `read` reads the clocks.
    """

    def __init__(
        self,
        keep: Callable[[LargeChange], object],
        applied: Callable[[LargeChange], Pieces[None]],
        version: Callable[[], int],
        read: Callable[[], Reading] = clock.read,
    ) -> None:
        self.applying = False  # what is kept, and has not moved memory in whole
        self._keep = keep
        self._applied = applied
        self._version = version
        self._read = read

    def steps(self, work: Work) -> _Steps:
        """The work, with its changes carried out."""
        version = self._version()
        given: Any = None
        failure: Exception | None = None
        try:
            while True:
                try:
                    wanted = work.send(given) if failure is None else work.throw(failure)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # it is an Answer
                given = failure = None
                try:
                    if isinstance(wanted, LargeChange):
                        if self._version() != version:
                            raise Unavailable("another change came between; try again", 1)
                        yield from self._change(wanted)
                    else:
                        given = yield wanted
                except Exception as error:
                    failure = error
                if given is None:
                    given = self._read()
        finally:
            work.close()

    def _change(self, change: LargeChange) -> Generator[Callable[[], Any] | None, Any, None]:
        yield partial(self._keep, change)
        self.applying = True
        try:
            yield from self._applied(change)
        finally:
            self.applying = False


class _Job(NamedTuple):
    work: Work
    done: Done
    charge: Charge


class LongWork:
    """The long requests: the one that is carried out, and those that wait for it.

    `commit` has the store keep what waits for it; `give_up` makes what the thread does fail soon.
    """

    def __init__(
        self, changing: Changing, commit: Callable[[], object], give_up: Callable[[], object]
    ) -> None:
        self._changing = changing
        self._commit = commit
        self._give_up = give_up
        self._waiting: deque[_Job] = deque()
        self._job: _Job | None = None
        self._steps: _Steps | None = None
        self._thread = ThreadPoolExecutor(1, "long-work")
        self._in_thread: asyncio.Future[Any] | None = None
        self._stopping = False
        self._uncollected = contextlib.ExitStack()
        self._goes_on = False  # it was not done in one go

    @property
    def uses_store(self) -> bool:
        """True while the thread may use the store: nobody else may then."""
        return self._in_thread is not None

    @property
    def is_changing(self) -> bool:
        """True while the store or memory is being changed."""
        return self.uses_store or self._changing.applying

    def require_no_change(self) -> None:
        """Raise `Unavailable` while the store or memory is being changed."""
        if self.is_changing:
            raise Unavailable("many accounts are being changed; try again", 1)

    def begin(self, work: Work, done: Done, charge: Charge = lambda _: None) -> None:
        """Carry out a work: its first pieces at once, if there is no other.

        `done` gets its answer, or what it raised. `charge` is told how many seconds each piece took.
        """
        self._waiting.append(_Job(work, done, charge))
        if self._job is None:
            self._next()

    async def stop(self) -> None:
        """Give up what has changed nothing yet, and finish what is kept already."""
        self._stopping = True
        if self._in_thread is not None:
            self._give_up()
            await asyncio.wait([self._in_thread])
        elif self._changing.applying:
            self._go_on()
        elif self._job is not None:
            self._end(_stopped())
        self._thread.shutdown()

    def _next(self) -> None:
        if self._waiting:
            self._job = self._waiting.popleft()
            if self._stopping:
                self._job.work.close()
                self._end(_stopped())
            else:
                self._steps = self._changing.steps(self._job.work)
                self._go_on()

    def _go_on(self, result: Any = None, failure: Exception | None = None) -> None:
        """Carry out pieces for a while; `result` or `failure` is what the thread came to."""
        if self._job is None or self._steps is None:
            return  # it was given up
        begun = boot()
        try:
            wanted = self._steps.send(result) if failure is None else self._steps.throw(failure)
            while wanted is None and (self._stopping or boot() - begun < _AT_ONCE):
                wanted = next(self._steps)
        except StopIteration as end:
            self._job.charge(boot() - begun)
            self._end(end.value)
        except Exception as error:
            self._job.charge(boot() - begun)
            self._end(_stopped() if self._stopping else error)
        else:
            self._job.charge(boot() - begun)
            if not self._goes_on:  # the collector would hold everybody up: it looks through all that is made
                self._goes_on = True
                self._uncollected.enter_context(uncollected())
            if wanted is None:
                asyncio.get_running_loop().call_soon(self._go_on)
            elif self._stopping:
                self._end(_stopped())
            else:
                self._hand_over(wanted)

    def _hand_over(self, wanted: Callable[[], Any]) -> None:
        """Have the thread do something, when all is kept that waits for the store."""
        self._commit()
        self._in_thread = asyncio.get_running_loop().run_in_executor(self._thread, wanted)
        self._in_thread.add_done_callback(self._come_back)

    def _come_back(self, finished: asyncio.Future[Any]) -> None:
        self._in_thread = None
        self._commit()
        error = finished.exception()
        if isinstance(error, Exception):
            self._go_on(failure=error)
        else:
            self._go_on(finished.result())

    def _end(self, outcome: Answer | Exception) -> None:
        assert self._job is not None
        done, steps = self._job.done, self._steps
        self._job = self._steps = None
        self._goes_on = False
        self._uncollected.close()
        if steps is not None:
            steps.close()
        done(outcome)
        if self._waiting and self._job is None:
            asyncio.get_running_loop().call_soon(self._next)


def _stopped() -> Unavailable:
    return Unavailable("the daemon stops")

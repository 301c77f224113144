"""Carries out long requests: one at a time, in pieces, between which others have their turn.

Memory follows what changes many accounts in pieces too, once it is kept. Until that is done nothing else
changes accounts.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pki2fad.crypto.memory import uncollected
from pki2fad.errors import Unavailable
from pki2fad.host import log
from pki2fad.rules import clock
from pki2fad.rules.changes import Answer, Change, Edit, LargeChange, Work
from pki2fad.rules.clock import Reading, boot
from pki2fad.rules.outcomes import Outcome
from pki2fad.rules.pieces import Pieces
from pki2fad.server.commit import Commit, another_change, require_kept
from pki2fad.server.payer import ROOT, Client, PayerKey

# Seconds that a stop leaves to the store to answer once it was told to give up.
_STOP = 0.6

# Seconds after which a piece ends that goes on: as many as a turn of all others takes.
_AT_ONCE = 0.002

Done = Callable[[Answer | Exception], object]

# A work whose large changes are carried out: None between two pieces, what the thread is to do, or a change
# that is to be kept.
_Steps = Generator[Callable[[], Any] | Change | None, Any, Answer]


class Changing:
    """Carries out the large changes of a work: has them kept while no others come, and has memory follow.

    `alone` lets no edit come in its block; `applied` moves memory; `version` is another one whenever an
    account was changed; `read` reads the clocks.
    """

    def __init__(
        self,
        alone: Callable[[], contextlib.AbstractContextManager[None]],
        applied: Callable[[LargeChange], Pieces[None]],
        version: Callable[[], int],
        read: Callable[[], Reading] = clock.read,
    ) -> None:
        self.applying = False  # True while memory follows a change that is kept
        self._alone = alone
        self._applied = applied
        self._version = version
        self._read = read

    def steps(self, work: Work) -> _Steps:
        """The work, with its large changes carried out."""
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
                            raise another_change()
                        yield from self._change(wanted)
                    else:
                        given = yield wanted
                except Exception as error:
                    failure = error
                if given is None:
                    given = self._read()
        finally:
            work.close()

    def _change(self, change: LargeChange) -> Generator[Change | None, Any, None]:
        with self._alone():
            yield change
            self.applying = True
            try:
                yield from self._applied(change)
            finally:
                self.applying = False


class _Job:
    """A work, from when it is asked for until it has ended. Only what has the job drives its steps."""

    __slots__ = ("_has_paused", "client", "done", "steps")

    def __init__(self, steps: _Steps, done: Done, client: Client | None) -> None:
        self.steps = steps
        self.done = done
        self.client = client  # None: the daemon asks for it
        self._has_paused = False

    def pauses_first(self) -> bool:
        """True once: it is not done in one go."""
        is_first, self._has_paused = not self._has_paused, True
        return is_first

    def charge(self, seconds: float) -> None:
        if self.client is not None:
            self.client.payer.charge(seconds)


class _Waiting:
    """The works that wait: root's and the daemon's own go first, then the payers take turns."""

    def __init__(self) -> None:
        self._queues: dict[PayerKey, deque[_Job]] = {}  # the payer whose turn is next comes first

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, job: _Job) -> None:
        key = ROOT if job.client is None else job.client.payer.key
        self._queues.setdefault(key, deque()).append(job)

    def take(self) -> _Job:
        key = ROOT if ROOT in self._queues else next(iter(self._queues))
        jobs = self._queues.pop(key)
        job = jobs.popleft()
        if jobs:
            self._queues[key] = jobs
        return job


class LongWork:
    """The long requests: the one that is carried out, and those that wait for it.

    `give_up` makes what the store does for one fail soon.
    """

    def __init__(self, changing: Changing, commit: Commit, give_up: Callable[[], object]) -> None:
        self._changing = changing
        self._commit = commit
        self._give_up = give_up
        self._waiting = _Waiting()
        self._job: _Job | None = None  # that is carried out
        self._thread = ThreadPoolExecutor(1, "long-work")
        self._elsewhere: asyncio.Future[Any] | None = None  # what the job waits for: the thread or the store
        self._stopping = False
        self._uncollected = contextlib.ExitStack()

    @property
    def is_changing(self) -> bool:
        """True while the store or memory is being changed."""
        return self._elsewhere is not None or self._changing.applying

    def begin(self, work: Work, done: Done, client: Client | None = None) -> None:
        """Carry out a work: its first pieces at once, if there is no other.

        `done` gets its answer, or what it raised. `client` is who waits for it and pays; None is the daemon.
        If the client is gone before its work begins, nothing is done.
        """
        self._waiting.add(_Job(self._changing.steps(work), done, client))
        self._next()

    async def carry_out(self, work: Work) -> None:
        """Carry out a work for which the daemon itself waits. Raises what it raises."""
        done: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()
        self.begin(work, done.set_result)
        outcome = await done
        if isinstance(outcome, Exception):
            raise outcome

    async def stop(self) -> None:
        """Give up what has changed nothing yet, and finish what is kept already."""
        self._stopping = True
        if self._elsewhere is not None:
            self._give_up()
            await asyncio.wait([self._elsewhere], timeout=_STOP)
        if self._job is not None and self._changing.applying:
            self._go_on(self._job)
        elif self._job is not None:
            self._end(self._job, _stopped())
        self._thread.shutdown()

    def _next(self) -> None:
        """Begin the work whose turn it is, unless one is carried out: that one's end comes here again."""
        if self._job is not None or not self._waiting:
            return
        self._job = job = self._waiting.take()
        if self._stopping:
            self._end(job, _stopped())
        elif job.client is not None and job.client.is_gone:
            job.client.close()
            self._leave()
        else:
            self._go_on(job)

    def _go_on(self, job: _Job, result: Any = None, failure: Exception | None = None) -> None:
        """Carry out pieces for a while; `result` or `failure` is what the thread came to."""
        if job is not self._job:
            return  # it was ended meanwhile
        begun = boot()
        try:
            wanted = job.steps.send(result) if failure is None else job.steps.throw(failure)
            while wanted is None and (self._stopping or boot() - begun < _AT_ONCE):
                wanted = next(job.steps)
        except StopIteration as end:
            job.charge(boot() - begun)
            self._end(job, end.value)
        except Exception as error:
            job.charge(boot() - begun)
            self._end(job, _stopped() if self._stopping else error)
        else:
            job.charge(boot() - begun)
            if job.pauses_first():  # the collector would hold everybody up: it looks through all that is made
                self._uncollected.enter_context(uncollected())
            if wanted is None:
                asyncio.get_running_loop().call_soon(self._go_on, job)
            elif self._stopping:
                self._end(job, _stopped())
            else:
                self._hand_over(job, wanted)

    def _hand_over(self, job: _Job, wanted: Callable[[], Any] | Change) -> None:
        """Have the thread do something, or the store keep a change."""
        if callable(wanted):
            self._elsewhere = asyncio.get_running_loop().run_in_executor(self._thread, wanted)
        else:
            self._elsewhere = self._kept(wanted)
        self._elsewhere.add_done_callback(partial(self._come_back, job))

    def _kept(self, change: Change) -> asyncio.Future[None]:
        """Is done when the change is kept, and fails with why it is not."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settled(outcome: Outcome) -> None:
            try:
                require_kept(outcome)
            except Exception as error:
                kept.set_exception(error)
            else:
                kept.set_result(None)

        try:
            if isinstance(change, Edit):
                self._commit.edit(change, settled)
            else:
                self._commit.keep(change, settled)
        except Unavailable as refusal:
            kept.set_exception(refusal)
        return kept

    def _come_back(self, job: _Job, finished: asyncio.Future[Any]) -> None:
        if job is self._job:
            self._elsewhere = None
        error = finished.exception()
        if isinstance(error, Exception):
            self._go_on(job, failure=error)
        else:
            self._go_on(job, finished.result())

    def _end(self, job: _Job, outcome: Answer | Exception) -> None:
        """Say what it came to."""
        self._uncollected.close()
        job.steps.close()
        try:
            job.done(outcome)
        except Exception as error:  # a mistake of ours keeps no other waiting
            log.failure("failed", error)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Let the next one begin, in a turn of its own."""
        self._job = None
        asyncio.get_running_loop().call_soon(self._next)


def _stopped() -> Unavailable:
    return Unavailable("the daemon stops")

"""Has the store keep changes: small ones at once, large ones in a thread; one after the other."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from pki2fad.rules.changes import Change, LargeChange, Shred
from pki2fad.rules.outcomes import Outcome, Settle, Unknown


class Keeper(Protocol):
    """A store that settles before it returns."""

    def keep(self, changes: Sequence[Change], settle: Settle) -> None:
        """Keep changes."""


class Keeping:
    """A store that may take long, as `outcomes.Keep` has it.

    While the thread is at work, all that comes later waits for it.
    """

    def __init__(self, store: Keeper) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(1, "store")
        self._waiting: deque[tuple[Sequence[Change], Settle]] = deque()
        self._is_busy = False  # something is being kept, here or in the thread

    def keep(self, changes: Sequence[Change], settle: Settle) -> None:
        """Keep changes; a large one comes alone."""
        self._waiting.append((changes, settle))
        if not self._is_busy:
            self._go_on()

    def close(self) -> None:
        """Wait for the thread."""
        self._thread.shutdown()

    def _go_on(self) -> None:
        self._is_busy = True
        while self._waiting:
            changes, settle = self._waiting.popleft()
            if isinstance(changes[0], LargeChange | Shred):
                self._keep_in_thread(changes, settle)
                return
            try:
                self._store.keep(changes, settle)
            except Exception as error:  # a mistake of ours
                unknown = Unknown(error)
                settle([(index, unknown) for index in range(len(changes))])
        self._is_busy = False

    def _keep_in_thread(self, changes: Sequence[Change], settle: Settle) -> None:
        outcomes: dict[int, Outcome] = {}
        loop = asyncio.get_running_loop()
        kept = loop.run_in_executor(self._thread, self._store.keep, changes, outcomes.update)
        kept.add_done_callback(partial(self._come_back, outcomes, settle))

    def _come_back(
        self, outcomes: dict[int, Outcome], settle: Settle, finished: asyncio.Future[None]
    ) -> None:
        error = finished.exception()
        if isinstance(error, Exception):  # a mistake of ours
            outcomes[0] = Unknown(error)
        settle(list(outcomes.items()))
        self._go_on()

"""Keeping, between the loop and a store that settles before it returns: order, threads, and failures."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from support.bench import TIMEOUT, in_loop

from pki2fad.errors import UnusableState
from pki2fad.rules.changes import Change, ClockEdit, Edits, Failure, Shred
from pki2fad.rules.outcomes import KEPT, SPENT, NotKept, Outcome, Settle, Unknown
from pki2fad.state.keeping import Keeping

SMALL = Failure("a", None, {})
LARGE = [Edits([]), ClockEdit(0.0, None), Shred()]
MISTAKE = KeyError("a mistake of ours")


class Told:
    """A store that says what it is told to, and where it was asked. It fails with an exception."""

    def __init__(self) -> None:
        self.outcome: Outcome | Exception = KEPT
        self.calls: list[tuple[Sequence[Change], bool]] = []  # with True for those in the caller's thread
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self._thread = threading.current_thread()

    def keep(self, changes: Sequence[Change], settle: Settle) -> None:
        is_here = threading.current_thread() is self._thread
        self.calls.append((changes, is_here))
        self.asked.set()
        assert is_here or self.go_on.wait(TIMEOUT)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        settle([(index, self.outcome) for index in reversed(range(len(changes)))])


class Waiting:
    """Whoever waits for changes: hears what became of each, by the name of its call."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, Outcome]] = []
        self._more = asyncio.Event()

    def settle(self, name: str) -> Settle:
        def settle(outcomes: Sequence[tuple[int, Outcome]]) -> None:
            self.heard += [(name, index, outcome) for index, outcome in outcomes]
            self._more.set()

        return settle

    async def until(self, is_enough: Callable[[], bool]) -> None:
        """Wait until enough was heard."""
        async with asyncio.timeout(TIMEOUT):
            while not is_enough():
                self._more.clear()
                await self._more.wait()

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.heard]


@in_loop
async def test_small_changes_are_settled_before_the_call_returns_each_once() -> None:
    store, waiting = Told(), Waiting()
    store.outcome = SPENT
    Keeping(store).keep([SMALL] * 3, waiting.settle("a"))
    assert sorted(index for _, index, _ in waiting.heard) == [0, 1, 2]
    assert {outcome for _, _, outcome in waiting.heard} == {SPENT}
    assert store.calls == [([SMALL] * 3, True)]


@pytest.mark.parametrize("large", LARGE, ids=lambda change: type(change).__name__)
@in_loop
async def test_a_large_change_is_kept_in_a_thread_and_settled_in_the_loop(large: Change) -> None:
    store, waiting = Told(), Waiting()
    keeping = Keeping(store)
    keeping.keep([large], waiting.settle("a"))
    assert waiting.heard == []
    await waiting.until(lambda: bool(waiting.heard))
    assert waiting.heard == [("a", 0, KEPT)]
    assert store.calls == [([large], False)]
    keeping.close()


@in_loop
async def test_what_comes_during_a_large_change_waits_and_is_settled_in_the_order_of_the_calls() -> None:
    store, waiting = Told(), Waiting()
    keeping = Keeping(store)
    store.go_on.clear()
    keeping.keep([LARGE[0]], waiting.settle("large"))
    keeping.keep([SMALL], waiting.settle("small"))
    keeping.keep([LARGE[1]], waiting.settle("large too"))
    keeping.keep([SMALL], waiting.settle("last"))
    assert await asyncio.to_thread(store.asked.wait, TIMEOUT)
    assert ([changes for changes, _ in store.calls], waiting.heard) == ([[LARGE[0]]], [])
    store.go_on.set()
    await waiting.until(lambda: len(waiting.heard) == 4)
    assert waiting.names == ["large", "small", "large too", "last"]
    keeping.close()


@in_loop
async def test_what_is_asked_for_while_others_are_told_comes_after_them() -> None:
    store, waiting = Told(), Waiting()
    keeping = Keeping(store)

    def settle(outcomes: Sequence[tuple[int, Outcome]]) -> None:
        keeping.keep([SMALL], waiting.settle("inner"))
        waiting.settle("outer")(outcomes)

    keeping.keep([SMALL], settle)
    assert waiting.names == ["outer", "inner"]


@pytest.mark.parametrize("change", [SMALL, *LARGE], ids=lambda change: type(change).__name__)
@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (NotKept(UnusableState("the disk is full")), None),
        (MISTAKE, Unknown(MISTAKE)),  # nobody knows how far it came
    ],
    ids=["not kept", "mistake"],
)
@in_loop
async def test_a_failure_is_told_as_what_it_is_and_later_changes_are_kept(
    change: Change, outcome: Outcome | Exception, told: Outcome | None
) -> None:
    store, waiting = Told(), Waiting()
    keeping = Keeping(store)
    store.outcome = outcome
    keeping.keep([change], waiting.settle("failing"))
    await waiting.until(lambda: bool(waiting.heard))
    store.outcome = KEPT
    keeping.keep([SMALL], waiting.settle("next"))
    assert waiting.heard == [("failing", 0, told or outcome), ("next", 0, KEPT)]
    keeping.close()


@in_loop
async def test_after_a_mistake_with_several_changes_none_is_known() -> None:
    store, waiting = Told(), Waiting()
    store.outcome = MISTAKE
    Keeping(store).keep([SMALL] * 3, waiting.settle("a"))
    assert waiting.heard == [("a", index, Unknown(MISTAKE)) for index in range(3)]


@in_loop
async def test_a_close_waits_for_the_thread() -> None:
    store, waiting = Told(), Waiting()
    keeping = Keeping(store)
    store.go_on.clear()
    keeping.keep([LARGE[0]], waiting.settle("a"))
    closing = asyncio.create_task(asyncio.to_thread(keeping.close))
    assert await asyncio.to_thread(store.asked.wait, TIMEOUT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(closing), 0.05)
    store.go_on.set()
    async with asyncio.timeout(TIMEOUT):
        await closing
    await waiting.until(lambda: bool(waiting.heard))
    assert waiting.heard == [("a", 0, KEPT)]

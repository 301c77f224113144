"""Long works that wait for one another: each is carried out in whole, once, and its caller is answered."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.agents import logged
from support.bench import TIMEOUT, in_loop

from pki2fad.changes import Answer, Edits, LargeChange, Work
from pki2fad.errors import Unavailable
from pki2fad.longwork import Changing, LongWork
from pki2fad.pieces import Pieces


class Works:
    """Works that say what becomes of them, and what was done for them in which order."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Any] = {}
        self.events: list[str] = []
        self.long_work = LongWork(Changing(self._keep, self._applied, lambda: 0), lambda: None, lambda: None)

    def begin(self, name: str, work: Work, then: Callable[[], object] = lambda: None) -> None:
        def done(outcome: Answer | Exception) -> None:
            self.outcomes[name] = outcome.result if isinstance(outcome, Answer) else outcome
            then()

        self.long_work.begin(work, done)

    def pieces(self, name: str) -> Work:
        """A work that takes several turns of the loop."""
        for number in range(3):
            self.events.append(f"{name}{number}")
            time.sleep(0.003)  # longer than what goes on in one turn
            yield None
        return Answer(name)

    def change(self, name: str) -> Work:
        """A work that has something kept."""
        self.events.append(f"{name} asks")
        yield Edits(())
        self.events.append(f"{name} goes on")
        return Answer(name)

    async def all_are_done(self, names: Iterable[str]) -> None:
        async with asyncio.timeout(TIMEOUT):
            while self.outcomes.keys() != {*names}:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)

    def _keep(self, _change: LargeChange) -> None:
        self.events.append("kept")

    def _applied(self, _change: LargeChange) -> Pieces[None]:
        self.events.append("applied")
        yield


@in_loop
async def test_a_work_that_is_asked_for_between_two_others_replaces_none_of_them() -> None:
    works = Works()
    loop = asyncio.get_running_loop()
    # The turn in which C is asked for comes after A's end, and before what A's end has made come next.
    works.begin("A", works.pieces("A"), lambda: loop.call_soon(works.begin, "C", works.pieces("C")))
    works.begin("B", works.change("B"))
    works.begin("D", works.pieces("D"))
    await works.all_are_done("ABCD")
    assert works.outcomes == {name: name for name in "ABCD"}
    assert works.events == [
        *("A0", "A1", "A2"),
        *("B asks", "kept", "applied", "B goes on"),
        *("D0", "D1", "D2"),
        *("C0", "C1", "C2"),
    ]
    await works.long_work.stop()


@in_loop
async def test_a_work_that_is_asked_for_at_the_end_of_another_waits_behind_those_that_came_before() -> None:
    works = Works()
    works.begin("A", works.pieces("A"), lambda: works.begin("C", works.change("C")))
    works.begin("B", works.pieces("B"))
    await works.all_are_done("ABC")
    assert [event[0] for event in works.events if event.endswith(("0", "asks"))] == ["A", "B", "C"]
    await works.long_work.stop()


@in_loop
async def test_a_failure_at_the_end_of_a_work_keeps_no_other_waiting() -> None:
    def fail() -> None:
        raise LookupError("of A")

    works = Works()
    with logged() as lines:
        works.begin("A", works.pieces("A"), fail)
        works.begin("B", works.change("B"))
        await works.all_are_done("AB")
    assert any("LookupError" in line for line in lines)
    await works.long_work.stop()


@pytest.mark.parametrize("first", ["pieces", "change"])
@in_loop
async def test_a_stop_answers_the_works_that_wait_and_begins_none_of_them(first: str) -> None:
    works = Works()
    works.begin("A", getattr(works, first)("A"))
    works.begin("B", works.change("B"))
    works.begin("C", works.pieces("C"))
    await works.long_work.stop()
    await works.all_are_done("ABC")
    assert isinstance(works.outcomes["B"], Unavailable)
    assert isinstance(works.outcomes["C"], Unavailable)
    assert [event for event in works.events if event[0] in "BC"] == []

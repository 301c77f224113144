"""Long works that wait for one another: each is carried out in whole, once, and its caller is answered."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from support.agents import logged
from support.bench import TIMEOUT, Bench, Keeper, agent, bench, in_loop
from support.raw import RawPeer

from pki2fad.errors import Unavailable
from pki2fad.host.users import Users
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Access, Peer, Rule
from pki2fad.rules.changes import Answer, Change, Edits, LargeChange, Work
from pki2fad.rules.outcomes import KEPT, Settle
from pki2fad.rules.pieces import Pieces
from pki2fad.server.commit import Commit
from pki2fad.server.connection import Connection
from pki2fad.server.longwork import Changing, LongWork
from pki2fad.server.stages import Stage

ONE, OTHER = 4711, 4712  # uids of administrators


class Works:
    """Works that say what becomes of them, and what was done for them in which order."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Any] = {}
        self.events: list[str] = []
        commit = Commit(self._keep, agent().memory)
        self.long_work = LongWork(Changing(commit.alone, self._applied, lambda: 0), commit, lambda: None)

    def begin(
        self,
        name: str,
        work: Work,
        then: Callable[[], object] = lambda: None,
        client: Connection | None = None,
    ) -> None:
        def done(outcome: Answer | Exception) -> None:
            self.outcomes[name] = outcome.result if isinstance(outcome, Answer) else outcome
            then()

        self.long_work.begin(work, done, client)

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

    def _keep(self, _changes: Sequence[Change], settle: Settle) -> None:
        self.events.append("kept")
        settle([(0, KEPT)])

    def _applied(self, _change: LargeChange) -> Pieces[None]:
        self.events.append("applied")
        yield


async def connect(at: Bench, uid: int) -> tuple[RawPeer, Connection]:
    """Both ends of a connection of this uid."""
    before = {*at.server._connections}
    peer = await at.connect(Peer(1, uid, frozenset({uid})))
    (connection,) = at.server._connections - before
    at.server.reassign(connection)
    return peer, connection


@pytest.fixture
def shared() -> Agent:
    """An agent that two users may administer."""
    made = agent()
    made.access = Access([Rule("admin", (ONE, OTHER))], 0, Users())
    return made


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


@in_loop
async def test_root_and_the_daemon_go_first_and_the_other_payers_take_turns(shared: Agent) -> None:
    works = Works()
    async with bench(shared, Keeper()) as at:
        first, *others = [(await connect(at, uid))[1] for uid in (ONE, ONE, ONE, ONE, OTHER, OTHER, 0)]
        works.begin("a", works.pieces("a"), client=first)
        for name, client in zip("bcdxy", others, strict=False):
            works.begin(name, works.pieces(name), client=client)
        works.begin("R", works.pieces("R"), client=others[-1])
        works.begin("D", works.pieces("D"))
        await works.all_are_done("abcdxyRD")
        assert [event[0] for event in works.events if event.endswith("0")] == [*"aRDbxcyd"]
    await works.long_work.stop()


@in_loop
async def test_a_work_whose_client_is_gone_before_it_began_is_not_begun(shared: Agent) -> None:
    works = Works()
    async with bench(shared, Keeper()) as at:
        (gone, its), (silent, waits) = await connect(at, ONE), await connect(at, OTHER)
        works.begin("A", works.pieces("A"))
        works.begin("B", works.change("B"), client=its)
        works.begin("C", works.change("C"), client=waits)
        waits.hold()  # as for an answer
        gone.close()
        silent.stream.shutdown(socket.SHUT_WR)  # it sends no more, and waits for its answers
        await works.all_are_done("AC")
        assert "B asks" not in works.events
        assert its.stage is Stage.CLOSED
        assert waits.stage is not Stage.CLOSED
    await works.long_work.stop()

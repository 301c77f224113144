"""Whatever several clients ask, and however the store settles: each gets its answers, in order, in time."""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.agents import OTHER_SEED, sealed
from support.bench import arrived
from support.late import code, late_bench, turns
from support.raw import REQUEST, RawPeer

from pki2fad.errors import UnusableState
from pki2fad.rules.outcomes import KEPT, SPENT, NotKept, Outcome, Unknown

CLIENTS = 3
ACCOUNTS = 60  # more than one run asks for: each is verified, or changed, once

FAILURE = UnusableState("the network is down")
OUTCOMES = st.sampled_from([KEPT, KEPT, SPENT, NotKept(FAILURE), Unknown(FAILURE)])


class Asked:
    """A request, and what has become of it."""

    def __init__(self, msgid: int, account: str, kind: str) -> None:
        self.msgid = msgid
        self.account = account
        self.kind = kind  # "generate", "verify" or "load"
        self.outcome: Outcome | None = None

    @property
    def waits(self) -> bool:
        return self.kind != "generate" and self.outcome is None

    def assert_answer(self, answer: list[Any]) -> None:
        _, msgid, error, result = answer
        assert msgid == self.msgid
        if self.kind == "generate" or self.outcome is KEPT:
            assert error is None
            assert result != {"valid": False}
        elif self.outcome is SPENT and self.kind == "verify":
            assert result == {"valid": False}
        else:
            assert error[0] == "unavailable"


class Order(RuleBasedStateMachine):
    """Several clients of one server, over a store that settles when and as the machine says."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.open = contextlib.AsyncExitStack()
        directory = Path(self.open.enter_context(tempfile.TemporaryDirectory()))
        self.at, self.late = self.run(self.open.enter_async_context(late_bench(directory, ACCOUNTS)))
        self.clients: list[RawPeer] = [self.run(self.at.connect()) for _ in range(CLIENTS)]
        self.asked: list[list[Asked]] = [[] for _ in range(CLIENTS)]  # and not answered yet
        self.count = 0

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    @rule(
        client=st.integers(0, CLIENTS - 1),
        kinds=st.lists(st.sampled_from(["generate", "verify", "load"]), max_size=4),
    )
    def ask(self, client: int, kinds: list[str]) -> None:
        for kind in kinds:
            asked = Asked(self.count, f"a{self.count % ACCOUNTS}", kind)
            self.count += 1
            if self.count > ACCOUNTS:
                return
            arguments: dict[str, Any] = {"account": asked.account}
            if kind == "verify":
                arguments["code"] = code()
            elif kind == "load":
                arguments |= {"sealed": sealed(OTHER_SEED), "replace": True}
            self.asked[client].append(asked)
            self.clients[client].send([REQUEST, asked.msgid, kind, [arguments]])

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        self.run(turns())
        unsettled = self.late.unsettled
        if not unsettled:
            return
        places = data.draw(st.lists(st.integers(0, len(unsettled) - 1), unique=True, max_size=4))
        for place in places:
            outcome = data.draw(OUTCOMES)
            unsettled[place] = unsettled[place]._replace(outcome=outcome)
            (asked,) = (one for some in self.asked for one in some if one.account == unsettled[place].account)
            asked.outcome = outcome
        self.late.settle(*places)

    @invariant()
    def each_has_the_answers_up_to_the_first_that_waits(self) -> None:
        self.run(turns())
        for client, asked in zip(self.clients, self.asked, strict=True):
            ready = next((place for place, one in enumerate(asked) if one.waits), len(asked))
            answers = arrived(client)
            assert len(answers) == ready
            for one, answer in zip(asked, answers, strict=False):
                one.assert_answer(answer)
            del asked[:ready]

    @invariant()
    def what_stands_behind_an_edit_has_not_come_to_the_store(self) -> None:
        came = {one.account for one in self.late.unsettled}
        for asked in self.asked:
            edit = next((place for place, one in enumerate(asked) if one.waits and one.kind == "load"), None)
            if edit is not None:
                assert not came & {one.account for one in asked[edit + 1 :]}

    def teardown(self) -> None:
        self.late.settle_all()
        self.run(self.open.aclose())
        self.loop.close()


TestOrder = Order.TestCase
TestOrder.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)

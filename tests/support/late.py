"""A server over a real store that answers later, as one on the network would."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pki2fad.rules import clock
from pki2fad.rules.changes import Change, Edit, Failure, Spend
from pki2fad.rules.outcomes import Outcome, Settle, Unknown
from pki2fad.state.store import Store
from support.agents import SEED, make_agent, make_keyring, reference_code
from support.bench import Bench, bench
from support.stores import keep


class Unsettled(NamedTuple):
    """A change that the store has taken up, and of which it has not said what became."""

    account: str
    settle: Settle
    index: int
    outcome: Outcome


class Late:
    """A store that says what became of a change only when the test lets it.

    Changes take effect in the order in which they come, but those of accounts for which something is `told`
    in place of the truth. Of what is told as unknown, half is kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.told: dict[str, Outcome] = {}
        self.unsettled: list[Unsettled] = []
        self.count = 0  # of the changes that came

    def keep(self, changes: Sequence[Change], settle: Settle) -> None:
        for index, change in enumerate(changes):
            self.count += 1
            account = change.account if isinstance(change, Spend | Failure | Edit) else ""
            told = self.told.get(account)
            outcomes: dict[int, Outcome] = {}
            if told is None or (isinstance(told, Unknown) and self.count % 2):
                self.store.keep([change], outcomes.update)
            self.unsettled.append(Unsettled(account, settle, index, told or outcomes[0]))

    def settle(self, *places: int) -> None:
        """Say what became of the changes at these places among those that are not settled."""
        some = [self.unsettled[place] for place in places]
        for place in sorted(places, reverse=True):
            del self.unsettled[place]
        for one in some:
            one.settle([(one.index, one.outcome)])

    def settle_all(self) -> None:
        """Say what became of all, those of one call together."""
        some, self.unsettled = self.unsettled, []
        for settle in dict.fromkeys(one.settle for one in some):
            settle([(one.index, one.outcome) for one in some if one.settle == settle])

    def accounts(self) -> list[str]:
        """Those of the changes that are not settled."""
        return [one.account for one in self.unsettled]


@contextlib.asynccontextmanager
async def late_bench(directory: Path, count: int) -> AsyncIterator[tuple[Bench, Late]]:
    """A server with accounts a0, a1 and so on, over a store that answers later."""
    with contextlib.closing(Store(str(directory / "state.db"))) as store:
        keyring = make_keyring({f"a{number}": SEED for number in range(count)})
        keep(store, [Edit(name, clock.wall(), one) for name, one in keyring.accounts.items()])
        late = Late(store)
        async with bench(make_agent(keyring, own_uid=os.geteuid()), late) as at:
            yield at, late
            late.settle_all()


def code(ahead: int = 0) -> str:
    """The code of now, or of so many steps later."""
    return reference_code(SEED, int(clock.wall() // 30) + ahead)


async def turns(until: Callable[[], bool] | None = None, count: int = 20) -> None:
    """Let the server take its turns: until something is so, if that is given."""
    if until is None:
        for _ in range(count):
            await asyncio.sleep(0)
        return
    async with asyncio.timeout(10):
        while not until():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)

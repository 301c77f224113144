"""Whether a wrong code is a stale one is looked up when its answer has left."""

import asyncio

from support.bench import TIMEOUT, Keeper, agent, bench, in_loop
from support.raw import REQUEST, RawPeer, Seed

from pki2fad.methods.agent import Agent
from pki2fad.rules.clock import Reading


class Looking(Agent):
    """An agent that takes down, at each lookup, whether the answer is there already."""

    peer: RawPeer
    arrived: list[bool]
    looked: asyncio.Event

    def steps_off(self, name: str, code: str, reading: Reading) -> int | None:
        try:
            self.arrived.append(bool(self.peer.stream.recv(65536)))
        except BlockingIOError:
            self.arrived.append(False)
        self.looked.set()
        return super().steps_off(name, code, reading)


@in_loop
async def test_the_answer_has_left_when_a_stale_code_is_looked_up() -> None:
    looking = agent(Looking, default=Seed())
    assert isinstance(looking, Looking)
    looking.arrived, looking.looked = [], asyncio.Event()
    for throttled in (False, True):  # then the answer waits for the failure to be kept
        looking._throttle.enabled = throttled
        async with bench(looking, Keeper()) as at:
            looking.peer = await at.connect()
            looking.peer.stream.setblocking(False)
            looking.looked.clear()
            looking.peer.send([REQUEST, 1, "verify", [{"code": "00000000"}]])
            await asyncio.wait_for(looking.looked.wait(), TIMEOUT)
    assert looking.arrived == [True, True]

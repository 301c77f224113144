"""What the log says of administrative requests that could not be carried out."""

import os
import shlex
import time
from collections.abc import Sequence

import pytest
from support.agents import logged
from support.bench import Keeper, agent, bench, call, in_loop
from support.raw import Seed

from pki2fad.errors import UnusableState
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer
from pki2fad.rules.changes import Answer
from pki2fad.rules.clock import Reading
from pki2fad.wire.messages import Request


def audited(lines: Sequence[str]) -> list[dict[str, str]]:
    """The fields of the lines that are for the audit."""
    fields = [dict(word.split("=", 1) for word in shlex.split(line)[1:]) for line in lines]
    return [of for of in fields if "audit" in of]


@pytest.mark.parametrize("method", ["load", "remove"])
@in_loop
async def test_a_change_that_cannot_be_kept_is_for_the_audit(method: str) -> None:
    keeper, seed = Keeper(), Seed()
    arguments = {"sealed": Seed().hex.encode(), "replace": True} if method == "load" else {}
    async with bench(agent(default=seed), keeper) as at_work:
        peer = await at_work.connect()
        keeper.failure = UnusableState("the disk is full")
        with logged() as lines:
            await call(peer, method, **arguments)
    (fields,) = audited(lines)
    assert fields["uid"] == str(os.geteuid())
    assert (fields["method"], fields["account"]) == (method, "default")
    assert (fields["audit"], fields["code"]) == ("failed", "unavailable")


class Broken(Agent):
    """An agent whose state cannot be written by what the keys do."""

    def handle(self, request: Request, peer: Peer, reading: Reading) -> Answer:
        if request.method in ("rotate", "generate"):
            raise UnusableState("the disk is full")
        return super().handle(request, peer, reading)


@in_loop
async def test_what_fails_while_it_is_carried_out_is_for_the_audit_too() -> None:
    async with bench(agent(Broken), Keeper()) as at_work:
        peer = await at_work.connect()
        with logged() as lines:
            await call(peer, "rotate", private=b"x")
            await call(peer, "generate")
    (fields,) = audited([line for line in lines if line.startswith("refused")])
    assert (fields["method"], fields["audit"], fields["code"]) == ("rotate", "failed", "unavailable")


@in_loop
async def test_the_line_of_a_good_code_says_which_authenticator_it_is_of() -> None:
    main, tablet = Seed(), Seed(digits=8)
    async with bench(agent(default=main), Keeper()) as at_work:
        peer = await at_work.connect()
        with logged() as lines:
            await call(peer, "load", label="tablet", sealed=tablet.hex.encode(), digits=8)
            await call(peer, "verify", code=tablet.code())
            await call(peer, "verify", code=main.code())
            await call(peer, "verify", code="00000000")
            await call(peer, "remove", label="tablet")
            await call(peer, "verify", code=main.code(int(time.time()) // 30 + 1))
    said = [dict(word.split("=", 1) for word in shlex.split(line)[1:]) for line in lines]
    assert [of.get("authenticator") for of in said] == ["tablet", "tablet", "main", None, "tablet", None]
    assert [of["audit"] for of in said if "audit" in of] == ["added", "removed"]

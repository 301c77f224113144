"""The figure of SECURITY.md: what who guesses for a year finds, and that who knows is never refused."""

import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest
from support.agents import (
    SEED,
    STARTED,
    add_authenticators,
    at,
    call,
    make_agent,
    make_keyring,
    reference_code,
)
from support.throttles import DAY, SUCCESSOR, WINDOW

from pki2fad.errors import Throttled
from pki2fad.methods.agent import Agent
from pki2fad.rules.access import Peer, Rule
from pki2fad.rules.clock import Reading
from pki2fad.rules.tally import NO_TALLY
from pki2fad.rules.throttle import Slots, Throttle

END = STARTED.wall + 365 * DAY
PERIOD = 30
FOUR = 12  # with four authenticators

# A code is a number below 2**31 taken modulo 10**6: the more likely ones have this chance.
CHANCE = -(-(2**31) // 10**6) / 2**31

# The budgets, in units for a year: one account, and one uid or origin by the cost of a failure.
ACCOUNT = 162 + 365 * 27


def of_key(cost: int) -> int:
    return 6 * cost + 365 * 3


SEEDS = (SEED, *(bytes([number]) * 20 for number in range(1, 4)))  # of up to four authenticators

UIDS = range(5001, 5009)
HONEST = 5100


@dataclass(frozen=True)
class Caller:
    """Who verifies: a uid, and whom it says that it relays for."""

    uid: int
    origin: str = ""

    def verify(self, agent: Agent, code: str, now: float) -> bool:
        arguments = {"origin": self.origin} if self.origin else {}
        peer = Peer(1, self.uid, frozenset({self.uid}))
        result = call(agent, "verify", peer, at(now), code=code, **arguments)
        return bool(result["valid"])


def guesses(seeds: tuple[bytes, ...]) -> Iterator[Callable[[float], str]]:
    """One code after the other, but none that is good: what is counted is how many could have been."""
    for number in itertools.count():

        def guess(now: float, number: int = number) -> str:
            step = int(now // PERIOD)
            good = {reference_code(seed, step + offset) for seed in seeds for offset in (-1, 0, 1)}
            return next(code for i in range(13) if (code := f"{(number + i) % 10**6:06}") not in good)

        yield guess


def agent_of_a_year(seeds: tuple[bytes, ...]) -> Agent:
    uids = (*UIDS, HONEST)
    rules = [Rule("verify", uids), Rule("relay", uids)]
    throttle = Throttle(b"secret", (), STARTED)
    keyring = make_keyring({"default": seeds[0]})
    add_authenticators(keyring, seeds[1:])
    return make_agent(keyring, rules, throttle=throttle)


def err_and_succeed(agent: Agent, caller: Caller, now: float) -> None:
    """One wrong code and then a right one: neither may be refused."""
    right = reference_code(SEED, int(now // PERIOD))
    wrong = f"{(int(right) + 500_000) % 10**6:06}"
    assert caller.verify(agent, wrong, now) is False
    assert caller.verify(agent, right, now + 1) is True


def attack(seeds: tuple[bytes, ...], callers: Iterable[Caller], honest: Caller, every: float) -> Counter[int]:
    """A year in which callers in turn try as fast as they are let: how many codes were compared in each step.

    Who has waited longest tries first, as long as somebody is let; then all wait as long as was told.
    Meanwhile somebody honest errs and gives a right code, once in so many seconds.
    """
    compared: Counter[int] = Counter()
    agent, queue, code = agent_of_a_year(seeds), deque(callers), guesses(seeds)
    now = errs = STARTED.wall
    while now < END:
        while errs <= now:
            err_and_succeed(agent, honest, errs)
            errs += every
        try:
            assert queue[0].verify(agent, next(code)(now), now) is False
        except Throttled as refusal:
            now += refusal.retry_after or pytest.fail("nothing was said about when to try again")
            continue
        compared[int(now // PERIOD)] += 1
        queue.rotate(-1)
    return compared


def probability(compared: Counter[int], authenticators: int = 1) -> float:
    """The chance that one of the codes was good, however well they were chosen.

    A step's code is compared with what was tried in three steps: one can hope for the more likely codes, and
    try none of them twice.
    """
    missed = 1.0
    for step in {step + offset for step in compared for offset in (-1, 0, 1)}:
        missed *= 1 - sum(compared[step + offset] for offset in (-1, 0, 1)) * CHANCE * authenticators
    return 1 - missed


CALLERS = {
    "one uid": [Caller(UIDS[0])],
    "eight uids": [Caller(uid) for uid in UIDS],
    "a thousand origins": [Caller(uid, f"host-{host}") for host in range(125) for uid in UIDS],
}


@pytest.mark.slow
@pytest.mark.parametrize("every", [DAY, 30 * DAY - 2], ids=["daily", "monthly"])
@pytest.mark.parametrize("callers", CALLERS)
@pytest.mark.parametrize("authenticators", [1, 4])
def test_who_tries_for_a_year_finds_a_code_with_less_than_a_percent_and_refuses_nobody_who_knows(
    authenticators: int, callers: str, every: float
) -> None:
    honest = Caller(UIDS[0], "an honest host")
    compared, cost = attack(SEEDS[:authenticators], CALLERS[callers], honest, every), WINDOW * authenticators
    units = cost * compared.total()
    honest_share = cost * (END - STARTED.wall) / every  # or less: what a full bucket does not take is lost
    of_callers = of_key(cost) * len(CALLERS[callers])
    assert 0.99 * min(ACCOUNT - honest_share, of_callers) <= units <= min(ACCOUNT, of_callers)
    assert 0 < probability(compared, authenticators) < 0.01


@pytest.mark.slow
def test_another_uid_that_knows_is_never_refused_either() -> None:
    compared = attack(SEEDS[:1], CALLERS["eight uids"], Caller(HONEST), DAY)
    assert probability(compared) < 0.01


def test_even_all_that_an_account_lets_by_stays_below_a_percent() -> None:
    """With nobody honest who takes a share of it, and all in one window that could be."""
    burst = Counter({0: 162 // WINDOW} | {10 * day: 27 // WINDOW for day in range(1, 366)})
    assert 3 * burst.total() == ACCOUNT
    assert 0.0099 < probability(burst) < 0.01


# The policy alone: also with more candidates, and over restarts


def compared_in_a_year(keys: int, costs: Iterable[int], *, restarts: bool) -> int:
    """The candidates that were compared with the codes of so many callers, by the same way of trying."""
    throttle, tally = Throttle(b"secret", (), STARTED), NO_TALLY
    slots: Slots = {}
    queue, now, compared = deque(range(keys)), STARTED.wall, 0
    for cost in costs:
        while wait := throttle.wait(throttle.key(queue[0], "", b"default"), tally, cost, now):
            now += math.ceil(wait)  # as callers are told
            if restarts:
                throttle = Throttle(b"secret", slots.items(), Reading(now, 1.0))
                tally = throttle.as_loaded(tally)
        if now >= END:
            break
        tally, changed = throttle.fail(throttle.key(queue[0], "", b"default"), tally, cost, now)
        slots |= changed
        queue.rotate(-1)
        compared += cost
    return compared


COSTS = {
    "a window": [WINDOW],
    "with a successor": [SUCCESSOR],
    "four authenticators": [FOUR],
    "now so, now so": [WINDOW, SUCCESSOR, FOUR],
}


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [False, True], ids=["in one run", "with restarts"])
@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("keys", [1, 8, 1000])
def test_however_many_candidates_there_are_the_year_has_its_budget(
    keys: int, costs: str, restarts: bool
) -> None:
    compared = compared_in_a_year(keys, itertools.cycle(COSTS[costs]), restarts=restarts)
    possible = min(ACCOUNT, of_key(max(COSTS[costs])) * keys)
    lowest = 0.98 if len(COSTS[costs]) == 1 or keys == 1000 else 0.5  # of several costs the highest counts
    assert lowest * possible <= compared <= possible
    assert 1 - (1 - CHANCE) ** compared < 0.01

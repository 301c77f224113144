"""How fast all contestants answer, beside each other."""

from pathlib import Path
from typing import Any

from benchmarks import contestants as names
from benchmarks import goals, peers, plans
from benchmarks.accounts import States
from benchmarks.contestants import Oathtool, PythonClient, Row
from benchmarks.daemons import IN_MEMORY, Older, Pki2fad
from benchmarks.generator import Load, Programs, Result
from benchmarks.report import Cell, Table
from benchmarks.rounds import Rounds, Say, interleaved, latency, median, rate, ratio, started
from benchmarks.sizes import MOST, Size
from benchmarks.supplies import Cycle, Forgiven, Fresh, Generated, refused

ACCOUNTS = 1000  # that all contestants have, but for right codes
THROTTLED = 100  # accounts with too many wrong codes, each of which is counted first


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """A table for each load."""
    rows = all_rows(root, programs, states, size.fresh)
    if size.older:
        rows += _older_rows(root, programs, states, size)
    with started(rows, say):
        measured = interleaved(rows, size.loads, size.rounds, size.seconds, say)
    tables = [table(load, rows, rounds) for load, rounds in measured.items()]
    tables[-1].goals = goals.rates(measured)
    return tables


def all_rows(root: Path, programs: Programs, states: States, fresh: int) -> list[Row]:
    """Every contestant, not started."""
    asked = plans.wrong(ACCOUNTS)
    echo, lookup = peers.echo(root / "echo", programs), peers.lookup(root / "look", programs, asked)
    redis, naive = peers.Redis(root / "redis", asked), peers.naive(root / "naive", ACCOUNTS)
    radius = peers.freeradius(root / "radius", ACCOUNTS)
    slow, fast = (peers.fastapi(root / f"fastapi{way}", ACCOUNTS, fast=way) for way in (False, True))
    daemon = Pki2fad(root / "generate", states, ACCOUNTS)
    right = Pki2fad(root / "right", states, fresh)
    memory = Pki2fad(root / "memory", states, fresh, command=IN_MEMORY)
    wrong = Pki2fad(root / "wrong", states, fresh)
    throttled = Pki2fad(root / "throttled", states, THROTTLED)
    single = Load(512, 1)  # no other under way on a connection
    few = Load(64, 1)  # a socket's buffer holds some 250 datagrams, and loses more

    def row(name: str, server: names.Server, make: Any, most: Load = MOST) -> Row:
        return Row(name, programs, server, make, most)

    def cycle(name: str, exchanges: Any) -> Any:
        return lambda: Cycle(root / f"{name}.plan", exchanges())

    return [
        row(names.ECHO, echo, cycle("echo", lambda: plans.echo(asked))),
        row(names.LOOKUP, lookup, cycle("look", lambda: plans.lookup(asked))),
        row(names.REDIS, redis, cycle("redis", lambda: plans.redis_get(asked))),
        row(names.FREERADIUS, radius, cycle("radius", lambda: peers.radius_plan(radius, asked)), few),
        row(names.FASTAPI, slow, cycle("fastapi", lambda: peers.http_plan(slow, asked)), single),
        row(names.FAST_FASTAPI, fast, cycle("fast", lambda: peers.http_plan(fast, asked)), single),
        Oathtool(programs),
        row(names.NAIVE, naive, cycle("naive", lambda: peers.naive_plan(naive, asked))),
        row(names.RIGHT, right, lambda: Fresh(root / "right.plan", fresh)),
        row(names.IN_MEMORY_RIGHT, memory, lambda: Fresh(root / "memory.plan", fresh)),
        row(names.GENERATE, daemon, lambda: Generated(root / "generate.plan", ACCOUNTS)),
        row(names.GENERATE_OTHER, daemon, lambda: Generated(root / "other.plan", ACCOUNTS, other=True)),
        row(names.WRONG, wrong, lambda: Forgiven(root / "wrong.plan", programs, wrong)),
        row(names.THROTTLED, throttled, lambda: refused(root / "throttled.plan", throttled)),
        PythonClient(names.CLIENT, programs, daemon, Load(1, 1)),
        PythonClient(names.ASYNC_CLIENT, programs, daemon, MOST),
    ]


def _older_rows(root: Path, programs: Programs, states: States, size: Size) -> list[Row]:
    """The same of the version that another interpreter has."""
    few = Older(root / "older", states, ACCOUNTS, size.older)
    many = Older(root / "olderright", states, size.fresh, size.older)
    return [
        Row(names.OLDER_GENERATE, programs, few, lambda: Generated(root / "older.plan", ACCOUNTS)),
        Row(names.OLDER_RIGHT, programs, many, lambda: Fresh(root / "olderright.plan", size.fresh)),
    ]


def table(load: Load, rows: list[Row], rounds: Rounds) -> Table:
    """The rows under one load."""
    connections = "1 connection" if load.connections == 1 else f"{load.connections} connections"
    where = "server and client on one core" if len(set(load.cores)) == 1 else "one core for each"
    found = Table(
        f"rates {load}",
        f"{connections}, {load.depth} under way on each; {where}",
        ["contestant", "requests/s", "of C echo", "p50 us", "of C echo", "p99 us", "of C echo"],
        data={name: [_plain(result) for result in results] for name, results in rounds.items()},
    )
    echo = rounds[names.ECHO]
    for row in rows:
        trouble = row.trouble or row.failures.get(load)
        if trouble is not None:
            found.rows.append([row.name, trouble])
        elif row.name not in rounds:
            found.rows.append([row.name, *[None] * 6])
        else:
            found.rows.append([row.name, *_cells(rounds[row.name], echo)])
    return found


def _cells(results: list[Result], echo: list[Result]) -> list[Cell]:
    values = (rate, latency("p50"), latency("p99"))
    return [cell for value in values for cell in (median(results, value), ratio(results, echo, value))]


def _plain(result: Result) -> dict[str, float]:
    return {"requests": result.requests, "seconds": result.seconds, "rate": result.rate, **result.latencies}

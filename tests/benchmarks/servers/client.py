"""Asks the daemon for codes through the project's own clients, and prints what c/load.c prints.

client.py Client|AsyncClient SOCKET ASKED SECONDS CONNECTIONS DEPTH CORE, where ASKED is JSON: a list of
accounts.
"""

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

Asked = Iterator[str]


def block(path: str, asked: Asked, seconds: float) -> list[float]:
    """One `Client`, one call after the other."""
    from pki2fad.client import Client

    taken = []
    with Client(path) as client:
        now = time.perf_counter()
        end = now + seconds
        while now < end:
            begun = now
            client.generate(next(asked))
            now = time.perf_counter()
            taken.append(now - begun)
    return taken


async def concurrently(path: str, asked: Asked, seconds: float, connections: int, depth: int) -> list[float]:
    """So many `AsyncClient`s, each with so many calls under way."""
    from pki2fad.client import AsyncClient

    taken: list[float] = []

    async def call(client: AsyncClient, end: float) -> None:
        while (begun := time.perf_counter()) < end:
            await client.generate(next(asked))
            taken.append(time.perf_counter() - begun)

    async def use(end: float) -> None:
        async with AsyncClient(path) as client, asyncio.TaskGroup() as calls:
            for _ in range(depth):
                calls.create_task(call(client, end))

    end = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as clients:
        for _ in range(connections):
            clients.create_task(use(end))
    return taken


def main() -> None:
    kind, path, given, seconds, connections, depth, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    asked = itertools.cycle(json.loads(Path(given).read_text()))
    begun = time.perf_counter()
    if kind == "Client":
        taken = block(path, asked, float(seconds))
    else:
        taken = asyncio.run(concurrently(path, asked, float(seconds), int(connections), int(depth)))
    elapsed = time.perf_counter() - begun
    cuts = [cut * 1e6 for cut in statistics.quantiles(taken, n=1000)]
    print(
        json.dumps(
            {
                "requests": len(taken),
                "seconds": elapsed,
                "next": 0,
                "count": len(taken),
                "p50": cuts[499],
                "p99": cuts[989],
                "p999": cuts[998],
                "max": max(taken) * 1e6,
            }
        )
    )


if __name__ == "__main__":
    main()

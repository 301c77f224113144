"""How fast seeds are loaded, one by one and in batches, and how much of that is RSA."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import accounts, plans
from benchmarks.accounts import States
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Load, Programs
from benchmarks.plans import Exchange
from benchmarks.report import Table
from benchmarks.rounds import Say
from benchmarks.sizes import Size

from pki2fad.crypto import sealing
from pki2fad.crypto.rsakeys import PrivateKey

_LOAD = Load(1, 16)
_OPENS = 100  # of which the median is taken


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """Two rows: seeds in a second, and the share of the RSA opens."""
    public = states.key.public_key()
    sealed = sealing.seal_seed(public, bytearray(32))
    kinds: dict[str, Callable[[int], Sequence[Exchange]]] = {
        "load": lambda first: plans.load(sealed, first, size.loaded),
        "load_batch": lambda first: plans.load_batch(accounts.batches(public, first, size.loaded)),
    }
    columns = ["", "seeds/s", "share of RSA opens", "100 000 would take, s"]
    title = f"seeds in rounds of {size.loaded}, {_LOAD.depth} requests under way on one connection"
    table = Table("loading", title, columns, data={})
    for name, exchanges in kinds.items():
        daemon = Pki2fad(root / name, states, 0)
        rates, shares = [], []
        try:
            daemon.start()
            daemon.pin(_LOAD)
            for number in range(size.rounds):
                say(f"{name}: round {number + 1} of {size.rounds}")
                plan = plans.write(root / "plan", exchanges(number * size.loaded))
                result = programs.load(daemon.address, plan, _LOAD, "--cold")
                rates.append(size.loaded / result.seconds)
                shares.append(_open_seconds(states.key, sealed, _LOAD.cores[0]) * result.rate)
        finally:
            daemon.stop()
        rate = statistics.median(rates)
        table.rows.append([name, rate, statistics.median(shares), 100_000 / rate])
        table.data[name] = rates
    return [table]


def _open_seconds(key: PrivateKey, sealed: bytes, core: int) -> float:
    """How long it takes alone, on the daemon's core."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    taken = []
    for _ in range(_OPENS):
        begun = time.perf_counter()
        sealing.open_seed(key, sealed)
        taken.append(time.perf_counter() - begun)
    os.sched_setaffinity(0, ours)
    return statistics.median(taken)

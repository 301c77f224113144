"""`load` of many seeds, and how much of it is the RSA operation that each takes."""

import os
import statistics
import time
from pathlib import Path

from benchmarks import plans
from benchmarks.accounts import States
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Load, Programs
from benchmarks.report import Table
from benchmarks.rounds import Say
from benchmarks.sizes import Size

from pki2fad import envelope
from pki2fad.envelope import PrivateKey

_LOAD = Load(1, 16)
_OPENS = 100  # of which the median is taken


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """One row: seeds in a second, and the share of the RSA opens."""
    daemon = Pki2fad(root / "loading", states, 0)
    sealed = envelope.seal_seed(states.key.public_key(), bytearray(32))
    rates, shares = [], []
    try:
        daemon.start()
        daemon.pin(_LOAD)
        for number in range(size.rounds):
            say(f"load: round {number + 1} of {size.rounds}")
            exchanges = plans.load(sealed, number * size.loaded, size.loaded)
            plan = plans.write(root / "plan", exchanges)
            result = programs.load(daemon.address, plan, _LOAD, "--cold")
            rates.append(result.rate)
            shares.append(_open_seconds(states.key, sealed, _LOAD.cores[0]) * result.rate)
    finally:
        daemon.stop()
    columns = ["seeds a round", "seeds/s", "share of RSA opens", "100 000 would take, s"]
    table = Table("loading", f"load, {_LOAD.depth} under way on one connection", columns, data=rates)
    rate = statistics.median(rates)
    table.rows.append([str(size.loaded), rate, statistics.median(shares), 100_000 / rate])
    return [table]


def _open_seconds(key: PrivateKey, sealed: bytes, core: int) -> float:
    """How long it takes alone, on the daemon's core."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    taken = []
    for _ in range(_OPENS):
        begun = time.perf_counter()
        envelope.open_seed(key, sealed)
        taken.append(time.perf_counter() - begun)
    os.sched_setaffinity(0, ours)
    return statistics.median(taken)

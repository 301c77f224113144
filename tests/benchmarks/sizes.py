"""How much is measured: for figures, for a million accounts, or to see that it all works."""

from dataclasses import dataclass, replace

from benchmarks.generator import Load

MOST = Load(512, 32)


@dataclass(frozen=True, slots=True)
class Size:
    """All numbers of a run."""

    rounds: int = 7
    seconds: float = 1.0  # of one measurement
    loads: tuple[Load, ...] = (Load(1, 1), Load(64, 1), Load(512, 1), Load(1, 32), Load(64, 32), MOST)
    fresh: int = 100_000  # accounts for codes that are good once
    counts: tuple[int, ...] = (1, 1000, 100_000)  # accounts of the daemons that are compared
    turning: int = 100_000  # accounts in use at the end of a step
    period: int = 30  # seconds in such a step
    processes: int = 21  # rounds of what starts a process
    loaded: int = 2000  # seeds, in one round of `load`
    idle: int = 10_000  # connections
    slow: int = 500
    requests: int = 20_000_000  # of the soak
    older: str = ""  # the interpreter that has an older version, to be measured beside this one
    slice: float = 10.0  # seconds of it after which is looked at memory and descriptors


NORMAL = Size()
FULL = replace(NORMAL, counts=(1, 1000, 100_000, 1_000_000), loaded=100_000 // 7)
REDUCED = Size(
    rounds=1,
    seconds=0.05,
    loads=(Load(1, 1), Load(64, 1), Load(8, 32)),
    fresh=2000,
    counts=(1, 1000),
    turning=200,
    period=1,
    processes=1,
    loaded=20,
    idle=100,
    slow=10,
    requests=200_000,
    slice=1.0,
)

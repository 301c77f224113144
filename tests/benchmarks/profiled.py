"""Where the daemon's time goes: one workload under cProfile."""

import io
import pstats
import sys
from pathlib import Path

from benchmarks.accounts import States
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Load, Programs
from benchmarks.sizes import Size
from benchmarks.supplies import Fresh, Supply, used

_LOAD = Load(64, 1)
_LINES = 30


def text(root: Path, programs: Programs, states: States, size: Size, *, right: bool) -> str:
    """The functions that took the most time themselves, for right codes or for `generate`."""
    profile = root / "profile"
    command = [sys.executable, "-P", "-m", "cProfile", "-o", str(profile)]
    count = size.fresh if right else 1000
    daemon = Pki2fad(root / "profiled", states, count, command=command)
    path = root / "plan"
    supply: Supply = Fresh(path, count) if right else used(count, path)
    try:
        daemon.start()
        daemon.pin(_LOAD)
        plan, options = supply.take(_LOAD)
        programs.load(daemon.address, plan, _LOAD, *options, seconds=10 * size.seconds)
        daemon.daemon.stop()
    finally:
        daemon.stop()
    out = io.StringIO()
    pstats.Stats(str(profile), stream=out).strip_dirs().sort_stats("tottime").print_stats(_LINES)
    return out.getvalue()

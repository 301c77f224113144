"""Clients on `root.sock` and `verify.sock`, alone and beside attackers: right codes and their latency."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import goals
from benchmarks.accounts import States
from benchmarks.daemons import Pki2fad
from benchmarks.generator import Failed, Load, Programs, Result
from benchmarks.peers import SERVERS
from benchmarks.report import Cell, Table
from benchmarks.rounds import Say, latency, median, ratio
from benchmarks.sizes import Size
from benchmarks.supplies import Fresh, mark_all, wait_for_step

from pki2fad.server.payer import POOL

_LOAD = Load(1, 1)
_GROUP = 47_110
_STRANGER, _VERIFIER = 47_111, 47_112  # users without a role, and with `verify`
_SETTINGS = f'[[access]]\nrole = "verify"\nwho = [{_VERIFIER}]\n'

ALONE = "alone"
# What each attack is called, what attacker.py calls it, and where it comes from.
ATTACKS = {
    "connections, closed at once": ("connects", "socket", _STRANGER),
    "silent connections": ("silent", "socket", _STRANGER),
    "half messages": ("halves", "socket", _STRANGER),
    "13 000 arguments": ("arguments", "socket", _STRANGER),
    "verify from 4000 connections": ("verifies", "verify.sock", _VERIFIER),
}
_ASKING = [(place, anew) for anew in (False, True) for place in ("root.sock", "verify.sock")]

# Bytes that the daemon may hold beside the pool: connections, and what was needed once and is free again.
_BESIDE_THE_POOL = 64 * 1024 * 1024


def measure(root: Path, programs: Programs, states: States, size: Size, say: Say) -> list[Table]:
    """Right codes on each socket, over one connection and over a new one each time, beside each attack."""
    if os.geteuid() != 0:
        return [
            Table("siege", "siege", ["", ""], [["siege", "missing: root, since attackers are other users"]])
        ]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    daemon = Pki2fad(root / "siege", states, size.fresh, settings=_SETTINGS)
    supply = Fresh(root / "plan", size.fresh)
    results: dict[tuple[str, str, bool], list[Result]] = {}
    grown = []
    try:
        daemon.start()
        _let_others_in(daemon.root)
        # The limit on wrong codes is not what is attacked: a caller that is known has a budget of its own.
        wait_for_step(mark_all(programs, daemon, root / "plan") + 1)
        before = daemon.memory
        for number in range(size.rounds):
            for attack in (ALONE, *ATTACKS):
                say(f"siege: round {number + 1} of {size.rounds}, {attack}")
                with _attack(daemon.root, attack):
                    for place, anew in _ASKING:
                        result = _ask(programs, supply, daemon.root / place, size, anew=anew)
                        results.setdefault((attack, place, anew), []).append(result)
                    grown.append(daemon.memory - before)
                daemon.settle()
                daemon.tidy()
    finally:
        daemon.stop()
    return [_table(results, max(grown))]


def _let_others_in(root: Path) -> None:
    for directory in (root, root.parent, root.parent.parent):  # up to that of the run
        directory.chmod(0o755)
    os.chown(root / "verify.sock", 0, _GROUP)


def _ask(programs: Programs, supply: Fresh, address: Path, size: Size, *, anew: bool) -> Result:
    plan, options = supply.take(_LOAD)
    options += ["--core=-1", *(["--anew"] if anew else [])]
    result = programs.load(str(address), plan, _LOAD, *options, seconds=size.seconds)
    supply.used(result)
    return result


@contextlib.contextmanager
def _attack(root: Path, attack: str) -> Iterator[None]:
    """One attacker on each core, until the end of the block."""
    with contextlib.ExitStack() as stack:
        attackers = []
        cores = sorted(os.sched_getaffinity(0)) if attack in ATTACKS else []
        for _ in cores:
            kind, place, uid = ATTACKS[attack]
            command = [sys.executable, "-P", str(SERVERS / "attacker.py"), kind, str(root / place), str(uid)]
            attacker = subprocess.Popen(
                [*command, str(_GROUP)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "ATTACKERS": str(len(cores))},
            )
            stack.enter_context(attacker)
            stack.callback(attacker.kill)
            attackers.append(attacker)
        for attacker in attackers:
            assert attacker.stdout is not None
            if attacker.stdout.readline() != b"ready\n":
                raise Failed(f"the attack with {attack} does not begin; are there enough descriptors?")
        yield


def _table(results: dict[tuple[str, str, bool], list[Result]], grown: int) -> Table:
    header = ["", "", "p50 us", "of alone", "p99 us", "of alone"]
    table = Table("siege", "right codes, alone and beside attackers, one on each core", header)
    for place, anew in _ASKING:
        for attack in (ALONE, *ATTACKS):
            found, alone = results[attack, place, anew], results[ALONE, place, anew]
            cells: list[Cell] = []
            for name in ("p50", "p99"):
                cells += [median(found, latency(name)), ratio(found, alone, latency(name))]
            table.rows.append([f"{place}{', connected anew' if anew else ''}", attack, *cells])
            if attack != ALONE:
                what = f"{attack}: {place}{', anew' if anew else ''}"
                p99 = median(found, latency("p99"))
                table.goals.append(goals.row(f"{what}: p50 of that alone", cells[1], most=3))
                table.goals.append(goals.row(f"{what}: p99, ms", p99 and p99 / 1000, most=50))
    table.rows.append(["memory that the daemon took", f"{grown / 2**20:.0f} MiB"])
    bound = (POOL + _BESIDE_THE_POOL) / 2**20
    table.goals.append(goals.row("memory under attack, MiB", grown / 2**20, most=bound))
    return table

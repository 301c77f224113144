"""Measure pki2fad against the limit, and against what users would pick instead; see README.md.

.venv/bin/python -P tests/benchmarks/run.py [PART]...
"""

import argparse
import dataclasses
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import (
    crowds,
    goals,
    growth,
    loading,
    plot,
    profiled,
    rates,
    report,
    siege,
    soak,
    starts,
    turning,
)
from benchmarks.accounts import States
from benchmarks.generator import Failed, Missing, Programs
from benchmarks.report import Cell, Table
from benchmarks.sizes import FULL, NORMAL, REDUCED, Size
from support.daemon import short_directory

from pki2fad.crypto import rsakeys

Part = Callable[[Path, Programs, States, Size, Callable[[str], None]], list[Table]]

PARTS: dict[str, Part] = {
    "rates": rates.measure,
    "growth": growth.measure,
    "turning": turning.measure,
    "starts": starts.measure,
    "loading": loading.measure,
    "crowds": crowds.measure,
    "siege": siege.measure,
    "soak": soak.measure,
}
_BY_NAME_ALONE = ("soak",)  # long, and of no use beside others


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit status: 1 if somebody did not answer as they have to."""
    options = _parse(arguments)
    size = _size(options)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was started is ended then
    try:
        with short_directory(tempfile.gettempdir()) as root:
            programs, states = _prepare(root)
            if options.profile:
                (root / "profile").mkdir()
                print(
                    profiled.text(root / "profile", programs, states, size, right=options.profile == "right")
                )
                return 0
            about = {**report.machine(root), "command": "run.py " + shlex.join(arguments or sys.argv[1:])}
            tables = _measure(options.parts, root, programs, states, size)
            _write(options, tables, about)
    except (Missing, Failed) as error:
        print(f"run.py: {type(error).__name__.lower()}: {error}", file=sys.stderr)
        return 1
    return 1 if any(_failed(row) for table in tables for row in table.rows) else 0


def _prepare(root: Path) -> tuple[Programs, States]:
    (root / "programs").mkdir()
    (root / "states").mkdir()
    programs = Programs(root / "programs")
    return programs, States(root / "states", rsakeys.generate_key())


def _measure(parts: Sequence[str], root: Path, programs: Programs, states: States, size: Size) -> list[Table]:
    tables = []
    rows: list[list[Cell]] = []
    for name in parts or [name for name in PARTS if name not in _BY_NAME_ALONE]:
        (root / name).mkdir()
        for table in _found(name, root / name, programs, states, size):
            _show(table)
            tables.append(table)
            rows += table.goals
    if rows:
        tables.append(goals.table(rows))
        _show(tables[-1])
    return tables


def _found(name: str, root: Path, programs: Programs, states: States, size: Size) -> list[Table]:
    """What a part found; one that fails keeps no other from being measured."""
    try:
        return PARTS[name](root, programs, states, size, _say)
    except Failed as error:
        return [Table(name, name, ["", ""], [[name, f"failed: {error}"]])]


def _write(options: argparse.Namespace, tables: list[Table], about: dict[str, str]) -> None:
    if options.json is not None:
        report.write_json(options.json, about, tables)
    if options.plot is not None:
        plot.draw(options.plot, tables, about)
    print("\n" + "\n".join(f"{name}: {value}" for name, value in about.items()))


def _show(table: Table) -> None:
    _say("")
    print(table.text(), flush=True)


def _say(text: str) -> None:
    """What it is at, on a terminal alone, in one line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _failed(row: list[Cell]) -> bool:
    return len(row) == 2 and str(row[1]).startswith("failed: ")


def _size(options: argparse.Namespace) -> Size:
    given = {name: getattr(options, name) for name in ("rounds", "seconds", "requests", "older")}
    size: Size = options.size
    return dataclasses.replace(size, **{name: value for name, value in given.items() if value is not None})


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py", description="Measure pki2fad against others.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all but soak, or of: {', '.join(PARTS)}")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--full", dest="size", action="store_const", const=FULL, default=NORMAL, help="a million accounts too"
    )
    sizes.add_argument(
        "--reduced", dest="size", action="store_const", const=REDUCED, help="in seconds; no figures"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each is measured")
    parser.add_argument("--seconds", type=float, metavar="S", help="of one measurement")
    parser.add_argument("--requests", type=int, metavar="N", help="of the soak")
    parser.add_argument(
        "--older", metavar="PYTHON", help="measure the version that this interpreter has, too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the rates")
    parser.add_argument(
        "--profile", choices=("generate", "right"), help="only show where the daemon's time goes"
    )
    options = parser.parse_args(arguments)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}")
    if options.plot is not None and options.parts and "rates" not in options.parts:
        parser.error("--plot draws the rates, which are not measured")
    return options


if __name__ == "__main__":
    sys.exit(main())

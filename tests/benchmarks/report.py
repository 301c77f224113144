"""What was found: tables, as text and as JSON."""

import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pki2fad import __version__

Cell = str | float | int | None


@dataclass(slots=True)
class Table:
    """Rows of cells under columns; the first cell of a row is its name, None is what does not apply."""

    key: str
    title: str
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    data: Any = None  # for JSON alone: every round
    goals: list[list[Cell]] = field(default_factory=list)  # rows of `goals.table`

    def text(self) -> str:
        """As lines of text."""
        cells = [self.columns, *([_text(cell) for cell in row] for row in self.rows)]
        full = [row for row in cells if len(row) == len(self.columns)]  # others have a remark alone
        widths = [max(len(row[place]) for row in full) for place in range(len(self.columns))]
        widths[0] = max(len(row[0]) for row in cells)
        lines = [
            "  ".join(
                cell.ljust(width) if place == 0 or len(row) != len(self.columns) else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=False))
            ).rstrip()
            if len(row) == len(self.columns)
            else f"{row[0].ljust(widths[0])}  {row[1]}"
            for row in cells
        ]
        return "\n".join(["", self.title, "-" * len(self.title), *lines])


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.0f}" if cell >= 100 else f"{cell:.3g}" if cell < 1 else f"{cell:.1f}"
    return str(cell)


def machine(directory: Path) -> dict[str, Any]:
    """What a figure depends on; nothing in it names the machine."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "pki2fad": __version__,
        "state on": _file_system(directory),
    }


def _file_system(path: Path) -> str:
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split()[1:3] for line in file]
    resolved = str(path.resolve())
    under = [(len(where), kind) for where, kind in mounts if resolved.startswith(where)]
    return max(under)[1] if under else "unknown"


def write_json(path: Path, about: dict[str, Any], tables: list[Table]) -> None:
    """Write all that was found."""
    found = {
        table.key: {"title": table.title, "columns": table.columns, "rows": table.rows, "data": table.data}
        for table in tables
    }
    path.write_text(json.dumps({"machine": about, "tables": found}, indent=1) + "\n")

"""A picture of the rates: each contestant's share of what C echo answers, for each load."""

from pathlib import Path
from typing import Any

from benchmarks import contestants as names
from benchmarks.generator import Missing
from benchmarks.report import Table

_OURS = (names.RIGHT, names.WRONG, names.THROTTLED, names.GENERATE, names.GENERATE_OTHER)

# What only a comparison needs.
_LEFT_OUT = (names.CLIENT, names.ASYNC_CLIENT, names.IN_MEMORY_RIGHT, *names.OLDER)


def draw(path: Path, tables: list[Table], about: dict[str, Any]) -> None:
    """Write a PNG. Raises `Missing` without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise Missing("pip install '.[bench]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [table for table in tables if table.key.endswith(" x 1")]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(4.5 * len(shown), 5), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, table in zip(axes[0], shown, strict=True):
        rows = [row for row in table.rows if row[0] not in _LEFT_OUT]
        bars = [(str(row[0]).strip(), row[2] if len(row) > 2 else None) for row in rows]
        labels = [label for label, _ in bars]
        shares = [share if isinstance(share, float) else 0.0 for _, share in bars]
        colours = ["tab:blue" if label in _OURS else "tab:gray" for label in labels]
        drawn = axis.barh(labels, shares, color=colours)
        axis.bar_label(drawn, [f"{share:.2g}" if share else "" for share in shares], padding=3, fontsize=8)
        axis.set(xscale="log", xlim=(0.001, 4), title=table.title.partition(";")[0])
    axes[0][0].invert_yaxis()
    cores, processor, date = about["cores"], about["processor"], about["date"]
    figure.supxlabel(f"requests a second, of C echo's ({date}; {cores} cores, {processor})", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)

"""What the command line prints of answers."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["class_scores", "print_classes", "print_summaries"]


def class_scores(metrics: Mapping[str, Any], out: Path) -> str:
    """The scores of a classifier beside the trivial predictor, in two lines."""
    lines = []
    for name, block in (("", metrics["overall"]), ("majority class: ", metrics["overall"]["baselines"]["majority"])):
        scores = ", ".join(
            f"{label} {block[key]['value']:.3f} ({block[key]['low']:.3f} to {block[key]['high']:.3f})"
            for key, label in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"))
        )
        lines.append(f"{name}{scores}")
    return f"{metrics['overall']['n']} objects: {lines[0]}\n{lines[1]}\n{out / 'report.html'}"


def print_summaries(columns: dict[str, Any], names: list[str], estimator: Any, rows: int = 20) -> None:
    """Medians and 68 % intervals of the first objects."""
    table = Table(caption="median with 16 and 84 % quantiles")
    for column in ("id", "surveys"):
        table.add_column(column)
    for name in names:
        unit = estimator.parameter(name).unit
        table.add_column(f"{name} [{unit}]" if unit else name, justify="right")
    for i in range(min(rows, len(columns["id"]))):
        cells = []
        for name in names:
            low, mid, high = (columns[f"{name}_{q}"][i] for q in ("q16", "q50", "q84"))
            cells.append(f"{mid:.4g} [{low:.4g}, {high:.4g}]")
        table.add_row(str(columns["id"][i]), f"{columns['surveys'][i]} {columns['flag'][i]}".strip(), *cells)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if len(columns["id"]) > rows:
        console.print(f"... and {len(columns['id']) - rows} more: write all of them with --out FILE")


def print_classes(columns: dict[str, Any], estimator: Any, rows: int = 20) -> None:
    """Class probabilities of the first objects."""
    name = estimator.parameter_names[0]
    table = Table(caption="class probabilities; anomaly: share of simulated objects that are less unusual, above 1 beyond all of them")
    for column in ("id", "surveys", name, *estimator.classes, "anomaly"):
        table.add_column(column)
    for i in range(min(rows, len(columns["id"]))):
        shares = [f"{columns[f'{name}_p_{c}'][i]:.3f}" for c in estimator.classes]
        seen = f"{columns['surveys'][i]} {columns['flag'][i]}".strip()
        table.add_row(str(columns["id"][i]), seen, str(columns[name][i]), *shares, f"{columns['anomaly'][i]:.2f}")
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if len(columns["id"]) > rows:
        console.print(f"... and {len(columns['id']) - rows} more: write all of them with --out FILE")

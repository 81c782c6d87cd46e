"""What the command line prints of answers."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["class_scores", "print_classes", "print_labels", "print_summaries", "print_votes", "target_scores"]


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


def target_scores(metrics: Mapping[str, Any], out: Path) -> str:
    """The score of votes or labels beside the base rates, in two lines."""
    overall = metrics["overall"]
    nll, base, gain = (
        f"{overall[key]['value']:.3f} ({overall[key]['low']:.3f} to {overall[key]['high']:.3f})" if overall[key]["low"] is not None
        else f"{overall[key]['value']:.3f}" for key in ("nll", "baseline_nll", "gain")
    )
    return f"{overall['n']} objects: NLL {nll} nats; of the base rates {base}; gain {gain}\n{out / 'report.html'}"


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
    shown = {name: columns[name]} | {c: _rounded(columns[f"{name}_p_{c}"]) for c in estimator.classes}
    _print_answers("class probabilities", columns, shown, rows)


def print_votes(columns: dict[str, Any], estimator: Any, rows: int = 20) -> None:
    """Expected fractions of votes of the first objects."""
    shown: dict[str, Any] = {}
    for name, answers in estimator.prior.questions.items():
        shown[name] = columns[name]
        for answer in answers:
            mean, low, high = (columns[f"{name}_{answer}_{what}"][:rows] for what in ("mean", "q05", "q95"))
            shown[f"{name}: {answer}"] = [f"{m:.2f} [{a:.2f}, {b:.2f}]" for m, a, b in zip(mean, low, high, strict=True)]
    _print_answers("leading answers and fractions of votes with 5 and 95 % quantiles", columns, shown, rows)


def print_labels(columns: dict[str, Any], estimator: Any, rows: int = 20) -> None:
    """Probabilities of the labels of the first objects."""
    _print_answers("probabilities of labels", columns, {k: _rounded(columns[f"{k}_probability"]) for k in estimator.parameter_names}, rows)


def _rounded(values: Any) -> list[str]:
    return [f"{value:.3f}" for value in values]


def _print_answers(what: str, columns: dict[str, Any], shown: dict[str, Any], rows: int) -> None:
    """A table of what is shown beside identifiers, surveys, anomaly scores and, where there are some, statuses."""
    table = Table(caption=f"{what}; anomaly: share of simulated objects that are less unusual, above 1 beyond all of them")
    last = ["anomaly", "status"] if "status" in columns else ["anomaly"]
    for column in ("id", "surveys", *shown, *last):
        table.add_column(column)
    for i in range(min(rows, len(columns["id"]))):
        seen = f"{columns['surveys'][i]} {columns['flag'][i]}".strip()
        status = [str(columns["status"][i])] if "status" in columns else []
        table.add_row(str(columns["id"][i]), seen, *(str(v[i]) for v in shown.values()), f"{columns['anomaly'][i]:.2f}", *status)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if len(columns["id"]) > rows:
        console.print(f"... and {len(columns['id']) - rows} more: write all of them with --out FILE")

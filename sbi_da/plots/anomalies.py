"""Do the scores of objects of unknown classes stand apart?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sbi_da.plots.classification import interval_label, known
from sbi_da.plots.style import COLOURS, INK, style_axes

__all__ = ["anomaly_figure"]


def anomaly_figure(
    score: np.ndarray, unknown: np.ndarray, auroc: Mapping[str, Any] | None = None, thresholds: Mapping[str, float] | None = None
) -> Figure:
    """Anomaly scores of objects of known and of unknown classes, each of area one.

    Args:
        score: shape ``(n,)``.
        unknown: mask, shape ``(n,)``.
        auroc: figure for the title.
        thresholds: by name; drawn as lines.
    """
    fig = Figure(figsize=(5.2, 3.4), layout="constrained")
    ax = fig.subplots()
    s, mask = np.asarray(score, float), np.asarray(unknown, bool)
    span = np.percentile(s, [0.2, 99.8])
    span = span if span[1] > span[0] else span + np.array([-0.5, 0.5])
    fewest = min(mask.sum() or len(s), (~mask).sum() or len(s))
    bins = int(np.clip(2 * np.cbrt(fewest), 8, 30))
    edges = np.linspace(span[0], span[1], bins + 1)
    for name, own, colour, fill in (("known classes", ~mask, COLOURS[0], True), ("unknown classes", mask, COLOURS[1], False)):
        if own.any():
            height = np.histogram(s[own].clip(*span), edges)[0] / own.sum() / np.diff(edges)
            style: dict[str, Any] = {"fill": True, "alpha": 0.45, "lw": 0} if fill else {"lw": 1.8}
            ax.stairs(height, edges, color=colour, label=f"{name} ({own.sum():,})", **style)
    _threshold_lines(ax, thresholds or {}, span)
    ax.set_xlim(*span)
    title = f"AUROC {interval_label('', auroc).strip()}" if known(auroc) else ""
    style_axes(ax, "anomaly score", "density", title)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    return fig


def _threshold_lines(ax: Axes, thresholds: Mapping[str, float], span: np.ndarray) -> None:
    """Vertical lines, named in the legend by their line style."""
    shown = {name: cut for name, cut in thresholds.items() if span[0] <= cut <= span[1]}
    for i, (name, cut) in enumerate(shown.items()):
        ax.axvline(cut, color=INK, lw=1.1, ls=(":", "-.", "--", "-")[i % 4], label=name)

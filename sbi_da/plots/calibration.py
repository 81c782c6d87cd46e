"""Is the posterior calibrated? Coverage, ranks, TARP."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binom

from sbi_da.plots.style import BAND, COLOURS, INK, panels, style_axes, symmetric

__all__ = ["coverage_curves", "coverage_error_bars", "rank_histograms", "tarp_curve"]


def coverage_curves(levels: Sequence[float], curves: Mapping[str, Sequence[float]], n: int) -> Figure:
    """Empirical minus nominal coverage, with the 95 % band of ``n`` independent objects.

    Args:
        levels: nominal levels.
        curves: empirical coverage by label, as many as ``levels``.
        n: number of objects.
    """
    fig = Figure(figsize=(7.4, 3.3), layout="constrained")
    left, right = fig.subplots(1, 2)
    x = np.asarray(levels, float)
    low, high = binom.interval(0.95, n, x)[0] / n, binom.interval(0.95, n, x)[1] / n
    for ax, base in ((left, np.zeros_like(x)), (right, x)):
        ax.fill_between(100 * x, 100 * (low - base), 100 * (high - base), color=BAND, lw=0, label=f"95 % for n = {n:,}")
        ax.plot([0, 100], [0, 100 * (base is not x)], color=INK, lw=0.8, ls=":")
        for i, (name, curve) in enumerate(curves.items()):
            y = 100 * (np.asarray(curve, float) - base)
            ax.plot(100 * x, y, color=COLOURS[i % 7], lw=1.4, ls=("-", "--", "-.")[i // 7 % 3], label=name)
        ax.set_xlim(0, 100)
    left.set_ylim(0, 100)
    left.set_aspect("equal")
    style_axes(left, "nominal level [%]", "truths inside [%]")
    style_axes(right, "nominal level [%]", "inside − nominal [percentage points]")
    symmetric(right)
    handles, labels = right.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8, labelcolor=INK, handlelength=1.4)
    return fig


def rank_histograms(
    histograms: Mapping[str, Sequence[int]], p_values: Mapping[str, float | None] | None = None
) -> Figure:
    """Ranks of the truth among the draws, with the 95 % binomial band of a uniform law in each bin.

    Args:
        histograms: counts by parameter.
        p_values: of uniformity, by parameter, for the titles.
    """
    fig, axes = panels(len(histograms))
    for i, (ax, (name, content)) in enumerate(zip(axes, histograms.items(), strict=True)):
        counts = np.asarray(content, float)
        total = max(int(counts.sum()), 1)
        edges = np.linspace(0, 1, len(counts) + 1)
        low, high = binom.interval(0.95, total, 1 / len(counts))
        ax.stairs(counts, edges, fill=True, color=COLOURS[0], alpha=0.75)
        ax.axhspan(low, high, color=INK, alpha=0.16, lw=0)
        ax.axhline(total / len(counts), color=INK, lw=0.8, ls=":")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.15 * max(float(counts.max()), high, 1.0))
        p = (p_values or {}).get(name)
        style_axes(ax, "rank / draws", "" if i % 4 else "objects", name if p is None else f"{name}   p = {p:.2g}")
    return fig


def tarp_curve(levels: Sequence[float], curves: Mapping[str, Mapping[str, Any]], n: int | None = None) -> Figure:
    """Expected coverage of balls about random points, with its bootstrap band.

    Args:
        levels: credibility levels.
        curves: by label, what :func:`sbi_da.diagnostics.tarp` returns (``curve``, ``low``, ``high``).
        n: objects, for the band of a calibrated posterior; None leaves it out.
    """
    fig = Figure(figsize=(4.4, 3.4), layout="constrained")
    ax = fig.subplots()
    x = 100 * np.asarray(levels, float)
    if n:
        low, high = (100 * np.asarray(b) / n for b in binom.interval(0.95, n, x / 100))
        ax.fill_between(x, low - x, high - x, color=BAND, lw=0, label=f"95 % for n = {n:,}")
    ax.axhline(0, color=INK, lw=0.8, ls=":")
    for i, (name, curve) in enumerate(curves.items()):
        mid, low, high = (100 * np.asarray(curve[key], float) - x for key in ("curve", "low", "high"))
        ax.fill_between(x, low, high, color=COLOURS[i % 7], alpha=0.22, lw=0)
        ax.plot(x, mid, color=COLOURS[i % 7], lw=1.5, label=name)
    ax.set_xlim(0, 100)
    symmetric(ax)
    style_axes(ax, "credibility level [%]", "coverage − level [percentage points]")
    ax.legend(frameon=False, fontsize=8, handlelength=1.4, labelcolor=INK, loc="best")
    return fig


def coverage_error_bars(rows: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Coverage error by stratum with 95 % intervals; the grey bar is what a perfect posterior would show.

    Args:
        rows: by label, ``value``, ``low``, ``high``, ``limit`` and optionally ``n``.
    """
    fig = Figure(figsize=(6.4, 0.9 + 0.28 * len(rows)), layout="constrained")
    ax = fig.subplots()
    known = {label: row for label, row in rows.items() if row.get("value") is not None}
    for y, row in enumerate(known.values()):
        value, low, high, limit = (100 * float(row[key]) for key in ("value", "low", "high", "limit"))
        label = "calibrated posterior, as many objects (97.5 %)" if y == 0 else None
        ax.barh(y, limit, height=0.62, color=BAND, lw=0, label=label)
        colour = COLOURS[1] if value > limit else COLOURS[0]
        ax.plot([low, high], [y, y], color=colour, lw=2, solid_capstyle="round")
        ax.plot(value, y, "D" if value > limit else "o", color=colour, ms=5)
    names = [f"{label}  ({row['n']:,})" if "n" in row else label for label, row in known.items()]
    ax.set_yticks(range(len(known)), names)
    ax.set_ylim(max(len(known), 1) - 0.5, -0.5)
    ax.set_xlim(left=0)
    style_axes(ax, "coverage error [percentage points]")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper right", frameon=False, fontsize=8, labelcolor=INK)
    return fig

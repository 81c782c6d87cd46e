"""Figures for reports and papers: one function, one figure; no global state, colours for colour-blind readers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from scipy.stats import binom

__all__ = [
    "COLOURS", "corner", "coverage_curves", "coverage_error_bars", "posterior_widths", "rank_histograms",
    "residual_histogram", "tarp_curve", "truth_vs_posterior",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B")
"""Okabe & Ito's palette, the yellow (too faint on white) replaced by grey."""

INK, BAND = "#333333", "#D9DDE3"


def _style(ax: Axes, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#888888")
    ax.tick_params(colors=INK, labelsize=8, length=3, color="#888888")
    ax.set_xlabel(xlabel, fontsize=9, color=INK)
    ax.set_ylabel(ylabel, fontsize=9, color=INK)
    if title:
        ax.set_title(title, fontsize=9, color=INK, loc="left")


def _symmetric(ax: Axes, least: float = 3.0) -> None:
    """Zero in the middle of the y axis."""
    reach = np.abs(ax.dataLim.intervaly)
    reach = max([least, *(1.1 * reach[np.isfinite(reach)])])
    ax.set_ylim(-reach, reach)


def _grid(n: int, width: float = 2.5, height: float = 2.1, most: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure of ``n`` panels, at most ``most`` a row."""
    columns = min(n, most)
    rows = -(-n // columns)
    fig = Figure(figsize=(max(width * columns, 3.6), height * rows + 0.2), layout="constrained")
    axes = [fig.add_subplot(rows, columns, i + 1) for i in range(n)]
    return fig, axes


def _label(name: str, units: Mapping[str, str] | None) -> str:
    unit = (units or {}).get(name, "")
    return f"{name} [{unit}]" if unit else name


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
    _style(left, "nominal level [%]", "truths inside [%]")
    _style(right, "nominal level [%]", "inside − nominal [percentage points]")
    _symmetric(right)
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
    fig, axes = _grid(len(histograms))
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
        _style(ax, "rank / draws", "" if i % 4 else "objects", name if p is None else f"{name}   p = {p:.2g}")
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
    _symmetric(ax)
    _style(ax, "credibility level [%]", "coverage − level [percentage points]")
    ax.legend(frameon=False, fontsize=8, handlelength=1.4, labelcolor=INK, loc="best")
    return fig


def truth_vs_posterior(
    truth: np.ndarray, draws: np.ndarray, names: Sequence[str], units: Mapping[str, str] | None = None, most: int = 150
) -> Figure:
    """Posterior mean against truth: density of all objects, 16–84 % bars for a few of them.

    Args:
        truth: shape ``(object, parameter)``.
        draws: shape ``(object, draw, parameter)``.
        names: of the parameters.
        units: by parameter name.
        most: bars drawn.
    """
    fig, axes = _grid(len(names), 2.6, 2.5)
    mean = draws.mean(1)
    shown = np.unique(np.linspace(0, len(truth) - 1, min(most, len(truth))).astype(int))
    low, high = np.quantile(draws[shown], [0.16, 0.84], axis=1)
    for p, (ax, name) in enumerate(zip(axes, names, strict=True)):
        t, m = truth[:, p], mean[:, p]
        ok = np.isfinite(t)
        if ok.any():
            span = np.percentile(np.concatenate([t[ok], m[ok]]), [0.1, 99.9])
            span = span + np.array([-0.04, 0.04]) * max(np.ptp(span), 1e-12)
            if ok.sum() > 2000:
                ax.hexbin(t[ok], m[ok], gridsize=45, extent=(*span, *span), bins="log", cmap="Blues", mincnt=1, lw=0)
            ax.vlines(t[shown], low[:, p], high[:, p], color=COLOURS[1], lw=0.7, alpha=0.6)
            ax.plot(t[shown], m[shown], ".", color=COLOURS[1], ms=2.5)
            ax.plot(span, span, color=INK, lw=0.8, ls=":")
            ax.set_xlim(*span)
            ax.set_ylim(*span)
        _style(ax, f"true {_label(name, units)}", "" if p % 4 else "posterior mean")
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
    _style(ax, "coverage error [percentage points]")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper right", frameon=False, fontsize=8, labelcolor=INK)
    return fig


def posterior_widths(
    widths: Mapping[str, np.ndarray], names: Sequence[str], units: Mapping[str, str] | None = None,
    measure: str = "posterior sd",
) -> Figure:
    """Posterior widths by survey set: box from 25 to 75 %, whiskers from 5 to 95 %, line at the median.

    Args:
        widths: by survey set, shape ``(object, parameter)``.
        names: of the parameters.
        units: by parameter name.
        measure: what the widths are, for the axis.
    """
    fig, axes = _grid(len(names), 2.3, 1.9 + 0.12 * len(widths), most=5)
    for p, (ax, name) in enumerate(zip(axes, names, strict=True)):
        columns = [np.asarray(w)[:, p] for w in widths.values()]
        boxes = ax.boxplot(
            [c[np.isfinite(c)] for c in columns], whis=(5, 95), showfliers=False, widths=0.6, patch_artist=True,
            medianprops={"color": "white", "lw": 1.6}, whiskerprops={"color": INK}, capprops={"color": INK},
        )
        for i, patch in enumerate(boxes["boxes"]):
            patch.set(facecolor=COLOURS[i % 7], edgecolor="none")
        labels = list(widths) if max(map(len, widths)) * len(widths) < 22 else [w.replace("+", "\n+") for w in widths]
        ax.set_xticks(range(1, len(widths) + 1), labels)
        ax.set_ylim(bottom=0)
        _style(ax, "", _label(measure, {measure: (units or {}).get(name, "").split("(")[0]}), name)
    return fig


def residual_histogram(residuals: Mapping[str, np.ndarray], name: str, unit: str = "", bins: int = 50) -> Figure:
    """Residuals (estimate minus label) of real objects, on a range that holds 98 % of them; medians as dashed lines.

    Args:
        residuals: by method, shape ``(object,)``.
        name: of the parameter.
        unit: of the parameter.
        bins: of the histogram.
    """
    fig = Figure(figsize=(4.6, 2.9 + 0.15 * len(residuals)), layout="constrained")
    ax = fig.subplots()
    finite = {label: np.asarray(r)[np.isfinite(r)] for label, r in residuals.items()}
    reach = float(np.percentile(np.abs(np.concatenate(list(finite.values()))), 98)) or 1.0
    for i, (label, r) in enumerate(finite.items()):
        counts, edges = np.histogram(r, bins, (-reach, reach))
        ax.stairs(counts / max(len(r), 1) / np.diff(edges), edges, color=COLOURS[i % 7], lw=1.5,
                  label=f"{label} (n = {len(r):,}, {np.mean(np.abs(r) > reach):.1%} outside)")
        ax.axvline(float(np.median(r)), color=COLOURS[i % 7], lw=1, ls="--")
    ax.axvline(0, color=INK, lw=0.8, ls=":")
    inner = f"{name} [{unit}]" if unit else name
    _style(ax, f"estimate − label, {inner}", "density")
    fig.legend(loc="outside upper left", frameon=False, fontsize=8, labelcolor=INK)
    return fig


def _contours(ax: Axes, x: np.ndarray, y: np.ndarray, extent: np.ndarray, colour: str) -> None:
    """Smallest regions that hold 39 and 86 % of the draws (one and two sigma in two dimensions)."""
    counts, xedges, yedges = np.histogram2d(x, y, 40, [tuple(extent[0]), tuple(extent[1])])
    density = gaussian_filter(counts, 1.3)
    ordered = np.sort(density.ravel())[::-1]
    mass = ordered.cumsum() / ordered.sum()
    levels = [float(ordered[np.searchsorted(mass, share)]) for share in (0.86, 0.39)]
    if not 0 < levels[0] < levels[1] < ordered[0]:
        return
    middle = (xedges[1:] + xedges[:-1]) / 2, (yedges[1:] + yedges[:-1]) / 2
    ax.contourf(*middle, density.T, [*levels, ordered[0] * 1.01], colors=[colour, colour], alpha=0.25)
    ax.contour(*middle, density.T, levels, colors=[colour], linewidths=1.1)


def corner(
    draws: Mapping[str, np.ndarray], names: Sequence[str], units: Mapping[str, str] | None = None,
    truth: Sequence[float] | None = None,
) -> Figure:
    """One object's posterior under several survey sets: histograms, and contours at 39 and 86 %.

    Args:
        draws: by survey set, shape ``(draw, parameter)``.
        names: of the parameters.
        units: by parameter name.
        truth: known values, shape ``(parameter,)``; None or NaN where unknown.
    """
    size = len(names)
    fig = Figure(figsize=(1.45 * size + 0.8, 1.45 * size + 0.6), layout="constrained")
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)  # type: ignore[union-attr, call-arg]
    edge = np.array([np.percentile(d, [0.5, 99.5], axis=0) for d in draws.values()])
    extent = np.stack([edge[:, 0].min(0), edge[:, 1].max(0)], axis=1)
    known = np.full(size, np.nan) if truth is None else np.asarray(truth, float)
    extent = np.stack([np.fmin(extent[:, 0], known), np.fmax(extent[:, 1], known)], axis=1)
    extent += np.array([-0.06, 0.06]) * np.maximum(np.ptp(extent, axis=1, keepdims=True), 1e-12)
    lowest, highest = np.min([d.min(0) for d in draws.values()], axis=0), np.max([d.max(0) for d in draws.values()], axis=0)
    spread = highest > lowest  # nothing is smoothed to where no draw can be
    extent[spread, 0] = np.maximum(extent[:, 0], np.fmin(lowest, known))[spread]
    extent[spread, 1] = np.minimum(extent[:, 1], np.fmax(highest, known))[spread]
    for row in range(size):
        for column in range(row + 1):
            ax = fig.add_subplot(size, size, row * size + column + 1)
            for i, (label, d) in enumerate(draws.items()):
                if row == column:
                    counts, edges = np.histogram(d[:, row], 40, tuple(extent[row]), density=True)
                    ax.stairs(gaussian_filter(counts, 1.0), edges, color=COLOURS[i % 7], lw=1.3, label=label)
                else:
                    _contours(ax, d[:, column], d[:, row], extent[[column, row]], COLOURS[i % 7])
            ax.axvline(known[column], color=INK, lw=0.8, ls="--")
            if row != column:
                ax.axhline(known[row], color=INK, lw=0.8, ls="--")
                ax.set_ylim(*extent[row])
            ax.set_xlim(*extent[column])
            _style(ax, _label(names[column], units) if row == size - 1 else "",
                   _label(names[row], units) if column == 0 and row else "")
            ax.locator_params(nbins=3)
            ax.tick_params(labelbottom=row == size - 1, labelleft=column == 0 and row > 0, labelsize=7)
            if row == column:
                ax.set_yticks([])
                ax.spines["left"].set_visible(False)
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="upper right", frameon=False, fontsize=9, labelcolor=INK)
    return fig

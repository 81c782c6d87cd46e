"""What do the posteriors say? Against the truth, by width, by residual, and of one object."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from sbi_da.plots.style import COLOURS, INK, axis_label, panels, style_axes

__all__ = ["corner", "posterior_widths", "residual_histogram", "truth_vs_posterior"]


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
    fig, axes = panels(len(names), 2.6, 2.5)
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
        style_axes(ax, f"true {axis_label(name, units)}", "" if p % 4 else "posterior mean")
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
    fig, axes = panels(len(names), 2.3, 1.9 + 0.12 * len(widths), most=5)
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
        style_axes(ax, "", axis_label(measure, {measure: (units or {}).get(name, "").split("(")[0]}), name)
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
    style_axes(ax, f"estimate − label, {inner}", "density")
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
            style_axes(ax, axis_label(names[column], units) if row == size - 1 else "",
                   axis_label(names[row], units) if column == 0 and row else "")
            ax.locator_params(nbins=3)
            ax.tick_params(labelbottom=row == size - 1, labelleft=column == 0 and row > 0, labelsize=7)
            if row == column:
                ax.set_yticks([])
                ax.spines["left"].set_visible(False)
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="upper right", frameon=False, fontsize=9, labelcolor=INK)
    return fig

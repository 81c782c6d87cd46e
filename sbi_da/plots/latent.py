r"""Where do real objects lie among the simulations, before and after alignment? Pictures of the latent space.

Principal axes are those of the pooled covariance in which each side counts one half, :math:`\tfrac12 C_s + \tfrac12 C_r +
\tfrac14 (\mu_s - \mu_r)(\mu_s - \mu_r)^\top`, so that few real rows still turn the axes. Isomap (Tenenbaum et al. 2000)
keeps distances along the cloud instead. A picture in two dimensions hides most gaps: read it beside the AUC and pairs.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from sklearn.manifold import Isomap

from sbi_da.errors import SbiDaError
from sbi_da.plots.style import COLOURS, INK, panels, style_axes

__all__ = ["latent_figure"]

Sides = tuple[np.ndarray, np.ndarray]
"""Simulated and real rows, or values of them."""


def latent_figure(
    before: Sides, after: Sides, colour: tuple[Sides, str] | None = None, names: Sequence[str] = ("before", "after"),
    auc: Sequence[float] | None = None, method: str = "pca", shared: bool = True, most: int = 1500, seed: int = 0,
) -> Figure:
    """Two pictures of simulated and real features side by side.

    Args:
        before: simulated ``(n, d)`` and real ``(m, d)`` features.
        after: the same of the aligned model; another width or other rows are allowed.
        colour: values of the simulated ``(n,)`` and real ``(m,)`` rows of both pictures, and what they are. Then
            points are coloured by value and real ones get a dark edge; rows without a finite value are left out.
        names: of the two pictures.
        auc: domain AUC of each picture, for the titles.
        method: ``"pca"`` or ``"isomap"``.
        shared: the axes of ``before`` in both pictures if the widths agree (PCA): for an adapter in one latent space.
            False fits each picture by itself: for encoders trained apart.
        most: points drawn of each side, at random; contours are of all rows. Isomap knows only these.
        seed: of that choice.

    Raises:
        SbiDaError: features or values of bad shape, values that are not finite, or an unknown method.
    """
    if method not in ("pca", "isomap"):
        raise SbiDaError(f"latent_figure: unknown method {method!r}: known are 'pca' and 'isomap'")
    if len(names) != 2 or (auc is not None and len(auc) != 2):
        raise SbiDaError("latent_figure: two pictures need two names, and two AUCs if any")
    rng = np.random.default_rng(seed)
    limit = most if method == "isomap" else None
    chosen = [_checked(sides, name, colour, limit, rng) for sides, name in zip((before, after), names, strict=True)]
    together = shared and method == "pca" and len({rows[0].shape[1] for rows, _ in chosen}) == 1
    axes = [_principal_axes(rows) for rows, _ in chosen] if method == "pca" else []
    flat = [
        _isomap(rows) if method == "isomap" else _project(rows, *axes[0 if together else i])
        for i, (rows, _) in enumerate(chosen)
    ]
    fig, panes = panels(2, 3.5, 3.3)
    known = np.concatenate([v[np.isfinite(v)] for _, values in chosen for v in values]) if colour else np.zeros(1)
    norm = Normalize(*np.percentile(known, [1, 99]))
    word = "principal axis" if method == "pca" else "Isomap axis"
    for i, ax in enumerate(panes):
        span = _span([p for sides in (flat if together else flat[i : i + 1]) for p in sides])
        _picture(ax, flat[i], chosen[i][1] if colour else None, norm, span, most)
        title = names[i] if auc is None else f"{names[i]}   AUC {auc[i]:.2f}"
        style_axes(ax, f"{word} 1", f"{word} 2" if i == 0 or not together else "", title)
    handles, labels = panes[0].get_legend_handles_labels()
    legend = fig.legend(
        handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=8, labelcolor=INK, handletextpad=0.3
    )
    for i, handle in enumerate(legend.legend_handles):
        if isinstance(handle, PathCollection):
            handle.set_alpha(0.9)
            if colour:
                handle.set(array=None, facecolor=("#888888", "white")[i])
    if colour:
        bar = fig.colorbar(panes[0].collections[-1], ax=panes, shrink=0.85, pad=0.02, aspect=28, extend="both")
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=INK, labelsize=8, length=3, color="#888888")
        bar.set_label(colour[1], fontsize=9, color=INK)
        if bar.solids is not None:
            bar.solids.set_alpha(1.0)
    return fig


def _checked(
    sides: Sides, name: str, colour: tuple[Sides, str] | None, most: int | None, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows of each side in random order, at most ``most``, with their values; or a clear error."""
    rows = [np.asarray(x, float) for x in sides]
    wrong = any(x.ndim != 2 or len(x) < 3 or not np.isfinite(x).all() for x in rows)
    if len(rows) != 2 or wrong or rows[0].shape[1:] != rows[1].shape[1:] or rows[0].shape[1] < 2:
        raise SbiDaError(
            f"latent_figure: {name!r} needs finite simulated and real (row, feature) arrays of the same two or more "
            f"features, three rows or more; got {', '.join(str(x.shape) for x in rows)}"
        )
    values = [np.asarray(v, float) for v in colour[0]] if colour else [np.zeros(len(x)) for x in rows]
    if [v.shape for v in values] != [(len(x),) for x in rows] or not all(np.isfinite(v).any() for v in values):
        raise SbiDaError(f"latent_figure: colour needs a value for each simulated and real row of {name!r}")
    kept = [rng.permutation(np.flatnonzero(np.isfinite(v)))[:most] for v in values]
    return [x[i] for x, i in zip(rows, kept, strict=True)], [v[i] for v, i in zip(values, kept, strict=True)]


def _principal_axes(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Centre ``(d,)`` and the two leading directions ``(d, 2)``, signs fixed."""
    centre = (rows[0].mean(0) + rows[1].mean(0)) / 2
    pooled = np.concatenate([(x - centre) / np.sqrt(len(x)) for x in rows])
    direction = np.linalg.svd(pooled, full_matrices=False)[2][:2].T
    return centre, direction * np.sign(direction[np.abs(direction).argmax(0), [0, 1]])


def _project(rows: list[np.ndarray], centre: np.ndarray, direction: np.ndarray) -> list[np.ndarray]:
    """Rows in the plane of two directions."""
    return [(x - centre) @ direction for x in rows]


def _isomap(rows: list[np.ndarray]) -> list[np.ndarray]:
    """Distances along the pooled cloud; clouds that do not touch are joined at their nearest points."""
    pooled = np.concatenate(rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of connected components")
        warnings.filterwarnings("ignore", category=UserWarning, module="scipy.sparse")
        warnings.filterwarnings("ignore", message="Changing the sparsity structure")
        flat = Isomap(n_neighbors=min(15, len(pooled) - 1)).fit_transform(pooled)
    return [flat[: len(rows[0])], flat[len(rows[0]) :]]


def _span(points: list[np.ndarray], margin: float = 0.06) -> np.ndarray:
    """Limits ``(axis, 2)`` that hold all but the last half per cent of each cloud, with a margin."""
    ends = np.array([np.percentile(p, [0.5, 99.5], axis=0) for p in points])
    low, high = ends[:, 0].min(0), ends[:, 1].max(0)
    more = margin * np.maximum(high - low, 1e-9)
    return np.stack([low - more, high + more], axis=1)


def _picture(
    ax: Axes, flat: list[np.ndarray], values: list[np.ndarray] | None, norm: Normalize, span: np.ndarray, most: int
) -> None:
    """Simulated rows as faint points with contours at 39 and 86 %, real rows on top."""
    s, r = flat
    tones: list[dict[str, Any]] = [{"color": COLOURS[0]}, {"color": COLOURS[1], "lw": 0.3, "edgecolors": "white"}]
    if values is not None:
        tones = [{"c": v[:most], "cmap": "cividis", "norm": norm} for v in values]
        tones[1] |= {"lw": 0.7, "edgecolors": INK}
    ax.scatter(
        s[:most, 0], s[:most, 1], s=5, alpha=0.28, label=f"simulated ({len(s):,})", rasterized=True,
        **{"lw": 0, **tones[0]},
    )
    box = _span([s], 0.25)
    counts, xedges, yedges = np.histogram2d(s[:, 0], s[:, 1], 60, [tuple(box[0]), tuple(box[1])])
    density = gaussian_filter(counts, 2.0)
    ordered = np.sort(density.ravel())[::-1]
    mass = ordered.cumsum() / max(float(ordered.sum()), 1e-300)
    levels = [float(ordered[np.searchsorted(mass, share)]) for share in (0.86, 0.39)]
    if 0 < levels[0] < levels[1]:
        middle = (xedges[1:] + xedges[:-1]) / 2, (yedges[1:] + yedges[:-1]) / 2
        ax.contour(*middle, density.T, levels, colors=[COLOURS[0] if values is None else "#888888"], linewidths=0.9)
    size = float(np.clip(2500 / len(r), 5, 18))
    ax.scatter(r[:most, 0], r[:most, 1], s=size, alpha=0.85, label=f"real ({len(r):,})", **tones[1])
    ax.set_xlim(*span[0])
    ax.set_ylim(*span[1])

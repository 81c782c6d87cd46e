r"""Pictures of what a classifier of images sees: example galleries, and its latent space in two dimensions.

The latent picture first measures distances along the cloud of features (Isomap, Tenenbaum et al. 2000) and then lays
its neighbourhoods out in the plane (t-SNE, van der Maaten & Hinton 2008), as DeepAstroUDA does (Ciprijanovic et al.
2023); or it uses UMAP (McInnes et al. 2018). Both keep neighbours and neither keeps densities, sizes of groups or
distances between them, so they illustrate and prove nothing: read them beside the domain tests.
"""

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE, Isomap

from sbi_da.errors import SbiDaError
from sbi_da.plots.style import COLOURS, INK, style_axes

__all__ = ["flattened", "gallery_figure", "latent_classes_figure", "umap_available"]

MARKS = ("o", "s", "D", "^", "v", "P", "X")
DOMAINS = (COLOURS[5], "#7A3E9D")
"""Simulated and evaluated objects, in other colours than the classes beside them."""
MOST = 1000
"""Rows drawn in a latent picture, at random."""


def umap_available() -> bool:
    """Whether the optional package umap-learn is installed."""
    return find_spec("umap") is not None


def gallery_figure(rows: Sequence[tuple[str, np.ndarray, Sequence[str]]], columns: int | None = None) -> Figure:
    """Images in rows, a caption below each.

    Args:
        rows: label of the row, images ``(n, y, x, 3)`` in 0..1, and n captions; n may be zero.
        columns: images a row; the longest row if None.

    Raises:
        SbiDaError: no row, or images that are not (n, y, x, 3) with a caption each.
    """
    if not rows:
        raise SbiDaError("gallery_figure: no row of images")
    for label, images, captions in rows:
        if np.ndim(images) != 4 or np.shape(images)[-1] != 3 or len(images) != len(captions):
            raise SbiDaError(
                f"gallery_figure: row {label!r} needs images (n, y, x, 3) and n captions, got {np.shape(images)} and {len(captions)}"
            )
    columns = columns or max(1, *(len(images) for _, images, _ in rows))
    fig = Figure(figsize=(1.2 * columns + 1.2, 1.45 * len(rows)), layout="constrained")
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.02)  # type: ignore[union-attr, call-arg]
    axes = fig.subplots(len(rows), columns + 1, squeeze=False, width_ratios=[0.95] + [1] * columns)
    for line, (label, images, captions) in zip(axes, rows, strict=True):
        for ax in line:
            ax.set_axis_off()
        line[0].text(1.0, 0.5, label, ha="right", va="center", fontsize=9, color=INK, transform=line[0].transAxes)
        for ax, image, caption in zip(line[1:], images, captions, strict=False):
            ax.imshow(np.clip(np.asarray(image, float), 0, 1), interpolation="nearest")
            ax.text(0.5, -0.05, caption, ha="center", va="top", fontsize=7.5, color=INK, transform=ax.transAxes)
        if not len(images):
            line[1].text(0.0, 0.5, "none", ha="left", va="center", fontsize=9, color="#777777", transform=line[1].transAxes)
    return fig


def flattened(features: np.ndarray, method: str = "tsne", seed: int = 0) -> np.ndarray:
    """Features in two dimensions.

    Args:
        features: finite, shape ``(n, d)``, n at least 10.
        method: ``"tsne"``, Isomap and then t-SNE; or ``"umap"``.
        seed: of the layout.

    Returns:
        Shape ``(n, 2)``.

    Raises:
        SbiDaError: an unknown method, features that do not fit, or umap-learn is not installed.
    """
    x = np.asarray(features, float)
    if x.ndim != 2 or len(x) < 10 or not np.isfinite(x).all():
        raise SbiDaError(f"a latent picture needs ten or more rows of finite features (n, d), got {x.shape}")
    if method == "umap":
        if not umap_available():
            raise SbiDaError("UMAP needs the package umap-learn: pip install umap-learn, or choose method 'tsne'")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on threads, connectivity and what numba thinks of it
            layout = import_module("umap").UMAP(n_neighbors=min(15, len(x) - 1), random_state=seed, n_jobs=1)
            return np.asarray(layout.fit_transform(x), float)
    if method != "tsne":
        raise SbiDaError(f"latent picture: unknown method {method!r}: known are 'tsne' and 'umap'")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of connected components")
        warnings.filterwarnings("ignore", category=UserWarning, module="scipy.sparse")
        warnings.filterwarnings("ignore", message="Changing the sparsity structure")
        flat = Isomap(n_neighbors=min(15, len(x) - 1), n_components=min(10, x.shape[1], len(x) - 1)).fit_transform(x)
    if flat.shape[1] < 2:
        flat = np.column_stack([flat, np.zeros(len(flat))])
    spread = flat[:, 0].std()  # t-SNE starts from the leading axes, at its own tiny scale
    start = (1e-4 * flat[:, :2] / (spread if spread > 0 else 1.0)).astype(np.float32)
    return TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init=start, random_state=seed).fit_transform(flat).astype(float)


def latent_classes_figure(
    features: np.ndarray, labels: np.ndarray, classes: Sequence[str], simulated: tuple[np.ndarray, np.ndarray] | None = None,
    unknown: np.ndarray | None = None, method: str = "tsne", most: int = MOST, seed: int = 0,
) -> Figure:
    """Features in the plane, coloured by class; with simulations beside, the same picture of these and one by domain.

    Args:
        features: of the evaluated objects, shape ``(n, d)``.
        labels: their classes, shape ``(n,)``; not read where ``unknown``.
        classes: names.
        simulated: features ``(m, d)`` and classes ``(m,)`` of simulated objects.
        unknown: mask of evaluated objects that are of no such class, shape ``(n,)``.
        method: see :func:`flattened`.
        most: rows drawn, at random; with simulations half of each domain.
        seed: of the choice and the layout.

    Raises:
        SbiDaError: see :func:`flattened`; features and labels that do not fit.
    """
    rng = np.random.default_rng(seed)
    own = np.asarray(labels).copy()
    if unknown is not None:
        own[np.asarray(unknown, bool)] = len(classes)
    sides = [(np.asarray(features, float), own)]
    if simulated is not None:
        sides.append((np.asarray(simulated[0], float), np.asarray(simulated[1])))
    if any(x.ndim != 2 or y.shape != x.shape[:1] or x.shape[1] != sides[0][0].shape[1] for x, y in sides):
        raise SbiDaError(
            "latent_classes_figure needs (object, feature) arrays of the same features and a label a row, got "
            + ", ".join(f"{x.shape} and {y.shape}" for x, y in sides)
        )
    kept = [np.sort(rng.permutation(len(x))[: most // len(sides)]) for x, _ in sides]
    flat = flattened(np.concatenate([x[i] for (x, _), i in zip(sides, kept, strict=True)]), method, seed)
    pieces = np.split(flat, [len(kept[0])])
    groups = [y[i] for (_, y), i in zip(sides, kept, strict=True)]
    count = 3 if simulated is not None else 1
    fig = Figure(figsize=(3.1 * count, 3.5), layout="constrained")
    axes = fig.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0]
    titles = ("simulated, by class", "evaluated, by class", "by domain") if simulated is not None else ("by class",)
    shown = [*classes, "unknown"]
    if simulated is not None:
        _by_class(axes[0], pieces[1], groups[1], len(classes), pieces[0])
        _by_class(axes[1], pieces[0], groups[0], len(classes), pieces[1])
        order = rng.permutation(len(flat))
        tone = np.where(np.arange(len(flat)) < len(kept[0]), DOMAINS[1], DOMAINS[0])
        axes[2].scatter(flat[order, 0], flat[order, 1], s=10, c=tone[order], alpha=0.8, lw=0, rasterized=True)
    else:
        _by_class(axes[0], pieces[0], groups[0], len(classes))
    for ax, title in zip(axes, titles, strict=True):
        style_axes(ax, "", "", title)
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(True)
            spine.set_color("#BBBBBB")
    present = sorted(set(np.concatenate(groups).tolist()))
    handles = [
        _handle(*_tone(k, len(classes)), f"{shown[k]} ({sum(int((g == k).sum()) for g in groups):,})") for k in present
    ]
    if simulated is not None:
        handles.append(_handle(DOMAINS[0], "o", f"simulated ({len(kept[1]):,})"))
        handles.append(_handle(DOMAINS[1], "o", f"evaluated ({len(kept[0]):,})"))
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = 1 if count == 1 else int(np.clip(3.1 * count / (0.35 + 0.075 * longest), 1, 6))
    if count == 1:
        fig.set_figwidth(3.4 + 0.35 + 0.075 * longest)
    fig.legend(handles=handles, loc="outside right center" if count == 1 else "outside lower center", ncols=columns, frameon=False,
               fontsize=8, labelcolor=INK, handletextpad=0.2, columnspacing=1.2)
    return fig


def _tone(k: int, classes: int) -> tuple[str, str]:
    """Colour and mark of a class: both differ, for readers who see no colours. The unknown are dark stars."""
    return (INK, "*") if k == classes else (COLOURS[k % 7], MARKS[(k + k // 7) % 7])


def _handle(colour: str, mark: str, label: str) -> Line2D:
    """An entry of the legend."""
    return Line2D([], [], ls="", marker=mark, ms=5, color=colour, label=label)


def _by_class(ax: Axes, place: np.ndarray, group: np.ndarray, classes: int, others: np.ndarray | None = None) -> None:
    """One side by class; the other side in faint grey below."""
    if others is not None:
        ax.scatter(others[:, 0], others[:, 1], s=5, c="#D5D5D5", lw=0, rasterized=True)
    for k in sorted(set(group.tolist()), key=lambda k: -int((group == k).sum())):  # rare classes on top
        colour, mark = _tone(int(k), classes)
        style: dict[str, Any] = {"color": colour, "marker": mark, "lw": 0.25, "edgecolors": "white"}
        ax.scatter(place[group == k, 0], place[group == k, 1], s=34 if mark == "*" else 15, alpha=0.9, rasterized=True, **style)

"""How good are class probabilities? Confusion, ROC and precision-recall curves, reliability, class fractions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from sbi_da.plots.style import BAND, COLOURS, INK, style_axes

__all__ = [
    "class_scores_figure", "confusion_figure", "ends", "fractions_figure", "interval_label", "known", "ranking_figure",
    "reliability_figure",
]

MARKS = ("o", "s", "D", "^", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
BLUES = LinearSegmentedColormap.from_list("blues", ["#FFFFFF", "#9CC7E4", COLOURS[0], "#003A5E"])


def known(content: Mapping[str, Any] | None) -> bool:
    """Whether a figure has a value."""
    return content is not None and content.get("value") is not None


def ends(content: Mapping[str, Any]) -> tuple[float, float, float]:
    """Value, low and high; the value where there is no interval."""
    value = float(content["value"])
    low, high = (value if content.get(key) is None else float(content[key]) for key in ("low", "high"))
    return value, low, high


def confusion_figure(confusion: Mapping[str, Any], classes: Sequence[str]) -> Figure:
    """Share of each true class that is given to each class, in per cent with 95 % intervals, and counts.

    Args:
        confusion: ``counts`` ``(K, K)`` and ``rate``, figures of the same shape, true class by predicted class.
        classes: K names.
    """
    size = len(classes)
    counts = np.asarray(confusion["counts"], int)
    small = size > 5
    cell = 0.72 if small else 1.15
    fig = Figure(figsize=(cell * size + 2.2, cell * size + 1.1), layout="constrained")
    ax = fig.subplots()
    rate = np.array([[100 * c["value"] if known(c) else np.nan for c in row] for row in confusion["rate"]], float)
    picture = ax.imshow(np.ma.masked_invalid(rate), cmap=BLUES, vmin=0, vmax=100)
    ax.set_facecolor(BAND)
    for y in range(size):
        for x in range(size):
            if not np.isfinite(rate[y, x]):
                ax.text(x, y, "–", ha="center", va="center", fontsize=9, color=INK)
                continue
            tone = "white" if rate[y, x] > 58 else "#111111"
            value, low, high = (100 * v for v in ends(confusion["rate"][y][x]))
            ax.text(x, y - 0.2, f"{value:.0f} %", ha="center", va="center", color=tone, fontsize=8 if small else 11, weight="bold")
            ax.text(x, y + 0.08, f"{low:.0f} … {high:.0f}", ha="center", va="center", color=tone, fontsize=5.5 if small else 7.5)
            ax.text(x, y + 0.31, f"{counts[y, x]:,}", ha="center", va="center", color=tone, fontsize=5.5 if small else 7.5)
    ax.set_xticks(range(size), classes, rotation=45 if small else 0, ha="right" if small else "center")
    ax.set_yticks(range(size), [f"{name}\n(n = {counts[k].sum():,})" for k, name in enumerate(classes)])
    style_axes(ax, "predicted class", "true class")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = fig.colorbar(picture, ax=ax, shrink=0.8, pad=0.02, aspect=26)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK, labelsize=8, length=3, color="#888888")
    bar.set_label("share of the true class [%]", fontsize=9, color=INK)
    return fig


def ranking_figure(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], per_class: Mapping[str, Any] | None = None
) -> Figure:
    """ROC and precision-recall curves of each class against the rest; classes without objects are left out.

    Args:
        probabilities: shape ``(n, K)``.
        labels: shape ``(n,)``.
        classes: K names.
        per_class: by class, ``roc_auc`` and ``average_precision`` figures for the legends.
    """
    fig = Figure(figsize=(7.4, 3.5 + 0.17 * len(classes)), layout="constrained")
    left, right = fig.subplots(1, 2)
    left.plot([0, 100], [0, 100], color=INK, lw=0.8, ls=":")
    for k, name in enumerate(classes):
        own = np.asarray(labels) == k
        if not own.any() or own.all():
            continue
        style: dict[str, Any] = {"color": COLOURS[k % 7], "lw": 1.5, "ls": LINES[k // 7 % 4]}
        score = np.asarray(probabilities)[:, k]
        false, true, _ = roc_curve(own, score)
        precision, recall, _ = precision_recall_curve(own, score)
        block = (per_class or {}).get(name, {})
        left.plot(100 * false, 100 * true, label=interval_label(name, block.get("roc_auc")), **style)
        # A step holds the precision of the threshold that reaches its recall.
        right.step(100 * recall, 100 * precision, where="post", label=interval_label(name, block.get("average_precision")), **style)
        right.axhline(100 * own.mean(), color=COLOURS[k % 7], lw=0.7, ls=":")
    left.set_aspect("equal")
    for ax, x, y, title in (
        (left, "other classes let in [%]", "found of the class [%]", "ROC, area under the curve"),
        (right, "found of the class: recall [%]", "precision [%]", "precision–recall, average precision"),
    ):
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 101)
        style_axes(ax, x, y, title)
        handles, names = ax.get_legend_handles_labels()
        if handles:
            ax.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False, fontsize=8, labelcolor=INK,
                      handlelength=1.8)
    return fig


def interval_label(name: str, content: Mapping[str, Any] | None) -> str:
    """Name, value and interval, as a legend shows them."""
    if not known(content) or content is None:
        return name
    value, low, high = ends(content)
    return f"{name}  {value:.3f} ({low:.3f} … {high:.3f})"


def reliability_figure(calibration: Mapping[str, Any]) -> Figure:
    """Share of right answers against the probability stated for them, where calibrated ones lie, and counts.

    Args:
        calibration: ``bins`` (``n``, ``confidence``, ``accuracy``, ``low``, ``high``: the 95 % band for labels drawn
            from the probabilities) and ``ece``.
    """
    bins = {key: np.asarray(column, float) for key, column in calibration["bins"].items()}
    x, n = 100 * bins["confidence"], bins["n"]
    fig = Figure(figsize=(4.3, 4.6), layout="constrained")
    top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    lowest = max(0.0, 10 * np.floor(min(x.min(), 100 * bins["accuracy"].min(), 100 * bins["low"].min()) / 10) - 2)
    top.plot([lowest, 100], [lowest, 100], color=INK, lw=0.8, ls=":")
    if len(x) > 1:
        top.fill_between(x, 100 * bins["low"], 100 * bins["high"], color=BAND, lw=0, label="calibrated, as many objects (95 %)")
    else:
        top.plot([x[0]] * 2, [100 * bins["low"][0], 100 * bins["high"][0]], color=BAND, lw=8, label="calibrated (95 %)")
    outside = (bins["accuracy"] < bins["low"]) | (bins["accuracy"] > bins["high"])
    top.plot(x, 100 * bins["accuracy"], color=COLOURS[0], lw=1.3)
    top.plot(x[~outside], 100 * bins["accuracy"][~outside], "o", color=COLOURS[0], ms=5, label="within")
    top.plot(x[outside], 100 * bins["accuracy"][outside], "D", color=COLOURS[1], ms=5, label="outside")
    ece = calibration["ece"]
    title = ""
    if known(ece):
        value, low, high = (100 * v for v in ends(ece))
        title = f"ECE {value:.1f} ({low:.1f} … {high:.1f}) points"
        if ece.get("expected") is not None:
            title += f", {100 * ece['expected']:.1f} by chance"
    top.set_ylim(lowest, 102)
    style_axes(top, "", "right answers [%]", title)
    top.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=INK, handlelength=1.4)
    gaps = np.diff(x).min() if len(x) > 1 else 4.0
    bottom.bar(x, n, width=max(0.8 * gaps, 0.6), color=COLOURS[6], alpha=0.75, lw=0)
    bottom.set_xlim(lowest, 101)
    bottom.set_ylim(bottom=0)
    style_axes(bottom, "stated probability of the answer [%]", "objects")
    return fig


def fractions_figure(fractions: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> Figure:
    """Class fractions by source, in per cent with 95 % intervals where known.

    Args:
        fractions: by source (``"true"``, ``"predicted"``), by class: a figure, or a number without interval.
        classes: names.
    """
    sources = list(fractions)
    fig = Figure(figsize=(max(5.4, 1.3 + 0.24 * (len(sources) + 1) * len(classes)), 3.3), layout="constrained")
    ax = fig.subplots()
    width = 0.82 / len(sources)
    for i, source in enumerate(sources):
        for k, name in enumerate(classes):
            content = fractions[source].get(name)
            content = content if isinstance(content, Mapping) else {"value": content}
            if not known(content):
                continue
            value, low, high = (100 * v for v in ends(content))
            x = k + (i - (len(sources) - 1) / 2) * width
            first = source if k == 0 else None
            ax.bar(x, value, width=0.92 * width, color=COLOURS[(6, 0, 5, 1, 4)[i % 5]], alpha=0.85, lw=0, label=first)
            if high > low:
                ax.plot([x, x], [low, high], color=INK, lw=1.3, solid_capstyle="butt")
    ax.set_xticks(range(len(classes)), classes, rotation=30 if len(classes) > 5 else 0, ha="right" if len(classes) > 5 else "center")
    ax.set_ylim(bottom=0)
    style_axes(ax, "", "fraction of objects [%]")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(sources), 5), frameon=False, fontsize=8,
               labelcolor=INK, handlelength=1.2, columnspacing=1.2)
    return fig


def class_scores_figure(per_class: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Recall, precision and F1 of each class with 95 % intervals.

    Args:
        per_class: by class, ``recall``, ``precision`` and ``f1`` figures, and ``n_true``.
    """
    fig = Figure(figsize=(6.0, 0.9 + 0.52 * len(per_class)), layout="constrained")
    ax = fig.subplots()
    for y, block in enumerate(per_class.values()):
        for i, key in enumerate(("recall", "precision", "f1")):
            if key == "precision" and not block.get("n_predicted", 1) or not known(block[key]):
                continue
            value, low, high = (100 * v for v in ends(block[key]))
            place = y + 0.22 * (i - 1)
            ax.plot([low, high], [place, place], color=COLOURS[i], lw=1.8, solid_capstyle="round")
            label = ("recall", "precision", "F1")[i] if y == 0 else None
            ax.plot(value, place, MARKS[i], color=COLOURS[i], ms=5, label=label, clip_on=False)
        if y:
            ax.axhline(y - 0.5, color="#DDDDDD", lw=0.6)
    ax.set_yticks(range(len(per_class)), [f"{name}  ({block['n_true']:,})" for name, block in per_class.items()])
    ax.set_ylim(len(per_class) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    style_axes(ax, "score [%]")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return fig

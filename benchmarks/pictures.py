"""Pictures of the results that compare ways of aligning: ``python -m benchmarks.pictures`` draws each ``results/*.json`` it knows."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.result import FOLDER
from sbi_da.plots import COLOURS
from sbi_da.plots.style import INK, panels, style_axes

__all__ = ["clusters", "gap_closed", "gaps"]

Content = Mapping[str, Any]


def gap_closed(content: Content) -> Figure:
    """Of ``sim_to_sim``: the share of the gap closed by each arm, seeds as small points, their mean as a bar."""
    rows = [r for r in content["rows"] if r["arm"] not in ("none", "oracle")]
    labels = {(r["arm"], r["pairs"]): f"{r['arm'].replace('_', ' ')}, {r['pairs'] or 'no'} labels" for r in rows}
    fig, axes = panels(2, 3.6, 0.8 + 0.34 * len(labels))
    for ax, key, title in zip(axes, ("gap_closed_mean", "gap_closed_mean_young"), ("all stars", "log age < 7.8"), strict=True):
        values = [[r[key] for r in rows if (r["arm"], r["pairs"]) == one] for one in labels]
        low = _ranks(ax, values, list(labels.values()) if ax is axes[0] else [""] * len(labels))
        for x in (0, 1):
            ax.axvline(x, color="#888888", lw=0.8, ls=":")
        ax.set_xlim(min(-0.05, low), 1.05)
        style_axes(ax, "share of the NLL gap closed", "", title)
    return fig


def gaps(content: Content) -> Figure:
    """Of ``shift_grid``: the gap to the exact posterior, by problem and arm."""
    rows = content["rows"]
    problems = sorted({r["problem"] for r in rows})
    arms = {(r["arm"], r["pairs"]): f"{r['arm'].replace('_', ' ')}, {r['pairs'] or 'no'} labels" for r in rows}
    fig, axes = panels(len(problems), 2.9, 0.7 + 0.26 * len(arms), 3)
    for k, (ax, problem) in enumerate(zip(axes, problems, strict=True)):
        values = [[r["kl_gap"] for r in rows if (r["problem"], r["arm"], r["pairs"]) == (problem, *one)] for one in arms]
        ax.set_xscale("log")
        ax.set_xlim(0.1, 50)
        ax.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
        ax.minorticks_off()
        _ranks(ax, values, list(arms.values()) if k % 3 == 0 else [""] * len(arms))
        style_axes(ax, "gap to the exact posterior [nats]" if k >= len(problems) - 3 else "", "", problem.upper())
    return fig


def clusters(content: Content) -> Figure | None:
    """Of ``real_stars_aligned``: ages of open clusters found and published."""
    titles = {"none": "not aligned", "adapted": "aligned with field stars", "calibrated": "aligned with other clusters"}
    kinds = [k for k in titles if any(r.get("estimator") == k and "cluster" in r for r in content["rows"])]
    if not kinds:
        return None
    fig, axes = panels(len(kinds), 2.7, 2.7)
    for ax, kind in zip(axes, kinds, strict=True):
        rows = [r for r in content["rows"] if r.get("estimator") == kind and "cluster" in r]
        x, y = (np.array([r[k] for r in rows]) for k in ("published", "hierarchical"))
        error = np.abs(np.array([[r["hierarchical_low"], r["hierarchical_high"]] for r in rows]).T - y)
        ax.errorbar(x, y, error, fmt="o", ms=3, lw=0.7, color=COLOURS[0], mec="white", mew=0.3)
        ax.plot([6, 8.8], [6, 8.8], color="#888888", lw=0.8, ls=":")
        ax.set_xlim(6.5, 8.6)
        ax.set_ylim(6.0, 8.9)
        style_axes(ax, "published log age", "log age of the cluster" if ax is axes[0] else "", titles[kind])
    return fig


def _ranks(ax: Axes, values: list[list[float]], labels: list[str]) -> float:
    """A row of points per list, the mean as a bar; the least value comes back."""
    for row, each in enumerate(values):
        if each:
            ax.plot([np.mean(each)], [row], "|", ms=11, mew=2, color=COLOURS[1])
            ax.plot(each, [row] * len(each), "o", ms=4, color=COLOURS[0], mec="white", mew=0.4)
    ax.set_yticks(range(len(values)), labels, color=INK)
    ax.set_ylim(len(values) - 0.4, -0.6)
    return float(min(min(each) for each in values if each))


DRAWN: dict[str, Callable[[Content], Figure | None]] = {
    "sim_to_sim": gap_closed, "shift_grid": gaps, "real_stars_aligned": clusters,
}


def main() -> None:
    """Draw what there is."""
    for name, draw in DRAWN.items():
        file = FOLDER / f"{name}.json"
        figure = draw(json.loads(file.read_text())) if file.is_file() else None
        if figure is not None:
            figure.savefig(FOLDER / f"{name}.png", dpi=120)
            print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()

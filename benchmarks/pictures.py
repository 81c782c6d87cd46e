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

__all__ = ["clusters", "gap_closed", "gaps", "shifts"]

Content = Mapping[str, Any]


def gap_closed(content: Content) -> Figure:
    """Of ``sim_to_sim``: the share of the gap closed by each arm, seeds as small points, their mean as a bar; arrows lie beyond."""
    rows = [r for r in content["rows"] if r["arm"] not in ("none", "oracle")]
    rows = sorted(rows, key=lambda r: (r["arm"] != "default", r["pairs"] == 0, r["pairs"], r["arm"]))
    labels = {(r["arm"], r["pairs"]): _label(r) for r in rows}
    fig, axes = panels(2, 3.6, 0.8 + 0.34 * len(labels))
    for ax, key, title in zip(axes, ("gap_closed_mean", "gap_closed_mean_young"), ("all stars", "log age < 7.8"), strict=True):
        values = [[r[key] for r in rows if (r["arm"], r["pairs"]) == one] for one in labels]
        for x in (0, 1):
            ax.axvline(x, color="#888888", lw=0.8, ls=":")
        ax.set_xlim(-1.1, 1.05)
        _ranks(ax, values, list(labels.values()) if ax is axes[0] else [""] * len(labels))
        style_axes(ax, "share of the NLL gap closed", "", title)
    return fig


def gaps(content: Content) -> Figure:
    """Of ``shift_grid``: the gap to the exact posterior, by problem and arm."""
    rows = content["rows"]
    problems = sorted({r["problem"] for r in rows})
    arms = {(r["arm"], r["pairs"]): _label(r) for r in rows}
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


def shifts(content: Content) -> Figure:
    """Of ``star_shifts``: what each arm loses against no alignment, by what is real."""
    titles = {"none": "no shift", "likelihood": "another simulator", "population": "another population", "both": "both"}
    rows = [r for r in content["rows"] if r["arm"] in ("default", "sinkhorn")]
    arms = {(r["arm"], r["pairs"]): _label(r) for r in rows}
    fig, axes = panels(len(titles), 2.4, 0.8 + 0.3 * len(arms), 4)
    for ax, (shift, title) in zip(axes, titles.items(), strict=True):
        values = [[r["loss"] for r in rows if (r["shift"], r["arm"], r["pairs"]) == (shift, *one)] for one in arms]
        ax.axvline(0, color="#888888", lw=0.8, ls=":")
        ax.set_xlim(-4.5, 14)
        _ranks(ax, values, list(arms.values()) if ax is axes[0] else [""] * len(arms))
        style_axes(ax, "loss [nats]", "", title)
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


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['arm'].removesuffix('_unlabelled').replace('_', ' ')}, {row['pairs'] or 'no'} labels"


def _ranks(ax: Axes, values: list[list[float]], labels: list[str]) -> None:
    """A row of points per list, the mean as a bar; an arrow with its value where that lies left of the axes."""
    left = ax.get_xlim()[0]
    for row, each in enumerate(values):
        if each and np.mean(each) < left:
            ax.plot([left], [row], "<", ms=6, color=COLOURS[1], clip_on=False)
            ax.annotate(f"{np.mean(each):.1f}", (left, row), (6, -3), textcoords="offset points", fontsize=7, color=INK)
        elif each:
            ax.plot([np.mean(each)], [row], "|", ms=11, mew=2, color=COLOURS[1])
            ax.plot(each, [row] * len(each), "o", ms=4, color=COLOURS[0], mec="white", mew=0.4)
    ax.set_yticks(range(len(values)), labels, color=INK)
    ax.set_ylim(len(values) - 0.4, -0.6)


DRAWN: dict[str, Callable[[Content], Figure | None]] = {
    "sim_to_sim": gap_closed, "shift_grid": gaps, "star_shifts": shifts, "real_stars_aligned": clusters,
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

"""What does a correction add to each channel?"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sbi_da.errors import SbiDaError
from sbi_da.plots.style import COLOURS, INK, style_axes

__all__ = ["shift_figure"]


def shift_figure(
    names: Sequence[str], units: Sequence[str], shift: np.ndarray, unknown: np.ndarray, scatter: np.ndarray, seed: int = 0
) -> Figure:
    """Shift of each channel at the objects it was learned from, a panel for every unit; triangles lie beyond its axis.

    Args:
        names: of the channels.
        units: of each.
        shift: at each object, shape ``(object, channel)``.
        unknown: its standard deviation, same shape.
        scatter: among objects alike, shape ``(channel,)``.
        seed: of the places of the points.

    Raises:
        SbiDaError: shapes that do not agree.
    """
    count = len(names)
    if shift.shape != unknown.shape or shift.shape[1:] != (count,) or scatter.shape != (count,) or len(units) != count:
        raise SbiDaError(f"shift_figure: {count} channels need shift and unknown of shape (object, {count}), units and scatter of {count}")
    kinds = list(dict.fromkeys(units))
    widths = [1 + sum(unit == kind for unit in units) for kind in kinds]
    fig = Figure(figsize=(max(6.0, 1.5 + 0.42 * sum(widths)), 3.4), layout="constrained")
    panels = fig.subplots(1, len(kinds), width_ratios=widths, squeeze=False)[0]
    rng = np.random.default_rng(seed)
    for ax, kind in zip(panels, kinds, strict=True):
        own = [k for k, unit in enumerate(units) if unit == kind]
        place = np.arange(len(own))
        middle = np.median(shift[:, own], axis=0)
        ax.axhline(0, color=INK, lw=0.8, ls=":")
        ax.bar(place, 2 * scatter[own], bottom=middle - scatter[own], width=0.75, color=COLOURS[4], alpha=0.25, label="scatter it lacks")
        bar = np.median(unknown[:, own], axis=0)
        reach = 1.2 * max(np.abs(np.percentile(shift[:, own], [3, 97])).max(), (np.abs(middle) + bar + scatter[own]).max(), 1e-6)
        x, y = place + rng.uniform(-0.22, 0.22, shift[:, own].shape), shift[:, own]
        for mark, some in ((".", np.abs(y) <= reach), ("^", y > reach), ("v", y < -reach)):
            label = "shift, each object" if mark == "." else None
            ax.plot(x[some], y[some].clip(-reach, reach), mark, ms=2.5, alpha=0.45, color=COLOURS[0], label=label)
        ax.errorbar(place, middle, bar, fmt="o", ms=4, color=INK, lw=1.4, capsize=3, label="median, typical uncertainty")
        ax.set_ylim(-1.06 * reach, 1.06 * reach)
        ax.set_xticks(place, [names[k] for k in own], rotation=90)
        ax.set_xlim(-0.7, len(own) - 0.3)
        style_axes(ax, ylabel=f"real − simulated [{kind}]" if kind else "real − simulated")
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return fig

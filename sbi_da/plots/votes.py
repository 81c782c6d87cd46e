"""Do expected fractions of votes follow what volunteers said?"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sbi_da.plots.style import BAND, COLOURS, INK, panels, style_axes

__all__ = ["vote_fractions_figure"]

BINS = 12
"""Most bins of equally many objects."""


def vote_fractions_figure(counts: np.ndarray, expected: np.ndarray, answers: Sequence[str], most: int = 1500) -> Figure:
    """Observed against expected fractions of each answer: objects, and means in bins of equally many.

    Args:
        counts: votes, shape ``(object, answer)``; rows of zeros were not asked.
        expected: fractions, same shape.
        answers: names.
        most: objects drawn.
    """
    asked = counts.sum(1) > 0
    observed, expected = counts[asked] / counts[asked].sum(1, keepdims=True), expected[asked]
    fig, axes = panels(len(answers), 2.4, 2.4)
    shown = np.unique(np.linspace(0, len(observed) - 1, min(most, len(observed))).astype(int))
    for k, (ax, answer) in enumerate(zip(axes, answers, strict=True)):
        x, y = expected[:, k], observed[:, k]
        ax.plot(100 * x[shown], 100 * y[shown], ".", color=BAND, ms=3)
        groups = np.array_split(np.argsort(x, kind="stable"), max(1, min(BINS, len(x) // 20)))
        ax.plot([100 * x[g].mean() for g in groups], [100 * y[g].mean() for g in groups], "o-", color=COLOURS[0], ms=3.5, lw=1.2)
        ax.plot([0, 100], [0, 100], color=INK, lw=0.8, ls=":")
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 100)
        style_axes(ax, "expected [%]", "" if k % 4 else "votes [%]", answer)
    return fig

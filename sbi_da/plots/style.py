"""What all figures share: colours for colour-blind readers, axes, panels."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["BAND", "COLOURS", "INK", "axis_label", "panels", "style_axes", "symmetric"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B5B5B")
"""Okabe & Ito's palette, the yellow (too faint on white) replaced by grey."""

INK, BAND = "#333333", "#D9DDE3"


def style_axes(ax: Axes, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Axis labels, and as little ink as they need."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#888888")
    ax.tick_params(colors=INK, labelsize=8, length=3, color="#888888")
    ax.set_xlabel(xlabel, fontsize=9, color=INK)
    ax.set_ylabel(ylabel, fontsize=9, color=INK)
    if title:
        ax.set_title(title, fontsize=9, color=INK, loc="left")


def symmetric(ax: Axes, least: float = 3.0) -> None:
    """Zero in the middle of the y axis."""
    reach = np.abs(ax.dataLim.intervaly)
    reach = max([least, *(1.1 * reach[np.isfinite(reach)])])
    ax.set_ylim(-reach, reach)


def panels(n: int, width: float = 2.5, height: float = 2.1, most: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure of ``n`` panels, at most ``most`` a row."""
    columns = min(n, most)
    rows = -(-n // columns)
    fig = Figure(figsize=(max(width * columns, 3.6), height * rows + 0.2), layout="constrained")
    axes = [fig.add_subplot(rows, columns, i + 1) for i in range(n)]
    return fig, axes


def axis_label(name: str, units: Mapping[str, str] | None) -> str:
    """Name and unit as an axis shows them."""
    unit = (units or {}).get(name, "")
    return f"{name} [{unit}]" if unit else name

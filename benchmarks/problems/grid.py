"""Functions of two coordinates on a grid: integrals and draws."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Plane", "zoom"]

DEPTH = 18.0
"""Cells this many nats below the best one are left out: less than 1e-6 of the mass."""


@dataclass(frozen=True)
class Plane:
    """A positive function of two coordinates on equal cells of a rectangle.

    Attributes:
        x: midpoints along the first axis.
        y: midpoints along the second.
        log_value: logarithm of the function there, shape ``(len(x), len(y))``.
    """

    x: np.ndarray
    y: np.ndarray
    log_value: np.ndarray

    @property
    def _sides(self) -> np.ndarray:
        return np.array([self.x[1] - self.x[0], self.y[1] - self.y[0]])

    @property
    def log_integral(self) -> float:
        """Logarithm of the integral, by the midpoint rule."""
        peak = self.log_value.max()
        return float(peak + np.log(np.exp(self.log_value - peak).sum() * self._sides.prod()))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws in proportion to the function, uniform within cells; shape ``(n, 2)``."""
        total = np.exp(self.log_value - self.log_value.max()).ravel().cumsum()
        i, j = np.divmod(np.searchsorted(total, rng.random(n) * total[-1], side="right"), len(self.y))
        return np.stack([self.x[i], self.y[j]], -1) + self._sides * (rng.random((n, 2)) - 0.5)


def zoom(
    log_value: Callable[[np.ndarray, np.ndarray], np.ndarray],
    box: tuple[tuple[float, float], tuple[float, float]],
    counts: tuple[tuple[int, int], ...],
) -> Plane:
    """Look at a function on ever smaller rectangles around what matters of it.

    Args:
        log_value: logarithm of the function on the grid of two axes, shapes ``(j,)`` and ``(k,)`` to ``(j, k)``.
        box: limits of both coordinates.
        counts: cells along both axes, one pair for each look; the first must be fine enough not to miss a peak.
    """
    for look, cells in enumerate(counts):
        edges = [np.linspace(*limits, count + 1) for limits, count in zip(box, cells, strict=True)]
        x, y = ((e[1:] + e[:-1]) / 2 for e in edges)
        plane = Plane(x, y, log_value(x, y))
        if look < len(counts) - 1:
            good = plane.log_value > plane.log_value.max() - DEPTH
            box = _around(good.any(1), edges[0]), _around(good.any(0), edges[1])
    return plane


def _around(good: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """Limits of the good cells and of one more on either side."""
    index = np.flatnonzero(good)
    return float(edges[max(int(index[0]) - 1, 0)]), float(edges[min(int(index[-1]) + 2, len(edges) - 1)])

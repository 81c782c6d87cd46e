"""A law known by draws only."""

from typing import Literal

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

from sbi_da.distributions.law import Array, Distribution

__all__ = ["Tabulated"]


class Tabulated(Distribution):
    """A law known by draws: its quantiles at evenly spaced normal scores, linear in between.

    Attributes:
        z: rising normal scores.
        x: rising values at these scores.
    """

    kind: Literal["tabulated"] = "tabulated"
    z: tuple[float, ...]
    x: tuple[float, ...]

    @classmethod
    def from_draws(cls, draws: np.ndarray, bounds: tuple[float, float], knots: int = 257) -> "Tabulated":
        """Fit to ``draws``, shape ``(n,)``, with the support widened to ``bounds``."""
        reach = float(-ndtri(0.5 / len(draws)))
        z = np.linspace(-reach, reach, knots)
        x = np.quantile(draws, norm.cdf(z))
        z = np.concatenate([[-8.0], z, [8.0]])
        x = np.concatenate([[bounds[0]], x, [bounds[1]]])
        step = 1e-9 * (bounds[1] - bounds[0])
        x = np.maximum.accumulate(x + step * np.arange(len(x)))
        return cls(z=tuple(z.tolist()), x=tuple(x.tolist()))

    @property
    def bounds(self) -> tuple[float, float]:
        """Support."""
        return self.x[0], self.x[-1]

    def _score(self, x: Array) -> Array:
        return np.interp(x, self.x, self.z)

    def log_density(self, x: Array) -> Array:
        knots, z = np.array(self.x), np.array(self.z)
        k = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
        slope = (z[k + 1] - z[k]) / (knots[k + 1] - knots[k])
        return norm.logpdf(self._score(x)) + np.log(slope)

    def mass(self, a: Array, b: Array) -> Array:
        u, v = self._score(a), self._score(b)
        return np.maximum(np.where(u > 0, norm.sf(u) - norm.sf(v), norm.cdf(v) - norm.cdf(u)), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        left = norm.cdf(self._score(low)) + below
        right = norm.sf(self._score(high)) + above
        with np.errstate(divide="ignore"):
            z = np.where(left < right, ndtri(left), -ndtri(right))
        return np.interp(z, self.z, self.x)

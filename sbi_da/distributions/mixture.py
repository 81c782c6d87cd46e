"""A weighted sum of laws."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.optimize.elementwise import find_root
from scipy.special import logsumexp

from sbi_da.distributions.elementary import Exponential, LogOfUniform, LogUniform, Normal, Uniform
from sbi_da.distributions.family import Family
from sbi_da.distributions.galaxy import VolumeDensity
from sbi_da.distributions.isotropic import Isotropic
from sbi_da.distributions.law import Array, Distribution
from sbi_da.distributions.power_law import BrokenPowerLaw
from sbi_da.distributions.tabulated import Tabulated

__all__ = ["Component", "Mixture"]

Component = (
    Uniform | LogUniform | LogOfUniform | Normal | Exponential | Family | VolumeDensity | Isotropic | BrokenPowerLaw | Tabulated
)
"""Laws that depend on no other parameter."""


class Mixture(Distribution):
    """A weighted sum of laws with one support, each normalised on it.

    Attributes:
        laws: the components.
        weights: their probabilities; they sum to one.
    """

    kind: Literal["mixture"] = "mixture"
    laws: tuple[Annotated[Component, Field(discriminator="kind")], ...] = Field(min_length=1)
    weights: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> "Mixture":
        if len(self.weights) != len(self.laws) or min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"weights must be {len(self.laws)} positive numbers that sum to 1, one per law")
        if len({law.bounds for law in self.laws}) > 1:
            raise ValueError("the laws must have the same low and high")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Support."""
        return self.laws[0].bounds

    def _shares(self) -> list[tuple[Distribution, float]]:
        return [(law, w / float(law.mass(*self.bounds))) for law, w in zip(self.laws, self.weights, strict=True)]

    def log_density(self, x: Array) -> Array:
        return logsumexp(np.stack([law.log_density(x) + np.log(share) for law, share in self._shares()]), axis=0)

    def mass(self, a: Array, b: Array) -> Array:
        return sum(share * law.mass(a, b) for law, share in self._shares())

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        def excess(x: Array, low: Array, high: Array, below: Array, above: Array) -> Array:
            return np.where(below < above, self.mass(low, x) - below, above - self.mass(x, high))

        given = np.broadcast_arrays(*(np.asarray(v, float) for v in (low, high, below, above)))
        with np.errstate(divide="ignore", invalid="ignore"):
            found = find_root(excess, (given[0], given[1]), args=tuple(given)).x
        ends = np.where(given[2] <= 0, given[0], np.where(given[3] <= 0, given[1], found))
        return np.clip(ends, given[0], given[1])

"""Laws of textbooks, truncated to an interval."""

from typing import Literal

import numpy as np
from pydantic import Field
from scipy.special import ndtri
from scipy.stats import norm

from sbi_da.distributions.law import Array, Bounded

__all__ = ["Exponential", "LogOfUniform", "LogUniform", "Normal", "Uniform"]


class Uniform(Bounded):
    """Constant density."""

    kind: Literal["uniform"] = "uniform"

    def log_density(self, x: Array) -> Array:
        return np.zeros(np.shape(x))

    def mass(self, a: Array, b: Array) -> Array:
        return np.maximum(np.subtract(b, a), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        return np.where(below < above, low + below, high - above)


class LogUniform(Bounded):
    """Density proportional to 1/x."""

    kind: Literal["log_uniform"] = "log_uniform"
    low: float = Field(gt=0)

    def log_density(self, x: Array) -> Array:
        return -np.log(x)

    def mass(self, a: Array, b: Array) -> Array:
        return np.maximum(np.log(np.divide(np.maximum(b, 1e-300), a)), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        return np.where(below < above, low * np.exp(below), high * np.exp(-above))


class LogOfUniform(Bounded):
    """Base-10 logarithm of a uniform quantity: log age under a constant star-formation rate."""

    kind: Literal["log_of_uniform"] = "log_of_uniform"

    def log_density(self, x: Array) -> Array:
        return np.log(np.log(10.0)) + np.log(10.0) * (np.asarray(x) - self.high)

    def mass(self, a: Array, b: Array) -> Array:
        width = np.maximum(np.subtract(b, a), 0.0)
        return 10 ** (np.asarray(b) - self.high) * -np.expm1(-np.log(10.0) * width)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        left, right = 10 ** (np.asarray(low) - self.high), 10 ** (np.asarray(high) - self.high)
        return self.high + np.log10(np.where(below < above, left + below, right - above))


class Normal(Bounded):
    """Normal law truncated to ``[low, high]``."""

    kind: Literal["normal"] = "normal"
    mean: float
    sd: float = Field(gt=0)

    def log_density(self, x: Array) -> Array:
        return norm.logpdf(x, self.mean, self.sd)

    def mass(self, a: Array, b: Array) -> Array:
        u, v = (np.asarray(a) - self.mean) / self.sd, (np.asarray(b) - self.mean) / self.sd
        direct = np.where(u > 0, norm.sf(u) - norm.sf(v), norm.cdf(v) - norm.cdf(u))
        return np.maximum(direct, 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        u, v = (np.asarray(low) - self.mean) / self.sd, (np.asarray(high) - self.mean) / self.sd
        left = norm.cdf(u) + below
        right = norm.sf(v) + above
        with np.errstate(divide="ignore"):
            return self.mean + self.sd * np.where(left < right, ndtri(left), -ndtri(right))


class Exponential(Bounded):
    """Density proportional to exp(-x / scale)."""

    kind: Literal["exponential"] = "exponential"
    low: float = 0.0
    scale: float = Field(gt=0)

    def log_density(self, x: Array) -> Array:
        return -np.asarray(x) / self.scale - np.log(self.scale)

    def mass(self, a: Array, b: Array) -> Array:
        width = np.maximum(np.subtract(b, a), 0.0)
        return np.exp(-np.asarray(a) / self.scale) * -np.expm1(-width / self.scale)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        from_below = low - self.scale * np.log1p(-np.minimum(below * np.exp(np.divide(low, self.scale)), 1 - 1e-16))
        from_above = high - self.scale * np.log1p(above * np.exp(np.divide(high, self.scale)))
        return np.where(below < above, from_below, from_above)

"""Laws of stars in the Galaxy: where they are, and how much dust lies in front of them."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv

from sbi_da.distributions.elementary import Exponential
from sbi_da.distributions.law import Array, Bounded, Interval

__all__ = ["DustLayer", "VolumeDensity"]


class VolumeDensity(Bounded):
    r"""Exponentially decreasing space density, :math:`p(d)\propto d^2 e^{-d/L}` (Bailer-Jones 2015, PASP 127, 994)."""

    kind: Literal["volume"] = "volume"
    low: float = Field(0.0, ge=0)
    scale: float = Field(gt=0)

    def log_density(self, x: Array) -> Array:
        y = np.asarray(x) / self.scale
        with np.errstate(divide="ignore"):
            return 2 * np.log(y) - y - np.log(2 * self.scale)

    def mass(self, a: Array, b: Array) -> Array:
        u, v = np.asarray(a) / self.scale, np.asarray(b) / self.scale
        return np.maximum(np.where(u > 3, gammaincc(3, u) - gammaincc(3, v), gammainc(3, v) - gammainc(3, u)), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        u, v = np.asarray(low) / self.scale, np.asarray(high) / self.scale
        left, right = np.broadcast_arrays(gammainc(3, u) + below, gammaincc(3, v) + above)
        near, found = left < right, np.empty(left.shape)
        found[near] = gammaincinv(3, np.minimum(left[near], 1))
        found[~near] = gammainccinv(3, np.minimum(right[~near], 1))
        return self.scale * found


class DustLayer(Interval):
    r"""Extinction that grows with distance: exponential, its scale the mean over directions within a plane dust layer.

    A sightline of Galactic latitude b leaves a layer of half-thickness h after :math:`h/|\sin b|`. With :math:`\sin b`
    uniform, the mean path in it up to distance d is d below h, and :math:`h\,(1 + \ln(d/h))` beyond.

    Attributes:
        low: smallest extinction, mag.
        high: largest extinction, mag.
        density: extinction per length in the layer, mag/kpc (A_V of 1.8 near the Sun: Whittet 2003, Dust in the Galactic
            Environment, 2nd ed.).
        half_thickness: h, pc (125: Marshall et al. 2006, A&A 453, 635).
        distance: name of the parameter that holds the distance in pc.
    """

    kind: Literal["dust_layer"] = "dust_layer"
    low: float = Field(0.0, ge=0)
    high: float = Field(gt=0)
    density: float = Field(1.8, gt=0)
    half_thickness: float = Field(125.0, gt=0)
    distance: str = "distance"

    @property
    def given(self) -> tuple[str, ...]:
        """The distance."""
        return (self.distance,)

    def at(self, theta: Mapping[str, Array]) -> Exponential:
        """The exponential law at these distances."""
        d = np.asarray(theta[self.distance], float)
        path = np.minimum(d, self.half_thickness) + self.half_thickness * np.log(np.maximum(d / self.half_thickness, 1.0))
        values: dict[str, Any] = {"low": self.low, "high": self.high, "scale": self.density * path / 1000.0}
        return Exponential.model_construct(**values)

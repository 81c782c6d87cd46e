r"""Inclination of a disc whose axis points anywhere, :math:`p(i)\propto\sin i`."""

from typing import Literal

import numpy as np
from pydantic import Field

from sbi_da.distributions.law import Array, Bounded

__all__ = ["Isotropic"]


class Isotropic(Bounded):
    """Angle in degrees between the line of sight and a direction that is uniform on the sphere.

    Attributes:
        low: smallest angle, degrees (0: face-on).
        high: largest angle, degrees (90: edge-on).
    """

    kind: Literal["isotropic"] = "isotropic"
    low: float = Field(0.0, ge=0)
    high: float = Field(90.0, le=180)

    def log_density(self, x: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(np.sin(np.radians(x))) + np.log(np.pi / 180)

    def mass(self, a: Array, b: Array) -> Array:
        # cos a - cos b, without cancellation.
        middle, half = np.radians(np.add(a, b)) / 2, np.radians(np.subtract(b, a)) / 2
        return np.maximum(2 * np.sin(middle) * np.sin(half), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        from_below = np.sin(np.radians(low) / 2) ** 2 + np.asarray(below) / 2
        from_above = np.sin(np.radians(high) / 2) ** 2 - np.asarray(above) / 2
        share = np.clip(np.where(below < above, from_below, from_above), 0.0, 1.0)
        return np.degrees(2 * np.arcsin(np.sqrt(share)))

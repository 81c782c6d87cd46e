"""Broken power laws, such as mass functions."""

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from sbi_da.distributions.law import Array, Bounded

__all__ = ["BrokenPowerLaw"]


class BrokenPowerLaw(Bounded):
    r"""Continuous piecewise power law, :math:`p\propto x^{-\alpha_k}` between ``breaks`` (Kroupa 2001, MNRAS 322, 231).

    Attributes:
        breaks: rising positions where the slope changes.
        slopes: one more slope than breaks.
    """

    kind: Literal["power_law"] = "power_law"
    low: float = Field(gt=0)
    breaks: tuple[float, ...] = (0.08, 0.5)
    slopes: tuple[float, ...] = (0.3, 1.3, 2.3)

    @model_validator(mode="after")
    def _lengths(self) -> "BrokenPowerLaw":
        if len(self.slopes) != len(self.breaks) + 1:
            raise ValueError("slopes needs one entry more than breaks")
        return self

    def _pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        edges = np.array([0.0, *self.breaks, np.inf])
        scale = np.ones(len(self.slopes))
        for k, b in enumerate(self.breaks):
            scale[k + 1] = scale[k] * b ** (self.slopes[k + 1] - self.slopes[k])
        return edges, np.array(self.slopes), scale

    def log_density(self, x: Array) -> Array:
        edges, slopes, scale = self._pieces()
        k = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(slopes) - 1)
        return np.log(scale[k]) - slopes[k] * np.log(x)

    def mass(self, a: Array, b: Array) -> Array:
        edges, slopes, scale = self._pieces()
        total: Any = 0.0
        for k, (alpha, c) in enumerate(zip(slopes, scale, strict=True)):
            u = np.clip(a, max(edges[k], 1e-12), edges[k + 1])
            v = np.clip(b, u, max(edges[k + 1], 1e-12))
            total = total + c * _power_integral(u, v, alpha)
        return total

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        up = self._walk(low, below, +1)
        down = self._walk(high, above, -1)
        return np.where(below < above, up, down)

    def _walk(self, start: Array, amount: Array, direction: int) -> np.ndarray:
        edges, slopes, scale = self._pieces()
        position = np.broadcast_to(np.asarray(start, float), np.shape(amount)).copy()
        left = np.broadcast_to(np.asarray(amount, float), position.shape).copy()
        order = range(len(slopes)) if direction > 0 else range(len(slopes) - 1, -1, -1)
        for k in order:
            edge = edges[k + 1] if direction > 0 else edges[k]
            inside = (position < edges[k + 1]) if direction > 0 else (position > edges[k])
            if direction > 0:
                inside &= position >= edges[k]
            lo, hi = (position, np.maximum(edge, position)) if direction > 0 else (np.minimum(edge, position), position)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                room = scale[k] * _power_integral(np.maximum(lo, 1e-12), hi, slopes[k])
                step = np.minimum(left, room)
                moved = _power_shift(position, direction * step / scale[k], slopes[k])
            full = left >= room
            position = np.where(inside, np.where(full, edge, moved), position)
            left = np.where(inside, left - step, left)
        return position


def _power_integral(u: Array, v: Array, alpha: float) -> Array:
    ratio = np.log(np.divide(v, u))
    beta = 1.0 - alpha
    with np.errstate(over="ignore", invalid="ignore"):
        return ratio if beta == 0 else np.power(u, beta) * np.expm1(beta * ratio) / beta


def _power_shift(x: Array, amount: Array, alpha: float) -> Array:
    beta = 1.0 - alpha
    if beta == 0:
        return x * np.exp(amount)
    return x * np.exp(np.log1p(np.maximum(beta * amount * np.power(x, -beta), -1 + 1e-16)) / beta)

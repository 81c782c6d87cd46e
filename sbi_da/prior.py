r"""Priors as maps to independent standard normals.

A joint prior over :math:`\theta_1 \dots \theta_D` is given by one-dimensional laws, each of which may depend on earlier parameters
(dust grows with distance) and be truncated to limits that do (a star of given age and metallicity exists only below some
mass). Then

.. math:: z_i = \Phi^{-1}\bigl(F_i(\theta_i \mid \theta_{<i})\bigr)

(Rosenblatt 1952) makes :math:`z \sim N(0, I)` under the prior. A posterior learned in :math:`z` cannot leave the prior's support, and
its density in :math:`\theta` is :math:`q(z)\prod_i p_i(\theta_i\mid\theta_{<i})/\phi(z_i)`. Both tails are followed by the distribution
function and by its complement, whichever is smaller, so that no precision is lost near either limit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

from sbi_da.distributions import Law, distribution_from_dict
from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = ["Limits", "Prior", "cell"]

Z_MAX = 8.0
"""Beyond this many standard deviations a draw is set to the limit (probability 1e-15)."""


@dataclass(frozen=True)
class Limits:
    """Limits of one parameter as a multilinear function of others, on a grid; clamped outside it.

    Attributes:
        given: names of the parameters the limits depend on.
        axes: grid coordinates, one rising array per name in ``given``.
        low: lower limit, shape ``(len(axes[0]), len(axes[1]), ...)``, natural logarithm when ``log``.
        high: upper limit, same shape.
        log: whether ``low`` and ``high`` hold natural logarithms.
    """

    given: tuple[str, ...]
    axes: tuple[np.ndarray, ...]
    low: np.ndarray
    high: np.ndarray
    log: bool = False

    def __call__(self, theta: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limit for each object."""
        low: Any = 0.0
        high: Any = 0.0
        for index, weight in multilinear([np.asarray(theta[n], float) for n in self.given], self.axes):
            low = low + weight * self.low[index]
            high = high + weight * self.high[index]
        return (np.exp(low), np.exp(high)) if self.log else (low, high)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "given": list(self.given), "axes": [a.tolist() for a in self.axes],
            "low": self.low.tolist(), "high": self.high.tolist(), "log": self.log,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Limits":
        """Inverse of :meth:`to_dict`."""
        return cls(
            tuple(content["given"]), tuple(np.array(a) for a in content["axes"]),
            np.array(content["low"]), np.array(content["high"]), bool(content["log"]),
        )


def cell(value: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the grid interval that holds each value, and where in it, from 0 to 1; clamped at the ends."""
    left = np.clip(np.searchsorted(axis, value, side="right") - 1, 0, len(axis) - 2)
    return left, np.clip((value - axis[left]) / (axis[left + 1] - axis[left]), 0.0, 1.0)


def multilinear(
    values: Sequence[np.ndarray], axes: Sequence[np.ndarray]
) -> list[tuple[tuple[np.ndarray, ...], np.ndarray]]:
    """Corners and weights of multilinear interpolation on a rectangular grid, clamped at its edges."""
    corners: list[tuple[tuple[np.ndarray, ...], np.ndarray]] = [((), np.ones(np.shape(values[0])))]
    for value, axis in zip(values, axes, strict=True):
        if len(axis) == 1:
            zero = np.zeros(np.shape(value), int)
            corners = [((*index, zero), weight) for index, weight in corners]
            continue
        left, fraction = cell(value, axis)
        corners = [
            pair
            for index, weight in corners
            for pair in (((*index, left), weight * (1 - fraction)), ((*index, left + 1), weight * fraction))
        ]
    return corners


class Prior:
    """Joint prior over named parameters.

    Args:
        laws: one law per parameter, in the order in which laws and limits may refer to earlier ones.
        limits: for some parameters, limits that depend on earlier ones.
    """

    def __init__(self, laws: Mapping[str, Law], limits: Mapping[str, Limits] | None = None) -> None:
        self.laws = dict(laws)
        self.limits = dict(limits or {})
        seen: set[str] = set()
        for name in self.laws:
            if name in self.limits and not set(self.limits[name].given) <= seen:
                raise SbiDaError(f"prior: limits of {name!r} depend on {self.limits[name].given}, which must come first")
            if not set(self.laws[name].given) <= seen:
                raise SbiDaError(f"prior of {name!r}: depends on {', '.join(self.laws[name].given)}, which must come before it")
            seen.add(name)

    @property
    def names(self) -> list[str]:
        """Parameter names, in order."""
        return list(self.laws)

    @property
    def columns(self) -> list[str]:
        """What records must hold of an object: the parameters."""
        return self.names

    def bounds(self, name: str) -> tuple[float, float]:
        """Smallest and largest value of ``name`` with any prior density."""
        if name not in self.laws:
            raise UnknownNameError("parameter", name, self.names)
        low, high = self.laws[name].bounds
        if name in self.limits:
            limit = self.limits[name]
            floor, ceiling = float(limit.low.min()), float(limit.high.max())
            if limit.log:
                floor, ceiling = float(np.exp(floor)), float(np.exp(ceiling))
            low, high = max(low, floor), min(high, ceiling)
        return low, high

    def _window(self, name: str, theta: Mapping[str, np.ndarray]) -> tuple[Any, Any]:
        low, high = self.laws[name].bounds
        if name not in self.limits:
            return low, high
        floor, ceiling = self.limits[name](theta)
        return np.maximum(low, floor), np.minimum(high, ceiling)

    def to_normal(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Map parameters to independent standard normals; values outside the support give NaN.

        Args:
            theta: one array of shape ``(...)`` per parameter.

        Returns:
            Shape ``(..., parameter)``, float64, each within ±8.
        """
        return np.stack([self.score(name, theta) for name in self.laws], axis=-1)

    def score(self, name: str, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Normal score of one parameter; ``theta`` holds it and those that its law or limits depend on."""
        value = np.asarray(theta[name], float)
        low, high = self._window(name, theta)
        law = self.laws[name].at(theta)
        total = law.mass(low, high)
        within = np.clip(value, low, high)
        below = law.mass(low, within) / total
        above = law.mass(within, high) / total
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(below < above, ndtri(below), -ndtri(above))
        slack = 1e-9 * (np.abs(low) + np.abs(high))
        outside = (value < low - slack) | (value > high + slack) | ~np.isfinite(value)
        return np.where(outside, np.nan, np.clip(z, -Z_MAX, Z_MAX))

    def parents(self, name: str) -> tuple[str, ...]:
        """Parameters that the law or the limits of ``name`` depend on."""
        limits = self.limits[name].given if name in self.limits else ()
        return tuple(dict.fromkeys([*self.laws[name].given, *limits]))

    def with_ancestors(self, names: Iterable[str]) -> list[str]:
        """These parameters and all that their laws and limits depend on, in the prior's order."""
        wanted = set(names)
        for name in reversed(self.names):
            if name in wanted:
                wanted |= set(self.parents(name))
        return [name for name in self.names if name in wanted]

    def from_normal(
        self, z: np.ndarray, fixed: Mapping[str, Any] | None = None, only: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Inverse of :meth:`to_normal`; whatever ``z`` holds, the result lies within the prior's support.

        Args:
            z: normal scores, shape ``(..., parameter)``.
            fixed: parameters held at a value, or at values that broadcast with the others; their scores are not read.
            only: parameters that are wanted, with all that they depend on; None: all.
        """
        theta: dict[str, np.ndarray] = {}
        wanted = set(self.names if only is None else only)
        for i, (name, law) in enumerate(self.laws.items()):
            if fixed and name in fixed:
                theta[name] = np.broadcast_to(np.asarray(fixed[name], float), z.shape[:-1]).copy()
                continue
            if name not in wanted:
                continue
            zi = np.clip(np.asarray(z[..., i], float), -Z_MAX, Z_MAX)
            low, high = self._window(name, theta)
            law = law.at(theta)
            total = law.mass(low, high)
            value = law.quantile(low, high, norm.cdf(zi) * total, norm.sf(zi) * total)
            theta[name] = np.clip(value, low, high)
        return theta

    def log_prob(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log prior density in the parameters' own units, ``-inf`` outside the support; shape ``(...)``."""
        total: Any = 0.0
        for name, law in self.laws.items():
            value = np.asarray(theta[name], float)
            low, high = self._window(name, theta)
            inside = (value >= low) & (value <= high)
            law = law.at(theta)
            with np.errstate(divide="ignore", invalid="ignore"):
                density = law.log_density(np.clip(value, low, high)) - np.log(law.mass(low, high))
            total = total + np.where(inside, density, -np.inf)
        return np.asarray(total)

    def log_density_ratio(self, name: str, theta: Mapping[str, np.ndarray], z: np.ndarray) -> np.ndarray:
        r"""Log of :math:`p(\theta_i\mid\theta_{<i})/\phi(z_i)` for one parameter; ``z`` are its normal scores."""
        low, high = self._window(name, theta)
        law = self.laws[name].at(theta)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = law.log_density(np.asarray(theta[name])) - np.log(law.mass(low, high))
        return density - norm.logpdf(z)

    def log_jacobian(self, theta: Mapping[str, np.ndarray], z: np.ndarray) -> np.ndarray:
        r"""Log :math:`|dz/d\theta|`: add it to a log-density in z to get one in the parameters' units."""
        return self.log_prob(theta) + 0.5 * np.square(z).sum(-1) + 0.5 * z.shape[-1] * np.log(2 * np.pi)

    def sample(self, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """``n`` draws."""
        return self.from_normal(rng.standard_normal((n, len(self.laws))))

    def replaced(self, laws: Mapping[str, Law]) -> "Prior":
        """The same prior with other laws for some parameters; limits stay.

        Raises:
            UnknownNameError: a name this prior does not have.
            SbiDaError: a law that reaches beyond the one it replaces.
        """
        for name, law in laws.items():
            if name not in self.laws:
                raise UnknownNameError("parameter", name, self.names)
            (low, high), (floor, ceiling) = law.bounds, self.laws[name].bounds
            if low < floor or high > ceiling:
                raise SbiDaError(f"prior of {name}: {low:g} to {high:g} reaches beyond {floor:g} to {ceiling:g}")
        return Prior({**self.laws, **laws}, self.limits)

    def to_dict(self) -> dict[str, Any]:
        """Plain content, for JSON."""
        return {
            "laws": {name: law.to_dict() for name, law in self.laws.items()},
            "limits": {name: limit.to_dict() for name, limit in self.limits.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Prior":
        """Inverse of :meth:`to_dict`."""
        return cls(
            {name: distribution_from_dict(law) for name, law in content["laws"].items()},
            {name: Limits.from_dict(limit) for name, limit in content["limits"].items()},
        )

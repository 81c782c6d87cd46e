r"""Further laws of textbooks by name: those that SciPy evaluates accurately in both tails.

.. math:: p(x) = f\bigl((x - \ell)/s\bigr)/s

with the standard density :math:`f` of the family, a location :math:`\ell` and a scale :math:`s`. Shape parameters are in SciPy's order:

- ``beta``: a, b;
- ``gamma``: a;
- ``half_normal``, ``laplace``: none;
- ``log_normal``: the standard deviation of the logarithm, whose mean is that of ``scale``'s logarithm.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy import stats

from sbi_da.distributions.law import Array, Bounded

__all__ = ["Family", "FamilyName"]

FamilyName = Literal["beta", "gamma", "half_normal", "laplace", "log_normal"]
SCIPY = {"beta": stats.beta, "gamma": stats.gamma, "half_normal": stats.halfnorm, "laplace": stats.laplace, "log_normal": stats.lognorm}
SHAPES = {"beta": 2, "gamma": 1, "half_normal": 0, "laplace": 0, "log_normal": 1}
TAIL = 6e-16
"""Probability beyond the limits of :meth:`Family.whole`: that beyond 8 standard deviations of a normal law."""


class Family(Bounded):
    """A law of a named family, truncated to ``[low, high]``.

    Attributes:
        family: its name.
        shape: its shape parameters, each positive.
        location: of the standard law's zero.
        scale: of the standard law's unit.
    """

    kind: Literal["family"] = "family"
    family: FamilyName
    shape: tuple[float, ...] = ()
    location: float = 0.0
    scale: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "Family":
        if len(self.shape) != SHAPES[self.family] or min(self.shape, default=1.0) <= 0:
            raise ValueError(f"shape of {self.family} must be {SHAPES[self.family]} positive numbers")
        floor, ceiling = self._law.support()
        if self.low < floor or self.high > ceiling:
            raise ValueError(f"low and high must lie between {floor:g} and {ceiling:g}, where the {self.family} law has density")
        return self

    @classmethod
    def whole(cls, family: FamilyName, shape: tuple[float, ...] = (), location: float = 0.0, scale: float = 1.0) -> "Family":
        """The law with limits at the ends of its support or, where it has none, where all but 1e-15 of it lies between them."""
        law = SCIPY[family](*shape, loc=location, scale=scale)
        low, high = law.support()
        low, high = (float(e) if np.isfinite(e) else float(t) for e, t in ((low, law.ppf(TAIL)), (high, law.isf(TAIL))))
        return cls(family=family, shape=shape, location=location, scale=scale, low=low, high=high)

    @property
    def _law(self) -> Any:
        return SCIPY[self.family](*self.shape, loc=self.location, scale=self.scale)

    def log_density(self, x: Array) -> Array:
        return self._law.logpdf(x)

    def mass(self, a: Array, b: Array) -> Array:
        law = self._law
        direct = np.where(np.asarray(a) > law.median(), law.sf(a) - law.sf(b), law.cdf(b) - law.cdf(a))
        return np.maximum(direct, 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        law = self._law
        left, right = law.cdf(low) + below, law.sf(high) + above
        return np.where(left < right, law.ppf(np.minimum(left, 1.0)), law.isf(np.minimum(right, 1.0)))

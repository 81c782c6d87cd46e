r"""A normal law whose mean is linear in earlier parameters: the conditionals of a multivariate normal.

For :math:`\theta\sim N(\mu, \Sigma)` with :math:`\Sigma = LL^\top`, :math:`L` lower triangular,

.. math:: \theta_i \mid \theta_{<i} \sim N\Bigl(\mu_i + \sum_{j<i} a_{ij}\,(\theta_j-\mu_j),\ L_{ii}^2\Bigr),
          \qquad A = I - \operatorname{diag}(L)\,L^{-1},

so that such laws in a row give every multivariate normal exactly, and its normal scores are :math:`L^{-1}(\theta-\mu)`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from sbi_da.distributions.elementary import Normal
from sbi_da.distributions.law import Array, Interval, Law

__all__ = ["LinearNormal", "multivariate_normal"]

REACH = 8.0
"""Standard deviations at which normal laws without limits are cut (probability 1e-15)."""


class LinearNormal(Interval):
    """Normal law about a linear function of earlier parameters, truncated to ``[low, high]``.

    Attributes:
        coefficients: change of the mean per unit of each earlier parameter, by name.
        intercept: mean where these parameters are zero.
        sd: standard deviation about the mean.
    """

    kind: Literal["linear_normal"] = "linear_normal"
    coefficients: dict[str, float] = Field(min_length=1)
    intercept: float = 0.0
    sd: float = Field(gt=0)

    @property
    def given(self) -> tuple[str, ...]:
        """The parameters with a coefficient."""
        return tuple(self.coefficients)

    def at(self, theta: Mapping[str, Array]) -> Normal:
        """The normal law at these values."""
        mean = self.intercept + sum(slope * np.asarray(theta[name], float) for name, slope in self.coefficients.items())
        values: dict[str, Any] = {"low": self.low, "high": self.high, "mean": mean, "sd": self.sd}
        return Normal.model_construct(**values)


def multivariate_normal(names: Sequence[str], mean: np.ndarray, covariance: np.ndarray) -> dict[str, Law]:
    """The laws of a multivariate normal, by name.

    Args:
        names: of the parameters, in order.
        mean: shape ``(parameter,)``.
        covariance: shape ``(parameter, parameter)``, positive definite.

    Returns:
        Laws whose limits lie beyond what 8 standard deviations of every score reach.
    """
    root = np.linalg.cholesky(covariance)
    slopes = np.eye(len(names)) - np.diag(root)[:, None] * np.linalg.inv(root)
    laws: dict[str, Law] = {}
    for i, name in enumerate(names):
        used = {names[j]: float(slopes[i, j]) for j in range(i) if root[i, :i].any() and slopes[i, j] != 0}
        reach = REACH * float(np.sqrt((1 + np.count_nonzero(root[i, :i])) * covariance[i, i]))
        limits = {"low": float(mean[i]) - reach, "high": float(mean[i]) + reach, "sd": float(root[i, i])}
        start = float(mean[i] - sum(slopes[i, j] * mean[j] for j in range(i))) if used else float(mean[i])
        laws[name] = LinearNormal(coefficients=used, intercept=start, **limits) if used else Normal(mean=start, **limits)
    return laws

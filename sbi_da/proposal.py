r"""Training proposals: where to simulate, when the prior rarely goes where the objects of interest are.

In the space in which the prior is :math:`N(0, I)` the proposal is
:math:`q = \alpha\,N(0,I) + (1-\alpha)\prod_i N(\mu_i, s_i^2)`. The weights :math:`p/q` are bounded by :math:`1/\alpha`
(a defensive mixture; Hesterberg 1995, Technometrics 37, 185).
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import norm

from sbi_da.errors import UnknownNameError

__all__ = ["Proposal", "Widening"]


class Widening(BaseModel):
    """How one parameter is proposed, in normal scores of its prior.

    Attributes:
        shift: mean.
        scale: standard deviation.
    """

    model_config = ConfigDict(extra="forbid")
    shift: float = 0.0
    scale: float = Field(1.0, gt=0)


class Proposal(BaseModel):
    """A mixture of the prior and a widened law.

    Attributes:
        prior_fraction: share of draws from the prior itself; weights never exceed its inverse.
        parameters: the widened ones; the others follow the prior.
    """

    model_config = ConfigDict(extra="forbid")
    prior_fraction: float = Field(0.3, gt=0, le=1)
    parameters: dict[str, Widening] = {}

    def sample(self, n: int, names: Sequence[str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw normal scores, shape ``(n, parameter)``, and log(prior / proposal), shape ``(n,)``."""
        for name in self.parameters:
            if name not in names:
                raise UnknownNameError("parameter", name, list(names), "in proposal.parameters")
        shift = np.array([self.parameters.get(k, Widening()).shift for k in names])
        scale = np.array([self.parameters.get(k, Widening()).scale for k in names])
        z = rng.standard_normal((n, len(names)))
        wide = rng.random(n) >= self.prior_fraction
        z = np.where(wide[:, None], shift + scale * z, z)
        log_p = norm.logpdf(z).sum(1)
        log_q = norm.logpdf(z, shift, scale).sum(1)
        with np.errstate(divide="ignore"):
            rest = np.log1p(-self.prior_fraction)
        mixture = np.logaddexp(np.log(self.prior_fraction) + log_p, rest + log_q)
        return z, log_p - mixture

r"""The marginal prior of the parameters that the members of a cluster share.

Where every law and limit of the shared parameters :math:`\varphi` refers to shared ones only, the marginal prior is the product of their
laws. Where one refers to a parameter that each member has for itself (extinction grows with distance, and distance is not shared),

.. math:: p(\varphi) = E_{\theta_r}\Bigl[\prod_{k\in\varphi} p(\varphi_k\mid\theta_{<k})\Bigr]

is a mean over draws of the others in the prior's order (likelihood weighting), the same draws for every :math:`\varphi`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import logsumexp, ndtri
from scipy.stats import norm, qmc

from sbi_da.distributions import Law, Tabulated
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.prior import Prior

__all__ = ["SharedPrior"]

DRAWS, TABULATED, BLOCK = 1024, 100_000, 500_000
"""Draws of the mean, draws of a tabulated coordinate, and rows computed at a time."""


class SharedPrior:
    """Marginal prior of some parameters, and coordinates in which it is about standard normal.

    Args:
        prior: of all parameters.
        names: those shared.
        seed: of the draws, where some are needed.

    Attributes:
        names: those shared, in the prior's order.
        exact: whether the marginal is a product of laws; it is then N(0, I) in the coordinates.
        coordinates: maps shared parameters to scores and back.
    """

    def __init__(self, prior: Prior, names: Sequence[str], seed: int = 0) -> None:
        if not names:
            raise SbiDaError(f"cluster: name at least one shared parameter of {', '.join(prior.names)}")
        for name in names:
            if name not in prior.names:
                raise UnknownNameError("shared parameter", name, prior.names)
        self.prior = prior
        self.names = [name for name in prior.names if name in names]
        laws: dict[str, Law] = {}
        limits = {}
        for name in self.names:
            needed = {*prior.laws[name].given, *(prior.limits[name].given if name in prior.limits else ())}
            if needed <= set(laws):
                laws[name] = prior.laws[name]
                if name in prior.limits:
                    limits[name] = prior.limits[name]
        self.exact = len(laws) == len(self.names)
        if not self.exact:
            drawn = prior.sample(TABULATED, np.random.default_rng(seed))
            own = {name: Tabulated.from_draws(drawn[name], prior.bounds(name)) for name in self.names if name not in laws}
            laws = {name: laws.get(name) or own[name] for name in self.names}
            self._z = ndtri(qmc.Sobol(len(prior.names), rng=np.random.default_rng(seed)).random(DRAWS).clip(1e-12, 1 - 1e-12))
        self.coordinates = Prior(laws, limits)

    def replaced(self, laws: Mapping[str, Law]) -> "SharedPrior":
        """With other laws for some of the shared parameters.

        Raises:
            SbiDaError: a law of a parameter that is not shared, or one that reaches beyond the one it replaces.
        """
        for name in laws:
            if name not in self.names:
                raise UnknownNameError("shared parameter", name, self.names, "whose prior can be replaced here")
        return SharedPrior(self.prior.replaced(laws), self.names)

    def log_prob(self, phi: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log-density in the parameters' own units, ``-inf`` outside the support.

        Args:
            phi: every shared parameter, each of shape ``(...)``; ``(point,)`` where the marginal is a mean over draws.

        Returns:
            Same shape.
        """
        if self.exact:
            return self.coordinates.log_prob(phi)
        count = len(next(iter(phi.values())))
        out, step = np.empty(count), max(1, BLOCK // DRAWS)
        rest = [(i, name) for i, name in enumerate(self.prior.names) if name not in self.names]
        for start in range(0, count, step):
            fixed = {k: np.asarray(v, float)[start : start + step, None] for k, v in phi.items()}
            z = np.broadcast_to(self._z, (len(fixed[self.names[0]]), *self._z.shape))
            theta = self.prior.from_normal(z, fixed)
            log_p = self.prior.log_prob(theta)
            for i, name in rest:
                log_p = log_p - self.prior.log_density_ratio(name, theta, z[..., i]) - norm.logpdf(z[..., i])
            out[start : start + step] = logsumexp(np.where(np.isnan(log_p), -np.inf, log_p), axis=1) - np.log(DRAWS)
        return out

    def log_jacobian(self, u: np.ndarray, phi: Mapping[str, np.ndarray]) -> np.ndarray:
        r"""Log :math:`|d\varphi/du|` at scores ``u`` of ``phi``, shape ``(point,)``."""
        return norm.logpdf(u).sum(-1) - self.coordinates.log_prob(phi)

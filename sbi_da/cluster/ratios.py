r"""How much more likely each member makes values of the shared parameters than their prior does.

With shared parameters :math:`\varphi` and a member's own :math:`\psi`,

.. math:: r_i(\varphi) = \frac{p(\varphi\mid x_i)}{p(\varphi)} = \frac{1}{p(\varphi)} \int q(\varphi, \psi\mid x_i)\,d\psi
          = E_{\psi\sim g_i(\cdot\mid\varphi)}\!\left[\frac{q(\varphi, \psi\mid x_i)}{g_i(\psi\mid\varphi)\,p(\varphi)}\right],

where q is the joint density that every head has. A parameter with a spread s is one that each member has for itself, drawn about
the shared value: it joins :math:`\psi`, with the normal law about the shared value, cut at the prior's bounds, as a further factor and
:math:`p(\varphi)` at the member's own value. :math:`g_i` is a Student law about a linear regression of a member's draws on the shared
parameters, fitted again where the cluster turns out to be. Where that law proposes badly, :mod:`sbi_da.cluster.mixtures` serves instead.
The same low-discrepancy points serve every :math:`\varphi`, so that :math:`r_i` is a smooth function; what their finite number does to a
result is known from how their weights vary. Where a head has densities of marginals of its own, these are taken, and nothing is integrated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_ndtr, logsumexp, ndtri
from scipy.stats import chi2, norm, qmc

from sbi_da.cluster.shared_prior import SharedPrior
from sbi_da.errors import SbiDaError
from sbi_da.importance import DEGREES, effective, normalised, student_log_prob
from sbi_da.posteriors import Posterior

__all__ = ["Inner", "MemberRatios"]

PILOT, NEAR, FEWEST = 3000, (1.0, 0.3, 0.1, 0.03, 0.01, 0.0), 150
"""Draws of a member; how narrowly its regression looks about the cluster; effective draws it wants there."""
INFLATION, RIDGE = 1.3, 1e-8
BLOCK = 400_000
"""Densities computed at a time."""


@dataclass(frozen=True)
class Inner:
    """What was evaluated for each member and point.

    Attributes:
        log_ratio: log r, shape ``(member, point)``.
        log_weight: of each draw of the member's own parameters, shape ``(member, point, draw)``.
        scores: of these draws, shape ``(member, point, draw, own)``.
    """

    log_ratio: np.ndarray
    log_weight: np.ndarray
    scores: np.ndarray


class MemberRatios:
    """Ratios of all members of a cluster.

    Args:
        posterior: of the members, joint over all parameters.
        shared: the prior of what they share.
        spread: standard deviation of members about the shared value, by shared parameter, in its unit; absent: none.
        seed: of the members' draws.
        marginals: whether to take densities of marginals from the head, where it has them.

    Attributes:
        marginal: whether they are taken.
        own: names of the parameters integrated over, in the prior's order.
        drawn: the members' draws, each of shape ``(member, draw)``.
        scores: theirs of the shared parameters in their coordinates, shape ``(member, draw, shared)``.
    """

    def __init__(
        self, posterior: Posterior, shared: SharedPrior, spread: Mapping[str, float], seed: int = 0, marginals: bool = True
    ) -> None:
        self.shared, self.spread, self.posterior = shared, dict(spread), posterior
        z = posterior.normal_scores(PILOT, seed).astype(float)
        self.drawn = theta = posterior.prior.from_normal(z)
        self.scores = shared.coordinates.to_normal({k: theta[k] for k in shared.names})
        marginal = _marginal(posterior, shared, theta) if marginals else None
        self.marginal = marginal is not None
        self._density: Any = marginal or posterior
        self.prior = shared.coordinates if marginal else posterior.prior
        self.own = [name for name in self.prior.names if name not in shared.names or name in spread]
        self._at = [self.prior.names.index(name) for name in self.own]
        self._sharp = [k for k, name in enumerate(shared.names) if name not in spread]
        self._loose = [(self.own.index(name), k, name) for k, name in enumerate(shared.names) if name in spread]
        self._pilot = (self.scores if marginal else z)[..., self._at]
        self.focus(None)

    def __len__(self) -> int:
        return len(self._pilot)

    def focus(self, u: np.ndarray | None) -> None:
        """Fit the proposals to the members' draws near scores ``u``, shape ``(shared,)``; None: to all of them."""
        weight = np.full(self._pilot.shape[:2], 1 / self._pilot.shape[1])
        if u is not None and self._sharp:
            regressors = self.scores[..., self._sharp]
            square = np.square((regressors - u[self._sharp]) / (regressors.std(1, keepdims=True) + 1e-9)).sum(-1)
            nearness = np.stack([normalised(-0.5 * t * square) for t in NEAR])
            first = (effective(nearness) >= FEWEST).argmax(0)
            weight = nearness[first, np.arange(len(self))]
        self._fit(self.scores[..., self._sharp], self._pilot, weight)
        self._seen, self._pulled = self._sharp, bool(self._loose)

    def adapt(self, u: np.ndarray, weight: np.ndarray, inner: Inner) -> None:
        """Fit the proposals again to what was evaluated at points ``u``, shape ``(point, shared)``, of these weights."""
        if not self.own:
            return
        members, points, draws, size = inner.scores.shape
        within = np.log(normalised(inner.log_weight) + 1e-300) + np.log(weight + 1e-300)[:, None]
        flat = within.reshape(members, -1)
        powers = np.array([1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05])
        found = np.stack([normalised(t * flat) for t in powers])
        chosen = found[(effective(found) >= min(60, 0.3 * flat.shape[1])).argmax(0), np.arange(members)]
        regressors = np.broadcast_to(u[None, :, None], (members, points, draws, u.shape[1]))
        self._fit(regressors.reshape(members, points * draws, -1), inner.scores.reshape(members, -1, size), chosen)
        self._seen, self._pulled = list(range(u.shape[1])), False  # what was evaluated holds the pull of the shared value already

    def _fit(self, regressors: np.ndarray, response: np.ndarray, weight: np.ndarray) -> None:
        """Weighted linear regression for each member, shapes ``(member, draw, ...)``."""
        if not self.own:
            return
        self._centre = np.einsum("nm,nms->ns", weight, regressors)[:, None]
        scale = np.sqrt(np.einsum("nm,nms->ns", weight, np.square(regressors - self._centre)))[:, None] + 1e-9
        design = np.concatenate([np.ones((*weight.shape, 1)), (regressors - self._centre) / scale], axis=-1)
        scaled = design * weight[..., None]
        normal = np.einsum("nma,nmb->nab", scaled, design) + 1e-3 * np.diag([0.0, *[1.0] * regressors.shape[-1]])
        self._slope = np.linalg.solve(normal, np.einsum("nma,nmb->nab", scaled, response))
        self._scale = scale
        residual = response - design @ self._slope
        covariance = np.einsum("nm,nma,nmb->nab", weight, residual, residual)
        self._covariance = INFLATION * covariance + RIDGE * np.eye(len(self.own))

    def points(self, draws: int, seed: int) -> np.ndarray:
        """Student noise for each member, shape ``(member, 1, draw, own)``; ``draws`` a power of two."""
        size = len(self.own)
        out = np.empty((len(self), 1, draws, size))
        for i, child in enumerate(np.random.default_rng([seed, 11]).spawn(len(self))):
            uniform = qmc.Sobol(size + 1, rng=child).random(draws).clip(1e-9, 1 - 1e-9)
            out[i, 0] = ndtri(uniform[:, :size]) / np.sqrt(chi2.ppf(uniform[:, size:], DEGREES) / DEGREES)
        return out

    def noise(self, count: int, seed: int) -> np.ndarray:
        """Student noise of its own for each of ``count`` points, shape ``(member, point, 1, own)``."""
        rng = np.random.default_rng([seed, 13])
        shape = (len(self), count, 1)
        return rng.standard_normal((*shape, len(self.own))) / np.sqrt(rng.chisquare(DEGREES, (*shape, 1)) / DEGREES)

    def parameters(self, u: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters of members at points ``u``, shape ``(point, shared)``, with own scores ``(member, point, draw, own)``."""
        phi = self.shared.coordinates.from_normal(u)
        fixed: dict[str, float | np.ndarray] = {k: phi[k][None, :, None] for k in self.shared.names if k not in self.spread}
        return self.prior.from_normal(self._placed(scores), fixed)

    def _placed(self, scores: np.ndarray) -> np.ndarray:
        z = np.zeros((*scores.shape[:-1], len(self.prior.names)))
        z[..., self._at] = scores
        return z

    def __call__(self, u: np.ndarray, noise: np.ndarray) -> Inner:
        """Evaluate all members at points ``u``, shape ``(point, shared)``, in the coordinates of the shared prior.

        Args:
            u: the points.
            noise: Student noise, shape ``(member, 1, draw, own)``, or ``(member, point, draw, own)``; see :meth:`points`.
        """
        members, draws, size = len(self), noise.shape[2] if self.own else 1, len(self.own)
        log_weight = np.empty((members, len(u), draws))
        scores = np.empty((members, len(u), draws, size))
        step = max(1, BLOCK // (members * draws))
        for start in range(0, len(u), step):
            rows = slice(start, start + step)
            noisy = noise if noise.shape[1] == 1 else noise[:, rows]
            log_weight[:, rows], scores[:, rows] = self._evaluate(u[rows], noisy)
        return Inner(logsumexp(log_weight, axis=2) - np.log(draws), log_weight, scores)

    def _evaluate(self, u: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        members, draws, size = len(self), noise.shape[2] if self.own else 1, len(self.own)
        phi = self.shared.coordinates.from_normal(u)
        shape = (members, len(u), draws)
        log_weight: Any = np.zeros(shape)
        scores = np.zeros((*shape, size))
        if self.own:
            mean, root = self._proposal(u, phi)
            scores = mean[:, :, None] + np.einsum("npij,nprj->npri", root, np.broadcast_to(noise, (*shape, size)))
            log_det = np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)[:, :, None]
            log_weight = log_weight - student_log_prob(np.square(noise).sum(-1), log_det, size)
        theta, z = self.parameters(u, scores), self._placed(scores)
        flat = {k: v.reshape(members, -1) for k, v in theta.items()}
        log_weight = log_weight + np.asarray(self._density.log_prob(flat)).reshape(shape)
        for k, name in zip(self._at, self.own, strict=True):
            log_weight = log_weight - self.prior.log_density_ratio(name, theta, z[..., k])
        for _, _, name in self._loose:
            log_weight = log_weight + self._kernel(name, theta[name], phi[name][None, :, None])
        prior = self.shared.coordinates.log_prob({k: theta[k] for k in self.shared.names} if self._loose else phi)
        log_weight = log_weight - (prior if self._loose else prior[None, :, None])
        inside = (np.abs(scores) < 7.9).all(-1)
        return np.where(inside & (log_weight > -np.inf), log_weight, -np.inf), scores

    def _kernel(self, name: str, value: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Log-density of a member's own value about the shared one, cut at the prior's bounds."""
        low, high = ((bound - centre) / self.spread[name] for bound in self.shared.prior.bounds(name))
        return norm.logpdf(value, centre, self.spread[name]) - (log_ndtr(high) + np.log1p(-np.exp(log_ndtr(low) - log_ndtr(high))))

    def _proposal(self, u: np.ndarray, phi: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Centres ``(member, point, own)`` and roots ``(member, point or 1, own, own)`` of the proposals."""
        design = (u[None][..., self._seen] - self._centre) / self._scale
        design = np.concatenate([np.ones((*design.shape[:2], 1)), design], axis=-1)
        mean, covariance = design @ self._slope, self._covariance[:, None]
        if self._pulled:
            precision = np.linalg.inv(covariance) * np.ones((1, len(u), 1, 1))
            pull = np.einsum("npij,npj->npi", precision, mean)
            for j, k, name in self._loose:
                slope = np.exp(self.shared.coordinates.log_density_ratio(name, phi, u[:, k]))
                tight = 1 / np.square(self.spread[name] * slope + 1e-6)
                precision[:, :, j, j] += tight
                pull[:, :, j] += tight * u[:, k]
            covariance = np.linalg.inv(precision)
            mean = np.einsum("npij,npj->npi", covariance, pull)
        return mean, np.linalg.cholesky(covariance)


def _marginal(posterior: Posterior, shared: SharedPrior, theta: Mapping[str, np.ndarray]) -> Any:
    """The marginal posterior, where the head has a density of it; None otherwise."""
    if len(shared.names) == len(posterior.prior.names):
        return None
    try:
        marginal = posterior.marginal(shared.names)
        marginal.log_prob({k: theta[k][:, :1] for k in shared.names})
    except SbiDaError:
        return None
    return marginal

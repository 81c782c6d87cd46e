r"""Conditionals of a joint density, by importance resampling.

With :math:`\theta_F` fixed, free scores :math:`z` are proposed from a Student law fitted to the joint draws near the condition and weighted
by :math:`q(z, z_F)\,\prod_F p_F/\phi(z_F)\,/\,g(z)` (Gelman et al., Bayesian Data Analysis, 3rd ed., section 10.4).
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from sbi_da.posteriors.noise import object_generator

if TYPE_CHECKING:
    from sbi_da.posteriors.posterior import Posterior

__all__ = ["sample_given"]

PILOT, OVERSAMPLING, DEGREES = 2000, 10, 5.0


def _fit(z: np.ndarray, known: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of ``z`` given ``known == target``: linear regression of draws weighted towards the target."""
    sd = known.std(0) + 1e-6
    distance = (((known - target) / sd) ** 2).sum(1)
    weight = np.exp(-0.5 * (distance - distance.min()))
    weight /= weight.sum()
    if 1 / (weight**2).sum() < 200:
        weight = np.full(len(z), 1 / len(z))
    design = np.column_stack([np.ones(len(z)), (known - target) / sd])
    scaled = design * weight[:, None]
    coefficients = np.linalg.lstsq(scaled.T @ design + 1e-8 * np.eye(design.shape[1]), scaled.T @ z, rcond=None)[0]
    residual = z - design @ coefficients
    covariance = (residual * weight[:, None]).T @ residual
    return np.clip(coefficients[0], -6, 6), 1.5 * covariance + 1e-4 * np.eye(z.shape[1])


def sample_given(posterior: "Posterior", n: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws with some parameters fixed.

    Returns:
        Parameters, each of shape ``(object, draw)``, and the effective sample size of each object. Where the condition
        contradicts the prior (a mass no star of that age has) the draws are NaN and the size is 0.
    """
    prior, fixed = posterior.prior, posterior.fixed
    names = prior.names
    held = [names.index(k) for k in fixed]
    free = [i for i in range(len(names)) if i not in held]
    every = {k: np.broadcast_to(np.asarray(v, float), len(posterior)) for k, v in fixed.items()}
    pilot = posterior.normal_scores(PILOT, seed).astype(float)
    drawn = {k: np.empty((len(posterior), n)) for k in names}
    ess = np.empty(len(posterior))
    for i in range(len(posterior)):
        rng = object_generator(posterior.ids[i], seed + 7)
        pilot_theta = prior.from_normal(pilot[i])
        known = np.column_stack([pilot_theta[names[j]] for j in held])
        mean, covariance = _fit(pilot[i][:, free], known, np.array([every[names[j]][i] for j in held]))
        law = multivariate_t(mean, covariance, df=DEGREES, seed=rng)
        proposals = law.rvs(max(PILOT, OVERSAMPLING * n)).reshape(-1, len(free))
        z = np.zeros((len(proposals), len(names)))
        z[:, free] = proposals
        theta = prior.from_normal(z, {k: v[i] for k, v in every.items()})
        z = prior.to_normal(theta)
        inside = np.asarray(np.isfinite(z).all(1))
        z = np.where(inside[:, None], z, 0.0)
        with torch.inference_mode():
            context = posterior.context[i].expand(len(z), -1)
            log_weight = posterior.head.log_prob(torch.from_numpy(z).float(), context).numpy().astype(float)
        for j in held:
            log_weight = log_weight + prior.log_density_ratio(names[j], theta, z[:, j])
        log_weight = log_weight - law.logpdf(proposals)
        log_weight = np.where(inside & np.isfinite(log_weight), log_weight, -np.inf)
        if not np.isfinite(log_weight).any():
            ess[i] = 0.0
            for k in names:
                drawn[k][i] = np.nan
            continue
        weight = np.exp(log_weight - logsumexp(log_weight))
        ess[i] = 1 / (weight**2).sum()
        chosen = rng.choice(len(weight), n, p=weight)
        for k in names:
            drawn[k][i] = theta[k][chosen]
    return drawn, ess

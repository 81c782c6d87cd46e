r"""The posterior of what the members of a cluster share.

.. math:: p(\varphi\mid x_1\dots x_n) \propto p(\varphi) \prod_i \left[(1-f)\,\frac{p(\varphi\mid x_i)}{p(\varphi)} + f\right]

f is the share of members that say nothing of :math:`\varphi` (stars of the field): a number, or integrated over a prior. Points are drawn from
mixtures of Student kernels that close in on the posterior (population Monte Carlo with tempered weights: Cappe et al. 2004, J. Comput.
Graph. Stat. 13, 907), the first of them from the product of the members' Gaussian approximations and, in case these mislead, from all
members' draws. No product of kernel estimates is taken: every weight holds the members' densities themselves.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

from sbi_da.cluster.proposals import StudentMixture, effective, kernels_about, normalised, tempered
from sbi_da.cluster.ratios import Inner, MemberRatios
from sbi_da.cluster.result import Cluster
from sbi_da.cluster.shared_prior import SharedPrior
from sbi_da.distributions import Distribution, Law, distribution_from_dict
from sbi_da.errors import SbiDaError
from sbi_da.posteriors import Posterior

__all__ = ["combine"]

ROUNDS, SEARCHERS, SEARCH_DRAWS, LAST = 25, 200, 8, 4
"""Rounds of the search at most, points and inner draws of each, and rounds of the answer at most."""
SHARES = 24
"""Values of f that stand for its prior, equally probable."""
ENOUGH = 0.3
"""Effective share of points at which a round is good."""


def combine(
    posterior: Posterior,
    shared: Sequence[str],
    spread: Mapping[str, float] | None = None,
    contamination: float | Law | Mapping[str, Any] = 0.0,
    prior: Mapping[str, Law | Mapping[str, Any]] | None = None,
    points: int = 1000,
    draws: int = 16,
    seed: int = 0,
) -> Cluster:
    """Combine the posteriors of objects that share parameters.

    Args:
        posterior: of the members, under the training prior: without ``given``, ``under`` or ``marginal``.
        shared: parameters that all members have in common.
        spread: standard deviation of members about the common value, for those of ``shared`` that are not exactly equal, in their unit.
        contamination: share f of members that say nothing of the cluster, or a law on [0, 1] of it such as ``{"kind": "uniform", "low": 0,
            "high": 0.5}``.
        prior: laws that replace those of the training prior for shared parameters; the others keep theirs.
        points: values of the shared parameters that are weighed.
        draws: of a member's own parameters for each of these, a power of two.
        seed: of everything that is drawn.

    Raises:
        SbiDaError: no members, unknown or derived parameters, or a spread, share or number that cannot be.
    """
    loose = dict(spread or {})
    common = _check(posterior, shared, loose, points, draws)
    if loose and not common.exact:
        raise SbiDaError(
            f"cluster: the prior of {', '.join(common.names)} depends on parameters that are not shared: share these too, or leave out spread"
        )
    laws = {k: law if isinstance(law, Law) else distribution_from_dict(law, f"prior.{k}") for k, law in (prior or {}).items()}
    target = common.replaced(laws) if laws else common
    shares = _shares(contamination)
    ratios, rng = MemberRatios(posterior, common, loose, seed), np.random.default_rng([seed, 5])

    def log_joint(u: np.ndarray, inner: Inner) -> np.ndarray:
        """Log of p(phi) prod_i (...), per score and share, shape ``(share, point)``."""
        phi = common.coordinates.from_normal(u)
        inside = (np.abs(u) < 7.9).all(1)
        base = np.where(inside, target.log_prob(phi) + common.log_jacobian(u, phi), -np.inf) if laws or not common.exact else np.where(
            inside, norm.logpdf(u).sum(1), -np.inf)
        with np.errstate(divide="ignore"):
            found = [base + np.logaddexp(np.log1p(-f) + inner.log_ratio, np.log(f)).sum(0) for f in shares]
        return np.stack(found)

    proposal = _start(ratios.scores)
    for k in range(ROUNDS):
        u = proposal.sample(SEARCHERS, rng)
        inner = ratios(u, ratios.points(SEARCH_DRAWS, seed + 100 + k))
        log_weight = logsumexp(log_joint(u, inner), axis=0) - np.log(len(shares)) - proposal.log_prob(u)
        good = effective(normalised(log_weight)) >= ENOUGH * SEARCHERS
        weight = tempered(log_weight, 0.25 * SEARCHERS)
        proposal = kernels_about(u, weight, rng)
        if k == 0:
            ratios.focus(weight @ u)
        else:
            ratios.adapt(u, weight, inner)
        if good and k > 1:
            break
    noise = ratios.points(draws, seed)
    for _ in range(LAST):
        u = proposal.sample(points, rng)
        inner = ratios(u, noise)
        by_share = log_joint(u, inner)
        log_weight = logsumexp(by_share, axis=0) - np.log(len(shares)) - proposal.log_prob(u)
        if effective(normalised(log_weight)) >= ENOUGH * points:
            break
        proposal = kernels_about(u, tempered(log_weight, 0.25 * points), rng)
    if not np.isfinite(log_weight).any():
        raise SbiDaError(f"cluster: no {', '.join(common.names)} is possible for all {len(ratios)} members: allow for contamination")
    cluster = Cluster(
        ratios, u, common.coordinates.from_normal(u), normalised(log_weight), inner.log_ratio,
        normalised(inner.log_weight).astype(np.float32), shares, normalised(by_share, axis=0).T,
        float(logsumexp(log_weight) - np.log(len(u))),
    )
    if cluster.flag:
        warnings.warn(
            f"cluster of {len(ratios)}: {cluster.flag}: effective sample size {cluster.effective_sample_size:.0f} of {points} points, Monte Carlo "
            f"error up to {cluster.relative_error:.2f} standard deviations: raise points or draws, or allow for contamination",
            stacklevel=2,
        )
    return cluster


def _start(scores: np.ndarray) -> StudentMixture:
    """The product of the members' Gaussian approximations, widened, and all members' draws together."""
    size = scores.shape[-1]
    mean = scores.mean(1)
    about = scores - mean[:, None]
    value, vector = np.linalg.eigh(np.einsum("nma,nmb->nab", about, about) / scores.shape[1])
    inverse = 1 / np.clip(value, 1e-8, 0.99)
    precision = np.einsum("nak,nk,nbk->nab", vector, inverse, vector)
    total = np.linalg.inv(np.eye(size) + (precision - np.eye(size)).sum(0))
    centre = total @ np.einsum("nab,nb->a", precision, mean)
    pooled = np.cov(scores.reshape(-1, size).T).reshape(size, size)
    roots = np.stack([np.linalg.cholesky(scale * c + 1e-10 * np.eye(size)) for scale, c in ((4.0, total), (1.0, pooled))])
    return StudentMixture(np.stack([centre, scores.reshape(-1, size).mean(0)]), roots)


def _shares(contamination: float | Law | Mapping[str, Any]) -> np.ndarray:
    """Equally probable values of f, shape ``(share,)``."""
    if isinstance(contamination, (int, float)):
        if not 0 <= contamination < 1:
            raise SbiDaError(f"contamination must be a share from 0 to below 1, not {contamination}")
        return np.array([float(contamination)])
    law = contamination if isinstance(contamination, Law) else distribution_from_dict(contamination, "contamination")
    low, high = law.bounds
    if not (isinstance(law, Distribution) and 0 <= low < high <= 1):
        raise SbiDaError(f"contamination must be a law of a share between 0 and 1, not {law.to_dict()}")
    level = (np.arange(SHARES) + 0.5) / SHARES * law.mass(low, high)
    return np.asarray(law.quantile(low, high, level, law.mass(low, high) - level))


def _check(posterior: Posterior, shared: Sequence[str], spread: Mapping[str, float], points: int, draws: int) -> SharedPrior:
    if posterior.fixed or posterior.target is not None or posterior.names is not None:
        raise SbiDaError("cluster: combine takes a posterior before given, under or marginal; prior=... replaces laws of shared parameters")
    if not len(posterior):
        raise SbiDaError("cluster: there are no members to combine")
    for name in shared:
        if name in posterior.derived:
            raise SbiDaError(f"cluster: {name} is a derived quantity and cannot be shared: share parameters of the prior")
    common = SharedPrior(posterior.prior, shared)
    for name, value in spread.items():
        if name not in common.names:
            raise SbiDaError(f"cluster: spread of {name!r}, which is not shared: leave it out, members have it for themselves anyway")
        if not (np.isfinite(value) and value > 0):
            raise SbiDaError(f"cluster: the spread of {name} must be a positive standard deviation, not {value}: leave it out for none")
    if points < 100:
        raise SbiDaError(f"cluster: points must be at least 100, not {points}")
    if draws < 2 or draws & (draws - 1):
        raise SbiDaError(f"cluster: draws must be a power of two, 2 or more, not {draws}")
    return common

r"""The posterior of what the members of a cluster share.

.. math:: p(\varphi\mid x_1\dots x_n) \propto p(\varphi) \prod_i \left[(1-f)\,\frac{p(\varphi\mid x_i)}{p(\varphi)} + f\right]

f is the share of members that say nothing of :math:`\varphi` (stars of the field): a number, or integrated over a prior. Points are drawn
from mixtures of Student kernels that close in on the posterior (population Monte Carlo with tempered weights: Cappe et al. 2004, J. Comput.
Graph. Stat. 13, 907), first by mixtures fitted to the members' draws, then by the members' densities themselves
(:mod:`sbi_da.cluster.ratios`) wherever the integral over what a member has for itself can be done.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm

from sbi_da.cluster.mixtures import PARTS, Mixtures, PartFits
from sbi_da.cluster.ratios import Inner, MemberRatios
from sbi_da.cluster.result import Cluster
from sbi_da.cluster.shared_prior import SharedPrior
from sbi_da.distributions import Distribution, Law, distribution_from_dict
from sbi_da.errors import SbiDaError
from sbi_da.importance import StudentMixture, effective, kernels_about, normalised, tempered
from sbi_da.posteriors import Posterior

__all__ = ["combine"]

ROUNDS, ADAPTED, SEARCHERS, LAST = 40, 12, 200, 4
"""Rounds at most of the search by mixtures, of that by the densities themselves, and of the answer; points of the first, twice the
second's."""
TRUSTED = 0.25
"""Effective share of the draws of a member's own parameters from which on the integral over them is trusted; twice that where mixtures are
the better alternative, which it may fall short of by :data:`SHORT` in log."""
SHORT = 0.3
SHARES = 24
"""Values of f that stand for its prior, equally probable."""
REACH = 4.5
"""Normal scores of the shared prior beyond which nothing is looked for: no network has been trained there."""
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
    laws = {k: law if isinstance(law, Law) else distribution_from_dict(law, f"prior.{k}") for k, law in (prior or {}).items()}
    shares = _shares(contamination)
    ratios, rng = MemberRatios(posterior, common, loose, seed), np.random.default_rng([seed, 5])

    def log_joint(u: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
        """Log of p(phi) prod_i (...), per score and share, shape ``(share, point)``."""
        base = norm.logpdf(u).sum(1)
        if laws:
            base = base + common.log_ratio(laws, common.coordinates.from_normal(u))
        base = np.where((np.abs(u) < REACH).all(1), base, -np.inf)
        with np.errstate(divide="ignore"):
            return np.stack([base + np.logaddexp(np.log1p(-f) + log_ratio, np.log(f)).sum(0) for f in shares])

    def weigh(by_share: np.ndarray) -> np.ndarray:
        return np.asarray(logsumexp(by_share, axis=0)) - np.log(len(shares))

    mixtures = Mixtures.fit(ratios.scores)
    proposal = _start(ratios.scores, 2)
    for k in range(ROUNDS):
        u = proposal.sample(SEARCHERS, rng)
        log_weight = weigh(log_joint(u, mixtures.log_ratio(common, loose, u))) - proposal.log_prob(u)
        proposal = kernels_about(u, tempered(log_weight, 0.25 * SEARCHERS), rng)
        if k > 1 and effective(normalised(log_weight)) >= ENOUGH * SEARCHERS:
            break
    # Mixtures may mislead where much is shared: whichever of two starts finds more evidence is gone on from.
    found = []
    for start in (proposal, _start(ratios.scores, 1)):
        ratios = copy.copy(ratios)
        trusted, proposal, evidence = _adapted(ratios, mixtures, start, lambda u, r: weigh(log_joint(u, r)), draws, rng, seed)
        found.append((evidence, ratios, trusted, proposal))
        if not (ratios.own and trusted.any()):
            break
    _, ratios, trusted, proposal = max(found, key=lambda one: one[0])
    noise = ratios.points(draws, seed)
    for _ in range(LAST):
        u = proposal.sample(points, rng)
        inner = ratios(u, noise) if trusted.any() else None
        log_ratio = mixtures.log_ratio(common, loose, u)
        if inner is not None:
            log_ratio = np.where(trusted[:, None], inner.log_ratio, log_ratio)
        by_share = log_joint(u, log_ratio)
        log_weight = weigh(by_share) - proposal.log_prob(u)
        if effective(normalised(log_weight)) >= ENOUGH * points:
            break
        proposal = kernels_about(u, tempered(log_weight, 0.25 * points), rng)
    if not np.isfinite(log_weight).any():
        raise SbiDaError(f"cluster: no {', '.join(common.names)} is possible for all {len(ratios)} members: allow for contamination")
    error = np.zeros((len(ratios), points, max(draws, PARTS)), np.float32)
    if inner is not None and inner.log_weight.shape[2] > 1:
        error[..., :draws] = (normalised(inner.log_weight) - 1 / draws) * np.sqrt(draws / (draws - 1))
    if not trusted.all():
        error[~trusted] = 0.0
        error[~trusted, :, :PARTS] = PartFits(ratios.scores[~trusted]).errors(common, loose, u)
    cluster = Cluster(
        ratios, mixtures, trusted, u, common.coordinates.from_normal(u), normalised(log_weight), log_ratio, error, shares,
        normalised(by_share, axis=0).T, float(logsumexp(log_weight) - np.log(len(u))),
    )
    if cluster.flag:
        warnings.warn(
            f"cluster of {len(ratios)}: {cluster.flag}: effective sample size {cluster.effective_sample_size:.0f} of {points} points, "
            f"Monte Carlo error up to {cluster.relative_error:.2f} standard deviations: raise points or draws, or allow for contamination",
            stacklevel=2,
        )
    return cluster


def _adapted(
    ratios: MemberRatios, mixtures: Mixtures, proposal: StudentMixture, log_target: Callable[[np.ndarray, np.ndarray], np.ndarray],
    draws: int, rng: np.random.Generator, seed: int,
) -> tuple[np.ndarray, StudentMixture, float]:
    """Rounds with the members' densities themselves, to which ``ratios`` are adapted.

    Returns:
        Whose ratios these give, boolean, shape ``(member,)``, the proposal of the next round, and the log evidence of the last one.
    """
    if not ratios.own:
        trusted = np.ones(len(ratios), bool)
    for k in range(ADAPTED):
        u = proposal.sample(SEARCHERS // 2, rng)
        if k == 0:
            ratios.focus(u.mean(0))
        inner = ratios(u, ratios.points(draws, seed + 100 + k))
        approximate = mixtures.log_ratio(ratios.shared, ratios.spread, u)
        if ratios.own:
            trusted = _trusted(inner, approximate, len(ratios.own) < len(ratios.shared.names))
        log_weight = log_target(u, np.where(trusted[:, None], inner.log_ratio, approximate)) - proposal.log_prob(u)
        good = effective(normalised(log_weight)) >= ENOUGH * len(u)
        weight = tempered(log_weight, 0.25 * len(u))
        proposal = kernels_about(u, weight, rng)
        ratios.adapt(u, weight, inner)
        if k > 1 and (good or not trusted.any()):
            break
    return trusted, proposal, float(logsumexp(log_weight) - np.log(len(log_weight)))


def _trusted(inner: Inner, approximate: np.ndarray, few: bool) -> np.ndarray:
    """Whose integrals can be trusted, boolean, shape ``(member,)``.

    Args:
        inner: the integrals.
        approximate: log ratios of mixtures, shape ``(member, point)``.
        few: whether members have fewer parameters for themselves than they share: integrals are then easier than densities of draws.
            Otherwise
            one that falls short of the mixture has missed something.
    """
    size = np.median(effective(normalised(inner.log_weight)), axis=1) / inner.log_weight.shape[2]
    if few:
        return np.asarray(size >= TRUSTED)
    return (size >= 2 * TRUSTED) & (np.median(inner.log_ratio - approximate, axis=1) >= -SHORT)


def _start(scores: np.ndarray, kernels: int) -> StudentMixture:
    """The product of the members' Gaussian approximations, widened, and with two kernels all members' draws together."""
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
    return StudentMixture(np.stack([centre, scores.reshape(-1, size).mean(0)])[:kernels], roots[:kernels])


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

"""What no domain test sees: summaries that lost their information, and partners that lie apart."""

import numpy as np

from sbi_da.diagnostics.bootstrap import LIMITS, figure, interval, resampled_counts
from sbi_da.errors import SbiDaError

__all__ = ["contraction", "pair_error"]


def contraction(
    prior_sd: np.ndarray, posterior_sd: np.ndarray, replicates: int = 500, seed: int = 0
) -> list[dict[str, float]]:
    r"""What data teach: mean of :math:`1 - \sigma^2_\mathrm{post} / \sigma^2_\mathrm{prior}`, with its 95 % interval.

    Zero: the posterior is the prior. Far less on simulated than on real twins, or the reverse: the summaries collapse.

    Args:
        prior_sd: shape ``(parameter,)``.
        posterior_sd: shape ``(object, parameter)``.
        replicates: bootstrap resamples of objects.
        seed: of the resampling.

    Returns:
        One ``{"value", "low", "high"}`` per parameter; negative where the posterior is wider than the prior.

    Raises:
        SbiDaError: shapes that do not agree, or standard deviations that cannot be.
    """
    prior_sd, posterior_sd = np.asarray(prior_sd, float), np.asarray(posterior_sd, float)
    if posterior_sd.ndim != 2 or prior_sd.shape != posterior_sd.shape[1:] or 0 in posterior_sd.shape:
        raise SbiDaError(
            "contraction needs prior_sd (parameter,) and posterior_sd (object, parameter), "
            f"got {prior_sd.shape} and {posterior_sd.shape}"
        )
    if not (np.isfinite(posterior_sd).all() and np.isfinite(prior_sd).all() and (prior_sd > 0).all()
            and (posterior_sd >= 0).all()):
        raise SbiDaError("contraction: standard deviations must be finite, the prior's positive and none negative")
    return interval(lambda v: 1 - v.mean(-1), (posterior_sd / prior_sd).T ** 2, replicates, seed)


def pair_error(simulated: np.ndarray, real: np.ndarray, replicates: int = 500, seed: int = 0) -> dict[str, float]:
    """Mean squared distance of pairs over that of rows paired at random: 0 if twins coincide, 1 if they are strangers.

    Below 0.2 is good. Unlike the AUC it sees rotations and swaps that leave both clouds as they are.

    Args:
        simulated: shape ``(pair, d)``, in the metric the head sees.
        real: the twins, in the same order, shape ``(pair, d)``.
        replicates: bootstrap resamples of pairs.
        seed: of the resampling.

    Returns:
        ``{"value", "low", "high"}``.

    Raises:
        SbiDaError: other than two or more finite pairs, or clouds that are one point.
    """
    s, r = np.asarray(simulated, float), np.asarray(real, float)
    if s.ndim != 2 or s.shape != r.shape or len(s) < 2 or not (np.isfinite(s).all() and np.isfinite(r).all()):
        raise SbiDaError(f"pair_error needs two or more finite pairs of one width (pair, d), got {s.shape} and {r.shape}")
    middle = (s.mean(0) + r.mean(0)) / 2
    s, r = s - middle, r - middle
    n, own = len(s), ((s - r) ** 2).sum(1)
    count = np.column_stack([np.ones(n), resampled_counts(n, replicates, np.random.default_rng(seed))])
    every = n * count.T @ (s**2 + r**2).sum(1) - 2 * ((count.T @ s) * (count.T @ r)).sum(1)
    repeats = (count**2).sum(0)  # a pair drawn twice is no random pair
    random = (every - own @ count**2) / np.maximum(n**2 - repeats, 1)
    if not random[0] > 1e-12 * max(float((s**2).sum()), float((r**2).sum()), 1e-300):
        raise SbiDaError("pair_error: all rows are the same point, distances of random pairs are zero")
    known = random > 0
    ratio = (own @ count)[known] / n / random[known]
    return figure(ratio[0], *np.percentile(ratio[1:], LIMITS))

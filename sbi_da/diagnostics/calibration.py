r"""Calibration of posterior draws: simulation-based calibration and expected coverage.

If truth and ``L`` draws are exchangeable, the rank of the truth among the draws is uniform on :math:`\{0, \dots, L\}`
(Talts et al. 2018, arXiv:1804.06788). With :math:`U` uniform on (0, 1), the probability integral transform
:math:`u = (r + U) / (L + 1)` is then exactly uniform, whatever ``L``. A central interval of level :math:`\alpha` holds
the truth when :math:`|2u - 1| < \alpha`, so expected coverage costs one pass over the draws and carries no bias from
their finite number.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

from sbi_da.diagnostics.bootstrap import LIMITS, check_draws, figure, resampled_means
from sbi_da.errors import SbiDaError

__all__ = [
    "LEVELS", "central_coverage", "coverage", "coverage_error", "coverage_error_from_pit", "curve_error",
    "finite_sample_error", "pit", "rank_histogram", "ranks", "sbc_p_values",
]

LEVELS = np.arange(1, 20) / 20
"""Nominal levels 5 … 95 %."""

CHUNK_VALUES = 4_000_000
"""Draws compared at a time: 32 MB in double precision."""


def ranks(draws: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank of the truth among the draws, ties broken at random (Talts et al. 2018).

    Args:
        draws: shape ``(object, draw, parameter)``.
        truth: shape ``(object, parameter)``; NaN where unknown.
        rng: breaks ties.

    Returns:
        Integers 0 … number of draws, shape ``(object, parameter)``; -1 where the truth is unknown.
    """
    draws, truth = check_draws(draws, truth)
    result = np.empty(truth.shape, np.int64)
    step = max(1, CHUNK_VALUES // (draws.shape[1] * draws.shape[2]))
    for start in range(0, len(draws), step):
        part, centre = draws[start : start + step], truth[start : start + step, None, :]
        below = np.count_nonzero(part < centre, axis=1)
        ties = np.count_nonzero(part == centre, axis=1)
        result[start : start + step] = below + rng.integers(0, ties + 1)
    return np.where(np.isnan(truth), -1, result)


def pit(rank: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Randomised probability integral transform of ranks, in (0, 1); NaN where the rank is negative."""
    return np.where(rank < 0, np.nan, (rank + rng.random(rank.shape)) / (n_draws + 1))


def rank_histogram(rank: np.ndarray, n_draws: int, bins: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the ranks of one parameter in ``bins`` bins, and the probability of each bin under uniformity."""
    bins = min(bins, n_draws + 1)
    where = np.arange(n_draws + 1) * bins // (n_draws + 1)
    probability = np.bincount(where, minlength=bins) / (n_draws + 1)
    return np.bincount(where[rank[rank >= 0]], minlength=bins), probability


def sbc_p_values(
    rank: np.ndarray, n_draws: int, method: str = "chi2", bins: int = 20, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Probability of ranks at least as uneven as these if the posterior were right, per parameter.

    Args:
        rank: shape ``(object, parameter)``, from :func:`ranks`.
        n_draws: draws per object.
        method: ``"chi2"`` on a histogram, or ``"ks"`` (Kolmogorov-Smirnov on the randomised transform).
        bins: bins of the histogram.
        rng: randomises the transform; seed 0 if None.

    Returns:
        Shape ``(parameter,)``; NaN where no truth is known.

    Raises:
        SbiDaError: an unknown method.
    """
    if method not in ("chi2", "ks"):
        raise SbiDaError(f"unknown uniformity test {method!r}: known are chi2, ks")
    u = pit(rank, n_draws, rng or np.random.default_rng(0))
    values = []
    for p in range(rank.shape[1]):
        known = rank[:, p] >= 0
        if not known.any():
            values.append(np.nan)
        elif method == "ks":
            values.append(stats.kstest(u[known, p], "uniform").pvalue)
        else:
            counts, probability = rank_histogram(rank[:, p], n_draws, bins)
            values.append(stats.chisquare(counts, probability * counts.sum()).pvalue)
    return np.array(values, float)


def _inside(u: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Whether each level's central interval holds the truth: ``(object, level * parameter)`` of 0, 1 or NaN."""
    offset = np.abs(2 * u - 1)[:, None, :]
    hit = (offset < levels[:, None]).astype(np.float32)
    return np.where(np.isnan(offset), np.float32(np.nan), hit).reshape(len(u), -1)


def _mean(x: np.ndarray) -> np.ndarray:
    known = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        return np.where(known, x, 0).sum(0, dtype=float) / known.sum(0)


def central_coverage(u: np.ndarray, levels: Sequence[float] | np.ndarray = LEVELS) -> np.ndarray:
    """Share of objects inside central intervals, from the transform ``u`` of shape ``(object, parameter)``."""
    levels = np.asarray(levels, float)
    return _mean(_inside(u, levels)).reshape(len(levels), -1)


def coverage(
    draws: np.ndarray, truth: np.ndarray, levels: Sequence[float] | np.ndarray = LEVELS, seed: int = 0
) -> np.ndarray:
    """Expected coverage of central (equal-tailed) intervals.

    Args:
        draws: shape ``(object, draw, parameter)``.
        truth: shape ``(object, parameter)``; NaN where unknown.
        levels: nominal levels between 0 and 1.
        seed: of the randomised ranks.

    Returns:
        Share of objects whose interval holds the truth, shape ``(level, parameter)``.
    """
    rng = np.random.default_rng(seed)
    return central_coverage(pit(ranks(draws, truth, rng), draws.shape[1], rng), levels)


@lru_cache(maxsize=4096)
def finite_sample_error(
    n: int, levels: tuple[float, ...] = tuple(LEVELS), simulations: int = 2000
) -> tuple[float, float]:
    """Coverage error of a perfectly calibrated posterior seen through ``n`` objects: mean and 97.5 % quantile."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, np.diff([0.0, *levels, 1.0]), size=simulations)[:, :-1]
    error = np.abs(counts.cumsum(1) / n - np.array(levels)).mean(1)
    return float(error.mean()), float(np.percentile(error, LIMITS[1]))


def curve_error(
    hit: np.ndarray, levels: np.ndarray, replicates: int, seed: int
) -> tuple[list[dict[str, float]], dict[str, float], np.ndarray, np.ndarray]:
    """Mean |empirical - nominal| of coverage curves, with what finite samples alone would give.

    Args:
        hit: 0, 1 or NaN (does not count), shape ``(object, level * curve)``.
        levels: nominal, shape ``(level,)``.
        replicates: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        One summary per curve (see :func:`coverage_error`), that of their average, the curves ``(level, curve)`` and
        their resamples ``(replicate, level, curve)``.
    """
    curve = _mean(hit).reshape(len(levels), -1)
    resampled = resampled_means(hit, replicates, np.random.default_rng(seed)).reshape(replicates, *curve.shape)
    error = np.abs(curve - levels[:, None]).mean(0)
    replicate = np.abs(resampled - levels[:, None]).mean(1)
    null = np.abs(resampled - curve).mean(1)
    count = np.isfinite(hit).sum(0).reshape(curve.shape)[0]

    def summary(value: float, sample: np.ndarray, expected: float, limit: float) -> dict[str, float]:
        # Noise adds to a mean of absolute values: resamples lie above the value by as much again, which is taken off.
        low, high = np.maximum(np.percentile(sample, LIMITS) - (sample.mean() - value), 0)
        return figure(value, low, high) | {"expected": expected, "limit": limit}

    each, floor = [], []
    for p in range(curve.shape[1]):
        known = count[p] > 0
        expected, limit = finite_sample_error(int(count[p]), tuple(levels.tolist())) if known else (np.nan, np.nan)
        each.append(summary(error[p], replicate[:, p], expected, limit))
        floor.append(expected)
    use = count > 0
    if not use.any():
        return each, summary(np.nan, np.full(1, np.nan), np.nan, np.nan), curve, resampled
    # Parameters are not independent, so the limit of their average comes from resamples about the curve itself.
    alone = use.sum() == 1
    limit = each[int(np.argmax(use))]["limit"] if alone else np.percentile(null[:, use].mean(1), LIMITS[1])
    average = summary(error[use].mean(), replicate[:, use].mean(1), float(np.mean(np.array(floor)[use])), float(limit))
    return each, average, curve, resampled


def coverage_error_from_pit(
    u: np.ndarray, levels: Sequence[float] | np.ndarray = LEVELS, replicates: int = 200, seed: int = 0
) -> dict[str, Any]:
    """:func:`coverage_error` from the transform ``u``, shape ``(object, parameter)``."""
    levels = np.asarray(levels, float)
    each, average, curve, _ = curve_error(_inside(u, levels), levels, replicates, seed)
    return average | {"per_parameter": each, "levels": levels, "coverage": curve}


def coverage_error(
    draws: np.ndarray, truth: np.ndarray, levels: Sequence[float] | np.ndarray = LEVELS,
    replicates: int = 200, seed: int = 0,
) -> dict[str, Any]:
    """Mean absolute difference between empirical and nominal coverage.

    Args:
        draws: shape ``(object, draw, parameter)``.
        truth: shape ``(object, parameter)``; NaN where unknown.
        levels: nominal levels.
        replicates: bootstrap resamples of objects.
        seed: of ranks and bootstrap.

    Returns:
        ``value`` (averaged over parameters), ``low`` and ``high`` (its 95 % bootstrap interval), ``expected`` and
        ``limit`` (mean and 97.5 % quantile for a perfectly calibrated posterior and as many objects: a value below
        ``limit`` is no evidence of miscalibration), ``per_parameter`` (the same five for each), ``levels`` and
        ``coverage`` of shape ``(level, parameter)``.
    """
    rng = np.random.default_rng(seed)
    return coverage_error_from_pit(pit(ranks(draws, truth, rng), draws.shape[1], rng), levels, replicates, seed)

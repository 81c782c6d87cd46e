"""Calibration of the joint posterior, not only of its marginals: TARP and highest-density coverage."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from sbi_da.diagnostics.bootstrap import LIMITS, check_draws
from sbi_da.diagnostics.calibration import CHUNK_VALUES, LEVELS, curve_error, pit, ranks

__all__ = ["highest_density_coverage", "tarp", "tarp_from_pit", "tarp_pit"]


def highest_density_coverage(
    log_prob_draws: np.ndarray, log_prob: np.ndarray, levels: Sequence[float] | np.ndarray = LEVELS, seed: int = 0
) -> np.ndarray:
    """Expected coverage of highest-density regions of the joint posterior (Hermans et al. 2022).

    Args:
        log_prob_draws: log density at the draws, shape ``(object, draw)``.
        log_prob: log density at the truth, shape ``(object,)``.
        levels: nominal levels.
        seed: of the randomised ranks.

    Returns:
        Shape ``(level,)``.
    """
    rng = np.random.default_rng(seed)
    lower = pit(ranks(log_prob_draws[..., None], log_prob[:, None], rng), log_prob_draws.shape[1], rng)[:, 0]
    return np.array([np.nanmean(1 - lower < level) for level in levels])


def tarp_pit(draws: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of draws nearer than the truth to a random reference point, randomised; uniform if calibrated.

    Distances are Euclidean after dividing by the standard deviation of the truth; references are uniform in the box
    that holds the truth.

    Args:
        draws: shape ``(object, draw, parameter)``.
        truth: shape ``(object, parameter)``; parameters known for no object are left out, then objects with an
            unknown one.
        rng: references and ties.

    Returns:
        Shape ``(object,)``, NaN where the truth is not known.
    """
    draws, truth = check_draws(draws, truth)
    known = np.isfinite(truth)
    use = known.any(0)
    full = known[:, use].all(1) & bool(use.any())
    result = np.full(len(truth), np.nan)
    if not full.any():
        return result
    inside = truth[full][:, use].astype(float)
    scale = np.where(inside.std(0) > 0, inside.std(0), 1.0)
    reference = rng.uniform(inside.min(0), inside.max(0), (len(truth), use.sum()))
    step = max(1, CHUNK_VALUES // (draws.shape[1] * draws.shape[2]))
    for start in range(0, len(draws), step):
        part = slice(start, start + step)
        offset = (draws[part][..., use] - reference[part, None]) / scale
        own = (truth[part][:, use] - reference[part]) / scale
        distance = np.einsum("odp,odp->od", offset, offset)[..., None]
        rank = ranks(distance, np.einsum("op,op->o", own, own)[:, None], rng)
        result[part] = pit(rank, draws.shape[1], rng)[:, 0]
    return np.where(full, result, np.nan)


def tarp_from_pit(
    u: np.ndarray, levels: Sequence[float] | np.ndarray = LEVELS, replicates: int = 200, seed: int = 0
) -> dict[str, Any]:
    """:func:`tarp` from the transform ``u`` of :func:`tarp_pit`, shape ``(object,)``."""
    levels = np.asarray(levels, float)
    hit = np.where(np.isnan(u)[:, None], np.nan, u[:, None] < levels)
    _, deviation, curve, resampled = curve_error(hit, levels, replicates, seed)
    finite = u[np.isfinite(u)]
    low, high = np.percentile(resampled[:, :, 0], LIMITS, axis=0)
    p_value = float(stats.kstest(finite, "uniform").pvalue) if len(finite) else np.nan
    return {
        "levels": levels, "curve": curve[:, 0], "low": low, "high": high,
        "deviation": deviation, "p_value": p_value, "n": len(finite),
    }


def tarp(
    draws: np.ndarray, truth: np.ndarray, levels: Sequence[float] | np.ndarray = LEVELS,
    replicates: int = 200, seed: int = 0,
) -> dict[str, Any]:
    """Tests of accuracy with random points (Lemos et al. 2023, arXiv:2302.03026): coverage of balls about them.

    Args:
        draws: shape ``(object, draw, parameter)``.
        truth: shape ``(object, parameter)``; NaN where unknown.
        levels: credibility levels.
        replicates: bootstrap resamples of objects.
        seed: of references, ties and bootstrap.

    Returns:
        ``curve`` with its band ``low``, ``high``, each of shape ``(level,)``; ``deviation``, the mean |curve - level|
        with interval, expectation and limit as in :func:`~sbi_da.diagnostics.calibration.coverage_error`; ``p_value``
        (Kolmogorov-Smirnov); ``n`` objects used.
    """
    return tarp_from_pit(tarp_pit(draws, truth, np.random.default_rng(seed)), levels, replicates, seed)

r"""Errors of point estimates and of their stated uncertainties.

The estimate is the posterior median, its residual is estimate minus truth. Labels with errors :math:`s` of their own
are themselves measurements: z-scores divide by :math:`\sqrt{\sigma^2 + s^2}`, and coverage compares the label with
draws that carry noise of width :math:`s`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sbi_da.diagnostics.bootstrap import check_draws, interval
from sbi_da.diagnostics.calibration import CHUNK_VALUES, pit, ranks

__all__ = ["STATISTICS", "error_figures", "point_errors", "residuals", "with_label_noise"]

STATISTICS = ("bias", "scatter", "rmse", "outliers", "z_mean", "z_sd", "coverage_68", "coverage_90")
"""Bias (median residual), 1.4826 MAD and RMSE in the parameter's unit; share more than 5 scatters from the bias; mean
and standard deviation of z-scores; coverage of central intervals."""


def with_label_noise(draws: np.ndarray, error: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Draws of the noisy label rather than of the truth.

    Args:
        draws: shape ``(object, draw, parameter)``.
        error: one standard deviation of the labels, shape ``(object, parameter)``; NaN counts as none.
        rng: generator.
    """
    if error is None:
        return draws
    noise = rng.standard_normal(draws.shape, np.float32)
    noise *= np.nan_to_num(np.asarray(error, np.float32), nan=0.0)[:, None, :]
    return draws + noise


def residuals(
    draws: np.ndarray, truth: np.ndarray, label_error: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residual of the posterior median, z-score of the posterior mean, and posterior standard deviation.

    Args:
        draws: shape ``(object, draw, parameter)``, without label noise.
        truth: shape ``(object, parameter)``; NaN where unknown.
        label_error: one standard deviation of the truth, shape ``(object, parameter)``.

    Returns:
        Three arrays of shape ``(object, parameter)``; the first two NaN where the truth is unknown.
    """
    draws, truth = check_draws(draws, truth)
    mean, median, sd = (np.empty(truth.shape) for _ in range(3))
    step = max(1, CHUNK_VALUES // (draws.shape[1] * draws.shape[2]))
    for start in range(0, len(draws), step):
        part = slice(start, start + step)
        block = np.ascontiguousarray(draws[part].transpose(0, 2, 1), dtype=float)
        mean[part], sd[part] = block.mean(-1), block.std(-1)
        median[part] = np.median(block, axis=-1, overwrite_input=True)
    total = sd if label_error is None else np.hypot(sd, np.nan_to_num(label_error, nan=0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return median - truth, (mean - truth) / total, sd


def _statistics(x: np.ndarray) -> np.ndarray:
    residual, z, u = x
    bias = np.median(residual, axis=-1)
    deviation = np.abs(residual - bias[..., None])
    scatter = 1.4826 * np.median(deviation, axis=-1)
    offset = np.abs(2 * u - 1)
    return np.stack([
        bias, scatter, np.sqrt(np.mean(residual**2, axis=-1)), np.mean(deviation > 5 * scatter[..., None], axis=-1),
        z.mean(-1), z.std(-1), np.mean(offset < 0.68, axis=-1), np.mean(offset < 0.9, axis=-1),
    ])


def error_figures(
    residual: np.ndarray, z: np.ndarray, u: np.ndarray, sd: np.ndarray, replicates: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Error figures of one parameter, from arrays of shape ``(object,)``: see :func:`point_errors`."""
    x = np.stack([residual, z, u])
    known = np.isfinite(x).all(0)
    if not known.any():
        return {"n": 0}
    x = x[:, known]
    figures = interval(_statistics, x, replicates, seed)
    return {"n": x.shape[1], "posterior_sd": float(np.median(sd[known])), **dict(zip(STATISTICS, figures, strict=True))}


def point_errors(
    draws: np.ndarray, truth: np.ndarray, names: Sequence[str], label_error: np.ndarray | None = None,
    replicates: int = 200, seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Errors of point estimates per parameter, each with its 95 % bootstrap interval over objects.

    Args:
        draws: shape ``(object, draw, parameter)``.
        truth: shape ``(object, parameter)``; NaN where unknown.
        names: of the parameters.
        label_error: one standard deviation of the truth, shape ``(object, parameter)``; None if it is exact.
        replicates: bootstrap resamples.
        seed: of ranks and bootstrap.

    Returns:
        By parameter: ``n``, ``posterior_sd`` (median), and ``{"value", "low", "high"}`` for each of :data:`STATISTICS`.
    """
    rng = np.random.default_rng(seed)
    residual, z, sd = residuals(draws, truth, label_error)
    u = pit(ranks(with_label_noise(draws, label_error, rng), truth, rng), draws.shape[1], rng)
    return {
        name: error_figures(residual[:, p], z[:, p], u[:, p], sd[:, p], replicates, seed)
        for p, name in enumerate(names)
    }

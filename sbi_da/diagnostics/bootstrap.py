"""Bootstrap over objects (Efron 1979), chunked so that memory does not grow with the catalogue."""

from collections.abc import Callable

import numpy as np

from sbi_da.errors import SbiDaError

__all__ = ["LIMITS", "check_draws", "figure", "interval", "resampled_counts", "resampled_means"]

LIMITS = (2.5, 97.5)
"""Percentiles of a 95 % interval."""


def check_draws(draws: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of agreeing shapes, or a clear error.

    Args:
        draws: shape ``(object, draw, parameter)``, finite.
        truth: shape ``(object, parameter)``; NaN where unknown.

    Raises:
        SbiDaError: shapes that do not agree, no object, or a draw that is not finite.
    """
    draws, truth = np.asarray(draws), np.asarray(truth)
    if draws.ndim != 3 or truth.shape != (draws.shape[0], draws.shape[2]) or 0 in draws.shape:
        raise SbiDaError(
            "draws must be (object, draw, parameter) and truth (object, parameter), none empty; "
            f"got {draws.shape} and {truth.shape}"
        )
    bad = np.flatnonzero([not np.isfinite(d).all() for d in draws])
    if len(bad):
        raise SbiDaError(f"draws of {len(bad)} objects are not finite, first at row {bad[0]}: drop or repair them")
    return draws, truth


def figure(value: float, low: float, high: float) -> dict[str, float]:
    """A number with its 95 % interval, as benchmarks and reports store it."""
    return {"value": float(value), "low": float(low), "high": float(high)}


def interval(
    statistic: Callable[[np.ndarray], np.ndarray], x: np.ndarray, replicates: int, seed: int, max_objects: int = 10_000
) -> list[dict[str, float]]:
    r"""A statistic of objects with its 95 % percentile interval.

    Beyond ``max_objects`` the m-out-of-n bootstrap is used: resamples of m objects, their deviations scaled by
    :math:`\sqrt{m/n}` (Bickel, Goetze & van Zwet 1997).

    Args:
        statistic: maps ``(column, ..., object)`` to ``(figure, ...)``.
        x: shape ``(column, object)``.
        replicates: number of resamples.
        seed: of the resampling.
        max_objects: m above.

    Returns:
        One ``{"value", "low", "high"}`` per figure.
    """
    n = x.shape[-1]
    m = min(n, max_objects)
    rng = np.random.default_rng(seed)
    value = np.asarray(statistic(x), float)
    parts = [
        np.asarray(statistic(x[:, rng.integers(n, size=(min(50, replicates - start), m))]))
        for start in range(0, replicates, 50)
    ]
    spread = (np.concatenate(parts, axis=1) - value[:, None]) * np.sqrt(m / n)
    low, high = value + np.percentile(spread, LIMITS, axis=1)
    return [figure(*row) for row in zip(value, low, high, strict=True)]


def resampled_means(x: np.ndarray, replicates: int, rng: np.random.Generator, chunk: int = 20_000) -> np.ndarray:
    """Means over objects in Poisson bootstrap resamples, all columns resampled together.

    Args:
        x: shape ``(object, column)``; NaN where an object does not count.
        replicates: number of resamples.
        rng: generator.
        chunk: objects held at a time.

    Returns:
        Shape ``(replicates, column)``; NaN for a column without objects.
    """
    total = np.zeros((replicates, x.shape[1]))
    count = np.zeros((replicates, x.shape[1]))
    for start in range(0, len(x), chunk):
        part = np.asarray(x[start : start + chunk], np.float32)
        known = np.isfinite(part)
        weight = rng.poisson(1.0, (replicates, len(part))).astype(np.float32)
        total += weight @ np.where(known, part, np.float32(0))
        count += weight @ known.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count


def resampled_counts(n: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of ``n`` rows is drawn, shape ``(n, replicates)``."""
    return rng.multinomial(n, np.full(n, 1 / n), replicates).T.astype(float)
